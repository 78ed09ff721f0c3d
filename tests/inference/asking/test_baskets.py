"""Baskets: matched with their users, appended to histories, and used by lists and scores."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.errors import ConfigError, DataError, UnknownIdError
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.asking.in_progress import append_baskets, reserve_slots
from segue.inference.recommender import Recommender
from segue.models.parsrec.parsrec import PARSRec
from tests.helpers import queries_of
from tests.inference.fakes import Shopper, session_dataset

ANN, BOB, CAT = [[1, 2], [3]], [[2, 4, 1]], []
"""Sessions of three users; cat has none."""


def shop() -> Recommender:
    """Users ann, bob and cat, items 10 to 60. An item raises the score of the next one, most of all from the basket."""
    return Recommender(Shopper(3, 6), session_dataset([ANN, BOB, CAT], 6, ["ann", "bob", "cat"]))


# ---- baskets and their users ----------------------------------------------------------------------------------------


def first(lists: pl.DataFrame) -> dict[Any, Any]:
    return dict(lists.filter(rank=1).select("user", "item").iter_rows())


def test_one_list_belongs_to_one_user() -> None:
    assert first(shop().recommend("ann", basket=[40], k=1)) == {"ann": 50}
    assert first(shop().recommend(["bob"], basket=[10], k=1)) == {"bob": 20}
    assert first(shop().recommend(histories=[[30]], basket=[10], k=1)) == {0: 20}


def test_a_list_for_each_user() -> None:
    lists = shop().recommend(["bob", "ann"], basket=[[40], [10]], k=1)
    assert lists.select("user", "item").rows() == [("bob", 50), ("ann", 20)]
    lists = shop().recommend(histories={"eve": [20, 20, 20], "ann": []}, basket=[[], [40]], k=1)
    assert lists.select("user", "item").rows() == [("eve", 30), ("ann", 50)]


def test_lists_by_id() -> None:
    lists = shop().recommend(["bob", "cat", "ann"], basket={"ann": [10], "bob": [40]}, k=1)
    assert lists.select("user", "item", "model").rows() == [
        ("bob", 50, "shopper"),
        ("cat", 10, "popularity"),
        ("ann", 20, "shopper"),
    ]
    assert first(shop().recommend(basket={"bob": [40], "ann": [10]}, k=1)) == {"bob": 50, "ann": 20}
    assert first(shop().recommend(histories=[[10, 10, 10], [20]], basket={1: [40]}, k=1)) == {0: 20, 1: 50}


def test_ids_of_another_type_are_the_same_users() -> None:
    answers = Recommender(Shopper(2, 6), session_dataset([ANN, BOB], 6, [7, 8]))
    expected = answers.recommend([8, 7], basket=[[40], [10]], k=2)
    assert_frame_equal(answers.recommend([8, 7], basket={"7": [10], "8": [40]}, k=2), expected)
    assert_frame_equal(answers.recommend(["8", "7"], basket={7: ["10"], 8: ["40"]}, k=2), expected)


@pytest.mark.parametrize("basket", [(40, 10), np.array([40, 10]), pl.Series([40, 10]), iter([40, 10]), ["40", "10"]])
def test_a_basket_may_be_any_sequence(basket: Any) -> None:
    assert_frame_equal(shop().recommend("ann", basket=basket, k=3), shop().recommend("ann", basket=[[40, 10]], k=3))


def test_users_with_only_a_basket() -> None:
    lists = shop().recommend(basket=[40], k=2)
    assert lists.select("user", "item", "model").rows() == [(0, 50, "shopper"), (0, 60, "shopper")]
    several = shop().recommend(basket=[[40], [], [10]], k=1)
    assert several.select("user", "item", "model").rows() == [
        (0, 50, "shopper"),
        (1, 10, "popularity"),
        (2, 20, "shopper"),
    ]


def test_a_session_that_has_just_begun() -> None:
    assert shop().recommend(basket=[], k=1).rows() == [(0, 10, pytest.approx(1 / 3), 1, "popularity")]
    assert first(shop().recommend("ann", basket=[], k=1)) == {"ann": 40}
    assert shop().recommend("cat", basket=[], k=1)["model"].to_list() == ["popularity"]


def test_no_users() -> None:
    for basket in ([], {}):
        assert shop().recommend([], basket=basket, k=1).shape == (0, 5)
        assert shop().complete([], basket=basket).shape == (0, 5)
    assert shop().recommend(basket={}, k=1).shape == (0, 5)


# ---- effects of a basket --------------------------------------------------------------------------------------------


def test_items_of_the_basket_are_never_recommended_but_items_of_the_history_are() -> None:
    lists = shop().recommend("ann", basket=[40, 10], k=6)
    assert sorted(lists["item"]) == [20, 30, 50, 60]
    assert sorted(shop().recommend("ann", basket=[40, 10], k=6, exclude_seen=True)["item"]) == [50, 60]
    assert sorted(shop().recommend("ann", k=6)["item"]) == [40, 50, 60]
    assert sorted(shop().recommend("ann", basket=[], k=6)["item"]) == [10, 20, 30, 40, 50, 60]


def test_a_repeated_item_counts_once_at_its_first_place() -> None:
    expected = shop().score("ann", basket=[40, 10, 20])
    assert_frame_equal(shop().score("ann", basket=[40, 10, 40, 10, 20, 40]), expected)
    answers = shop()
    baskets: list[list[int]] = []
    original = answers.scorer.model.queries

    def queries(histories: Histories) -> Any:
        assert histories.baskets is not None
        baskets.append(histories.items[histories.baskets[0] : histories.ends[0]].tolist())
        return original(histories)

    answers.scorer.model.queries = queries  # type: ignore[method-assign]
    answers.recommend("ann", basket=[40, 10, 40, 20, 10], k=1)
    assert baskets == [[4, 1, 2]]


def test_scores_depend_on_the_basket() -> None:
    answers = shop()
    wide = answers.score(["ann", "cat"], [50, 20], basket=[[40], []])
    assert wide.columns == ["user", "50", "20"]
    assert wide.row(0)[1] > answers.score("ann", 50, basket=[]).row(0)[1]
    assert answers.score("cat", [20], basket=[], long=True)["model"].to_list() == ["popularity"]
    assert answers.score(items=[50], basket=[40], long=True).select("user", "model").rows() == [(0, "shopper")]


def test_history_before_as_of_then_the_basket() -> None:
    data = session_dataset([ANN, BOB], 6, ["ann", "bob"])
    times = np.array([0, 1, 5, 0, 1, 2])
    timed = Dataset(
        data.items, data.offsets, data.users, data.catalogue, times, None, "s", session_offsets=data.session_offsets
    )
    answers = Recommender(Shopper(2, 6), timed)
    cut = answers.score("ann", basket=[40], as_of=5)
    only = Recommender(Shopper(2, 6), session_dataset([[[1, 2]], BOB], 6, ["ann", "bob"]))
    assert_frame_equal(cut, only.score("ann", basket=[40]))
    half = Recommender(Shopper(2, 6), session_dataset([[[1]], BOB], 6, ["ann", "bob"]))
    assert_frame_equal(answers.score("ann", basket=[40], as_of=1), half.score("ann", basket=[40]))
    nothing = answers.recommend("ann", basket=[], as_of=1, k=1)
    assert nothing["model"].to_list() == ["shopper"]
    assert answers.recommend("ann", basket=[], as_of=0, k=1)["model"].to_list() == ["popularity"]


# ---- unknown items and users ----------------------------------------------------------------------------------------


def test_unknown_items_of_a_basket_are_named() -> None:
    with pytest.warns(UnknownIdWarning, match=r"2 unknown items left out of the basket: 70, 80\.$") as caught:
        lists = shop().recommend("ann", basket=[70, 40, 80, 70], k=2)
    assert_frame_equal(lists, shop().recommend("ann", basket=[40], k=2))
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("basket", "message", "known"),
    [
        ([[70], [20], [10]], r"of the baskets \(1 of them now counts as empty\): 70\.", [[], [20], [10]]),
        ([[70], [71], []], r"of the baskets \(2 of them now count as empty\): 70, 71\.", [[], [], []]),
        ([[70, 10], [71, 20], []], r"2 unknown items left out of the baskets: 70, 71\.", [[10], [20], []]),
        ({"bob": [70]}, r"of the basket, which now counts as empty: 70\.", {}),
        ({"bob": [70, 10]}, r"left out of the basket: 70\.", {"bob": [10]}),
    ],
)
def test_a_basket_without_known_items_counts_as_empty(basket: Any, message: str, known: Any) -> None:
    users = ["ann", "bob", "cat"]
    with pytest.warns(UnknownIdWarning, match=message):
        lists = shop().recommend(users, basket=basket, k=2)
    assert_frame_equal(lists, shop().recommend(users, basket=known, k=2))


def test_unknown_users_are_answered_from_their_baskets() -> None:
    with pytest.warns(UnknownIdWarning, match="1 unknown user answered without a history: 'zoe'"):
        lists = shop().recommend("zoe", basket=[40], k=1)
    assert lists.select("user", "item", "model").rows() == [("zoe", 50, "shopper")]
    with pytest.warns(UnknownIdWarning) as caught:
        lists = shop().recommend(["yan", "ann", "zoe"], basket={"ann": [10], "zoe": []}, k=1)
    assert [str(each.message) for each in caught] == [
        "1 unknown user left out: 'yan'.",
        "1 unknown user answered without a history: 'zoe'.",
    ]
    assert lists.select("user", "item", "model").rows() == [("ann", 20, "shopper"), ("zoe", 10, "popularity")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lists = shop().recommend(["yan", "ann"], basket=[[40], [10]], k=1, unknown="popular")
    assert lists.select("user", "item", "model").rows() == [("yan", 50, "shopper"), ("ann", 20, "shopper")]


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (
            lambda r: r.recommend(["ann", "bob"], basket=[10, 20], k=1),
            ConfigError,
            "basket is one list of items, and the question has 2 users: give a list for each",
        ),
        (lambda r: r.recommend(["ann", "bob"], basket=[], k=1), ConfigError, "the question has 2 users"),
        (lambda r: r.score(histories=[[10], [20]], basket=[10]), ConfigError, "the question has 2 users"),
        (lambda r: r.recommend([], basket=[10], k=1), ConfigError, "the question has 0 users"),
        (
            lambda r: r.recommend("ann", basket="tea", k=1),
            DataError,
            r"basket='tea' is one value: .* such as \['tea'\]",
        ),
        (lambda r: r.recommend(basket=10, k=1), DataError, "basket=10 is one value"),
        (
            lambda r: r.recommend("ann", basket={"ann": 10}, k=1),
            DataError,
            "baskets are lists of items, one per user",
        ),
        (lambda r: r.recommend("ann", basket=[[10], 20], k=1), DataError, "basket mixes items and lists"),
        (lambda r: r.recommend(basket=[10, [20]], k=1), DataError, "basket mixes items and lists"),
        (lambda r: r.recommend("ann", basket=[["x", 3]], k=1), DataError, "ids mix"),
        (
            lambda r: r.recommend(["ann", "bob"], basket=[[10]], k=1),
            ConfigError,
            r"1 baskets and 2 users \(each counted once\)",
        ),
        (lambda r: r.recommend(["ann", "ann"], basket=[[10], [20]], k=1), ConfigError, "2 baskets and 1 users"),
        (
            lambda r: r.recommend(["ann"], basket={"ann": [10], "bob": [20], "zoe": []}, k=1),
            ConfigError,
            "basket names users that are not in the question: 'bob', 'zoe'. Add them to users",
        ),
        (lambda r: r.recommend("ann", histories=[[10]], basket=[10], k=1), ConfigError, "users or histories, not both"),
        (lambda r: r.recommend("ann", basket=[10], k=7), ConfigError, "k is 7, but the catalogue has only 6 items"),
        (lambda r: r.recommend("ann", basket=[10], k=0), ConfigError, "k=0: expected 1 or more"),
        (lambda r: r.recommend("zoe", basket=[10], k=1, unknown="error"), UnknownIdError, "unknown user: 'zoe'"),
        (lambda r: r.recommend("zoe", basket={}, k=1), UnknownIdError, "unknown user: 'zoe'"),
        (lambda r: r.complete("zoe"), UnknownIdError, "unknown user: 'zoe'"),
        (lambda r: r.complete("ann", 0), ConfigError, "n=0: expected 1 or more"),
        (lambda r: r.complete("ann", n=-3, basket=[10]), ConfigError, "n=-3: expected 1 or more"),
        (lambda r: r.complete("ann", basket=[10], allow=[99]), UnknownIdError, "unknown item: 99"),
        (lambda r: r.complete(histories=[[10]], as_of=3), ConfigError, "as_of cuts stored histories"),
        (lambda r: r.complete("ann", basket=[10], as_of=3), DataError, "as_of needs times"),
    ],
)
def test_impossible_baskets(ask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(shop())


def test_lists_are_shorter_if_fewer_items_are_left() -> None:
    assert len(shop().recommend("ann", basket=[10, 20, 30, 40], k=6)) == 2
    assert len(shop().recommend("ann", basket=[10, 20, 30, 40, 50, 60], k=6)) == 0


# ---- flat arrays ----------------------------------------------------------------------------------------------------

codes = st.integers(1, 9)
sessions_of_users = st.lists(st.lists(st.lists(codes, min_size=1, max_size=4), max_size=4), min_size=1, max_size=6)


@given(st.data(), sessions_of_users)
@settings(max_examples=100, deadline=None)
def test_each_basket_is_appended_to_its_history(data: Any, users: list[list[list[int]]]) -> None:
    requested = np.array(data.draw(st.lists(st.integers(0, len(users)), max_size=7)), dtype=np.int64)
    baskets = [data.draw(st.lists(codes, max_size=3)) for _ in requested]
    histories = append_baskets(session_dataset(users, 9).histories(requested), Histories.from_lists(baskets))
    sessions_by_code = [[], *users]
    assert histories.baskets is not None and histories.session_offsets is not None
    offsets = histories.session_offsets
    assert (np.diff(offsets) > 0).all()
    for row, (user, basket) in enumerate(zip(requested, baskets, strict=True)):
        begin, middle, end = histories.starts[row], histories.baskets[row], histories.ends[row]
        assert histories.users[row] == user
        assert histories.items[middle:end].tolist() == basket
        within = offsets[(offsets >= begin) & (offsets <= middle)]
        sessions = np.split(histories.items[begin:middle], within[1:-1] - begin) if middle > begin else []
        assert [session.tolist() for session in sessions] == sessions_by_code[user]


@pytest.mark.parametrize("history_sessions", [None, 1, 2])
def test_a_given_basket_is_like_an_unfinished_session_of_the_dataset(history_sessions: int | None) -> None:
    """The query is the same if the session in progress is in the Dataset, or is given as a basket."""
    rng = np.random.default_rng(5)
    sessions = [[rng.permutation(12)[: rng.integers(2, 5)] + 1 for _ in range(rng.integers(1, 5))] for _ in range(30)]
    torch.manual_seed(5)
    model = PARSRec(user_width=4, item_width=8, heads=2, history_sessions=history_sessions).build(30, 12).eval()
    whole = session_dataset(sessions, 12)
    users = np.arange(1, 31)
    begins = whole.ends[users] - np.array([len(user[-1]) for user in sessions])
    taken = rng.integers(0, 3, 30)
    inside = replace(whole.histories(users), ends=begins + taken, baskets=begins)
    earlier = session_dataset([user[:-1] for user in sessions], 12)
    baskets = [user[-1][:n] for user, n in zip(sessions, taken, strict=True)]
    with torch.no_grad():
        expected = queries_of(model, inside)
        queries = queries_of(model, append_baskets(earlier.histories(users), Histories.from_lists(baskets)))
    assert torch.allclose(queries, expected, atol=1e-6)


@given(st.lists(st.lists(codes, max_size=4), max_size=5), st.data())
@settings(max_examples=50, deadline=None)
def test_reserved_slots_change_no_history(lists: list[list[int]], data: Any) -> None:
    histories = Histories.from_lists(lists)
    before = [data.draw(st.integers(0, len(each))) for each in lists]
    slots = np.array([data.draw(st.integers(0, 3)) for _ in lists], dtype=np.int64)
    inside = Histories(
        histories.users, histories.items, histories.starts, histories.ends, baskets=histories.starts + before
    )
    copy = reserve_slots(inside, slots)
    assert copy.baskets is not None and copy.session_offsets is None
    assert (copy.baskets - copy.starts).tolist() == before
    assert [copy.items[a:b].tolist() for a, b in zip(copy.starts, copy.ends, strict=True)] == lists
    assert copy.starts.tolist() == offsets_of(histories.lengths + slots)[:-1].tolist()
    assert len(copy.items) == histories.lengths.sum() + slots.sum()
    assert reserve_slots(histories, slots).baskets is not None
    assert reserve_slots(histories, slots).baskets.tolist() == copy.ends.tolist()  # type: ignore[union-attr]
