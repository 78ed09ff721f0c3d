"""Completion of baskets, and lists within a session, compared with a plain Python version."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from segue.errors import UnknownIdError
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.recommender import Recommender
from segue.models.markov import Markov
from tests.inference.fakes import Shopper, random_dataset, session_dataset, shopper_scores

N_ITEMS = 6
USERS = ["ann", "bob", "cat"]


# ---- by hand --------------------------------------------------------------------------------------------------------


def shop() -> Recommender:
    return Recommender(Shopper(3, 6), session_dataset([[[1, 2], [3]], [[2, 4, 1]], []], 6, USERS))


def test_each_step_reads_what_the_last_one_added() -> None:
    steps = shop().complete("ann", 3, basket=[40])
    # 50 from the basket's 40, then 60 from 50, then 10 from 60; before, the user, the history and its last session.
    assert steps.rows() == [
        ("ann", 50, 20.0, 1, "shopper"),
        ("ann", 60, 20.0, 2, "shopper"),
        ("ann", 10, 22.0, 3, "shopper"),
    ]
    assert steps.schema["step"] == pl.Int32


def test_completion_ends_if_no_item_is_left() -> None:
    steps = shop().complete(["ann", "bob"], 50, basket=[[40, 50], [10]])
    assert steps["user"].to_list() == ["ann"] * 4 + ["bob"] * 5
    assert steps["step"].to_list() == [1, 2, 3, 4, 1, 2, 3, 4, 5]
    some = shop().complete(["ann", "bob"], 5, basket=[[40, 50], [10]], allow=[50, 10, 20], deny=[20])
    assert some.select("user", "item", "step").rows() == [("ann", 10, 1), ("bob", 50, 1)]
    unseen = shop().complete("bob", 9, exclude_seen=True)
    assert sorted(unseen["item"]) == [30, 50, 60]


def test_popularity_gives_the_first_step_without_a_history_and_the_model_the_others() -> None:
    steps = shop().complete("cat", 3)
    assert steps.rows() == [
        ("cat", 10, pytest.approx(1 / 3), 1, "popularity"),
        ("cat", 20, 20.0, 2, "shopper"),
        ("cat", 30, 22.0, 3, "shopper"),
    ]
    assert shop().complete(n=2, basket=[])["model"].to_list() == ["popularity", "shopper"]
    assert shop().complete(n=2, basket=[40])["model"].to_list() == ["shopper", "shopper"]


def test_the_first_step_is_the_recommended_item() -> None:
    answers = shop()
    for question in ({"users": USERS}, {"histories": [[10], []]}, {"basket": [[40], []]}):
        in_session = question if "basket" in question else {**question, "basket": {}}
        listed = answers.recommend(**in_session, k=1).drop("rank")  # type: ignore[arg-type]
        stepped = answers.complete(**question, n=1).drop("step")  # type: ignore[arg-type]
        assert_frame_equal(stepped, listed)


def test_models_without_baskets_read_history_and_basket_alike() -> None:
    data = random_dataset(12, 9, 6)
    model = Markov().build(data.n_users, data.n_items)
    model.count(data)
    answers = Recommender(model, data)
    steps = answers.complete([3, 5], 4, basket=[[10], []])
    grown: dict[Any, list[Any]] = {3: [10], 5: []}
    stored = {user: data.to_frame().filter(user=user)["item"].to_list() for user in grown}
    for user, item, score, step, name in steps.rows():
        histories = {user: stored[user] + grown[user]}
        expected = answers.recommend(histories=histories, k=1, exclude_seen=False, deny=grown[user])
        assert expected.rows() == [(user, item, pytest.approx(score), 1, name)]
        assert step == len(grown[user]) + (user == 5)
        grown[user].append(item)


# ---- compared with plain Python -------------------------------------------------------------------------------------


class Plain:
    """The same answers in plain Python, one user and one item at a time."""

    def __init__(self, sessions: list[list[list[int]]]) -> None:
        self.sessions = dict(zip(USERS, sessions, strict=True))
        all_items = [item for user in sessions for session in user for item in session]
        self.shares = [all_items.count(item) / max(1, len(all_items)) for item in range(N_ITEMS + 1)]

    def scores(self, user: str, basket: list[int]) -> tuple[list[float], str]:
        sessions = self.sessions.get(user, [])
        history = [item for session in sessions for item in session]
        if not history and not basket:
            return self.shares, "popularity"
        code = USERS.index(user) + 1 if user in USERS else 0
        last = sessions[-1] if sessions else []
        return [float(score) for score in shopper_scores(code, history, last, basket, N_ITEMS)], "shopper"

    def best(self, user: str, basket: list[int], k: int, hidden: set[int]) -> list[tuple[int, float, str]]:
        scores, name = self.scores(user, basket)
        left = [item for item in range(1, N_ITEMS + 1) if item not in hidden and item not in basket]
        ordered = sorted(left, key=lambda item: (-scores[item], item))
        return [(item, scores[item], name) for item in ordered[:k]]

    def seen(self, user: str) -> set[int]:
        return {item for session in self.sessions.get(user, []) for item in session}

    def rest(self, user: str, basket: list[int], n: int, hidden: set[int]) -> list[tuple[int, float, str]]:
        basket, steps = list(basket), []
        for _ in range(n):
            best = self.best(user, basket, 1, hidden)
            if not best:
                break
            steps += best
            basket.append(best[0][0])
        return steps


item_codes = st.integers(1, N_ITEMS)
histories = st.lists(st.lists(item_codes, min_size=1, max_size=3), max_size=3)
baskets_by_user = st.dictionaries(
    st.sampled_from([*USERS, "yan", "zoe"]), st.lists(st.integers(1, N_ITEMS + 2), max_size=5), min_size=1
)


def known(basket: list[int]) -> list[int]:
    """Items of a basket without repeats and without items beyond the catalogue."""
    return [item for item in dict.fromkeys(basket) if item <= N_ITEMS]


def raw(items: list[int]) -> list[int]:
    return [10 * item for item in items]


@given(
    st.tuples(histories, histories, histories).map(list),
    baskets_by_user,
    st.sampled_from(["mapping", "lists", "flat"]),
    st.sampled_from([None, True, False]),
    st.sets(item_codes, max_size=3),
    st.integers(1, N_ITEMS),
)
@settings(max_examples=200, deadline=None)
def test_answers_equal_those_of_plain_python(
    sessions: list[list[list[int]]],
    baskets: dict[str, list[int]],
    form: str,
    exclude_seen: bool | None,
    denied: set[int],
    k: int,
) -> None:
    if form == "flat":
        baskets = dict([next(iter(baskets.items()))])
    given_as: Any = {user: raw(basket) for user, basket in baskets.items()}
    if form != "mapping":
        given_as = list(given_as.values()) if form == "lists" else next(iter(given_as.values()))
    answers = Recommender(Shopper(3, N_ITEMS), session_dataset(sessions, N_ITEMS, USERS))
    rules: dict[str, Any] = {"basket": given_as, "exclude_seen": exclude_seen, "deny": raw(sorted(denied))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownIdWarning)
        lists = answers.recommend(list(baskets), k=k, **rules)
        steps = answers.complete(list(baskets), k, **rules)
        scores = answers.score(list(baskets), basket=given_as, long=True)
    plain = Plain(sessions)
    expected: dict[str, list[tuple[Any, ...]]] = {"lists": [], "steps": [], "scores": []}
    for user, basket in baskets.items():
        inside = known(basket)
        hidden = denied | (plain.seen(user) if exclude_seen else set())
        for rank, (item, score, name) in enumerate(plain.best(user, inside, k, hidden), 1):
            expected["lists"].append((user, 10 * item, pytest.approx(score), rank, name))
        for step, (item, score, name) in enumerate(plain.rest(user, inside, k, hidden), 1):
            expected["steps"].append((user, 10 * item, pytest.approx(score), step, name))
        all_scores, name = plain.scores(user, inside)
        for item in range(1, N_ITEMS + 1):
            expected["scores"].append((user, 10 * item, pytest.approx(all_scores[item]), name))
    assert lists.rows() == expected["lists"]
    assert steps.rows() == expected["steps"]
    assert scores.rows() == expected["scores"]


@given(st.tuples(histories, histories, histories).map(list), st.lists(st.sampled_from([*USERS, "zoe"]), min_size=1))
@settings(max_examples=50, deadline=None)
def test_without_a_basket_the_session_has_just_begun(sessions: list[list[list[int]]], users: list[str]) -> None:
    answers = Recommender(Shopper(3, N_ITEMS), session_dataset(sessions, N_ITEMS, USERS))
    plain = Plain(sessions)
    known_users = [user for user in dict.fromkeys(users) if user in USERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownIdWarning)
        if not known_users:
            with pytest.raises(UnknownIdError):
                answers.complete(users, 2)
            return
        steps = answers.complete(users, 2)
    expected = [
        (user, 10 * item, pytest.approx(score), step, name)
        for user in known_users
        for step, (item, score, name) in enumerate(plain.rest(user, [], 2, set()), 1)
    ]
    assert steps.rows() == expected


def test_many_users_get_the_same_answers_as_one() -> None:
    rng = np.random.default_rng(3)
    sessions = [[rng.integers(1, 31, 3).tolist() for _ in range(rng.integers(0, 4))] for _ in range(200)]
    answers = Recommender(Shopper(200, 30), session_dataset(sessions, 30))
    baskets = {user: (10 * rng.integers(1, 31, rng.integers(0, 4))).tolist() for user in range(1, 201)}
    together = answers.complete(list(baskets), 4, basket=baskets)
    some = [7, 70, 199]
    alone = pl.concat([answers.complete(user, 4, basket=baskets[user]) for user in some])
    assert_frame_equal(together.filter(pl.col("user").is_in(some)), alone)
