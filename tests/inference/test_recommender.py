from __future__ import annotations

import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from segue.data.dataset import Dataset
from segue.data.ragged import offsets_of
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, DataError, EvaluationError, StorageError, UnknownIdError
from segue.inference.asking.everyone import EVERYONE
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.recommender import Recommender
from segue.models.markov import Markov
from segue.models.popularity import Popularity
from tests.inference.fakes import Dot, Table, dataset, random_dataset

HISTORIES = [[1, 2], [3], [2, 4, 1], []]
TABLE = np.array(
    [
        [0, 5, 4, 3, 2, 1],
        [0, 1, 2, 3, 4, 5],
        [0, 9, 8, 7, 7, 9],
        [0, 3, 3, 3, 3, 3],
        [0, 1, 1, 1, 1, 1],
    ],
    dtype=np.float32,
)


def recommender(users: list[Any] | None = None) -> Recommender:
    """Users ann, bob, cat and dan (without a history), items 10 to 50, and a score for each pair."""
    return Recommender(Table(TABLE), dataset(HISTORIES, 5, users or ["ann", "bob", "cat", "dan"]))


def timed(unit: str = "s", steps: int = 86_400) -> Recommender:
    """Two users; items 1, 2, 3 … on the days 0, 1, 2, … of 1970."""
    items = [[1, 2, 3], [3, 4]]
    data = Dataset(
        items=np.concatenate(items).astype(np.int32),
        offsets=offsets_of(np.array([0, 3, 2])),
        users=Vocabulary([1, 2]),
        catalogue=Vocabulary(["a", "b", "c", "d"]),
        times=np.array([0, 1, 2, 1, 5], dtype=np.int64) * steps,
        time_unit=unit,
    )
    model = Markov().build(2, 4)
    model.count(data)
    return Recommender(model, data)


def popular() -> Recommender:
    data = dataset(HISTORIES, 5)
    model = Popularity().build(data.n_users, data.n_items)
    model.count(data)
    return Recommender(model, data)


# ---- lists ------------------------------------------------------------------------------------------------------


def test_lists_by_hand() -> None:
    lists = recommender().recommend(["bob", "ann"], k=2)
    assert lists.rows() == [
        ("bob", 10, 9.0, 1, "table"),
        ("bob", 50, 9.0, 2, "table"),
        ("ann", 50, 5.0, 1, "table"),
        ("ann", 40, 4.0, 2, "table"),
    ]


def test_all_users_and_users_without_history() -> None:
    lists = recommender().recommend(EVERYONE, k=2)
    assert lists["user"].unique(maintain_order=True).to_list() == ["ann", "bob", "cat", "dan"]
    # Of 6 interactions, items 10 and 20 have two each: the share is the score, the lower id comes first.
    assert lists.filter(user="dan").rows() == [
        ("dan", 10, pytest.approx(1 / 3), 1, "popularity"),
        ("dan", 20, pytest.approx(1 / 3), 2, "popularity"),
    ]


def test_lists_are_shorter_if_fewer_items_are_left() -> None:
    lists = recommender().recommend(EVERYONE, k=5)
    assert lists.group_by("user", maintain_order=True).len()["len"].to_list() == [3, 4, 2, 5]
    only = recommender().recommend(["ann", "dan"], k=5, allow=[10, 30])
    assert only.rows() == [
        ("ann", 30, 3.0, 1, "table"),
        ("dan", 10, pytest.approx(1 / 3), 1, "popularity"),
        ("dan", 30, pytest.approx(1 / 6), 2, "popularity"),
    ]


def test_one_or_several_users_and_repeats() -> None:
    one = recommender().recommend("ann", k=1)
    assert_frame_equal(one, recommender().recommend(["ann", "ann"], k=1))
    assert_frame_equal(one, recommender().recommend(pl.Series(["ann"]), k=1))
    assert_frame_equal(one, recommender().recommend(np.array(["ann"]), k=1))


@pytest.mark.parametrize("users", [[1, 2, 3, 4], [UUID(int=i) for i in range(4)], ["1", "2", "3", "4"]])
def test_ids_of_any_type(users: list[Any]) -> None:
    lists = recommender(users).recommend(users[1], k=1)
    assert lists["item"].to_list() == [10]
    assert str(lists["user"].item()) == str(users[1])


def test_integer_ids_given_as_text() -> None:
    assert recommender([1, 2, 3, 4]).recommend(["2"], k=1)["user"].to_list() == [2]


def test_given_histories() -> None:
    lists = recommender().recommend(histories=[[10, 20], []], k=1)
    assert lists["user"].to_list() == [0, 1] and lists["model"].to_list() == ["table", "popularity"]
    # A known id keeps its code, and its given history replaces the stored one.
    known = recommender().recommend(histories={"ann": [50], "eve": [50]}, k=1)
    assert known.rows() == [("ann", 40, 4.0, 1, "table"), ("eve", 10, 5.0, 1, "table")]
    arrays = recommender().recommend(histories={"ann": np.array([50]), "eve": pl.Series([50])}, k=1)
    assert_frame_equal(arrays, known)


def test_unknown_items_of_given_histories_are_named() -> None:
    with pytest.warns(UnknownIdWarning, match="2 unknown items left out of the histories: 70, 80") as caught:
        lists = recommender().recommend(histories={"eve": [70, 10, 80], "fay": [80]}, k=1)
    warning = caught[0].message
    assert isinstance(warning, UnknownIdWarning) and warning.ids == [70, 80] and warning.what == "items"
    assert lists["model"].to_list() == ["table", "popularity"]
    assert caught[0].filename == __file__


def test_unknown_users_among_known_ones() -> None:
    with pytest.warns(UnknownIdWarning, match="2 unknown users left out: 'x', 'y'"):
        lists = recommender().recommend(["x", "ann", "y"], k=1)
    assert lists["user"].to_list() == ["ann"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lists = recommender().recommend(["x", "ann"], k=1, unknown="popular")
    assert lists.select("user", "model").rows() == [("x", "popularity"), ("ann", "table")]
    with pytest.raises(UnknownIdError, match="unknown user: 'x'"):
        recommender().recommend(["x", "ann"], unknown="error", k=1)


def test_unknown_items_in_allow_and_deny_are_named() -> None:
    with pytest.warns(UnknownIdWarning, match="1 unknown item ignored in deny: 99"):
        recommender().recommend("ann", k=1, deny=[99])
    with pytest.warns(UnknownIdWarning, match="1 unknown item left out: 99"):
        recommender().recommend("ann", k=1, allow=[99, 10])


# ---- as of ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "as_of",
    [
        datetime(1970, 1, 3, tzinfo=UTC),
        datetime(1970, 1, 3),
        datetime(1970, 1, 3, 2, tzinfo=timezone(timedelta(hours=2))),
        date(1970, 1, 3),
        "1970-01-03",
        "1970-01-03T00:00",
        "1970-01-03T02:00+02:00",
        2 * 86_400,
        str(2 * 86_400),
    ],
)
def test_forms_of_as_of(as_of: Any) -> None:
    assert_frame_equal(
        timed().recommend(1, k=2, as_of=as_of), timed().recommend(histories={1: ["a", "b"]}, k=2), check_exact=True
    )


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_as_of_in_other_units(unit: str) -> None:
    steps = 86_400 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    lists = timed(unit, steps).recommend(1, k=2, as_of="1970-01-03")
    assert_frame_equal(lists, timed().recommend(1, k=2, as_of="1970-01-03"))


def test_popularity_is_that_of_the_time_of_the_question() -> None:
    lists = timed().recommend(2, k=1, as_of=86_400)
    assert lists.rows() == [(2, "a", 1.0, 1, "popularity")]


# ---- scores -----------------------------------------------------------------------------------------------------


def test_score_frames() -> None:
    wide = recommender().score(["cat", "dan"], [40, 10])
    assert wide.columns == ["user", "40", "10"]
    assert wide.rows() == [("cat", 3.0, 3.0), ("dan", pytest.approx(1 / 6), pytest.approx(1 / 3))]
    long = recommender().score(["cat", "dan"], [40, 10], long=True)
    assert long.columns == ["user", "item", "score", "model"]
    assert long["item"].to_list() == [40, 10, 40, 10]
    assert long["model"].to_list() == ["table", "table", "popularity", "popularity"]
    assert recommender().score(EVERYONE).shape == (4, 6)
    assert recommender().score("ann", 20).rows() == [("ann", 2.0)]


def test_few_items_of_many_get_the_same_scores() -> None:
    data = random_dataset(50, 300, 9)
    model = Dot(np.random.default_rng(0).normal(size=(301, 4)))
    model.n_users = 50
    answers = Recommender(model, data)
    everything = answers.score(EVERYONE)
    few = answers.score(EVERYONE, items=[2000, 10])
    assert np.allclose(few["2000"], everything["2000"], atol=1e-5) and np.allclose(
        few["10"], everything["10"], atol=1e-5
    )


def test_an_item_called_user() -> None:
    data = dataset([[1, 2]], 2)
    named = Dataset(data.items, data.offsets, data.users, Vocabulary(["user", "viewer"]))
    answers = Recommender(Table(np.ones((2, 3))), named)
    with pytest.raises(DataError, match="long=True"):
        answers.score(EVERYONE)
    assert len(answers.score(EVERYONE, long=True)) == 2


# ---- similar ----------------------------------------------------------------------------------------------------


def test_similar_by_hand() -> None:
    vectors = np.array([[9, 9], [1, 0], [2, 0.1], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    model = Dot(vectors)
    model.n_users = 4
    model.item_vectors = lambda: model.vectors  # type: ignore[method-assign]
    answers = Recommender(model, dataset(HISTORIES, 5))
    similar = answers.similar(10, k=5)
    # Item 50 has a zero vector, so it is similar to no item.
    assert similar["similar"].to_list() == [20, 30, 40]
    assert similar["score"].to_list() == pytest.approx([2 / np.hypot(2, 0.1), 0, -1], abs=1e-6)
    assert similar["rank"].to_list() == [1, 2, 3]
    assert not len(answers.similar(50, k=2))
    assert answers.similar(k=1)["item"].to_list() == [10, 20, 30, 40]
    with pytest.warns(UnknownIdWarning, match="1 unknown item left out: 11"):
        assert answers.similar([11, 10], k=1)["item"].to_list() == [10]


# ---- impossible questions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r: r.recommend(EVERYONE, k=-1), ConfigError, "k=-1: expected 1 or more"),
        (lambda r: r.recommend(EVERYONE, k=0), ConfigError, "k=0: expected 1 or more"),
        (lambda r: r.recommend(EVERYONE, k=6), ConfigError, "k is 6, but the catalogue has only 5 items"),
        (lambda r: r.recommend("zoe", k=1), UnknownIdError, "unknown user: 'zoe'. Known ones look like 'ann'"),
        (lambda r: r.recommend(["zoe", "yan"], k=1), UnknownIdError, "unknown user: 'zoe', 'yan'"),
        (lambda r: r.recommend(EVERYONE, k=1, allow=[99]), UnknownIdError, "unknown item: 99"),
        (lambda r: r.recommend("ann", histories={"x": [10]}), ConfigError, "users or histories, not both"),
        (lambda r: r.recommend(histories={"x": "10"}, k=1), DataError, "histories are lists of items"),
        (lambda r: r.recommend(histories=[10, 20], k=1), DataError, "histories are lists of items"),
        (lambda r: r.recommend(["ann", 3], k=1), DataError, "ids mix"),
        (lambda r: r.recommend(EVERYONE, k=1, unknown="skipp"), ConfigError, 'did you mean "skip"'),
        (
            lambda r: r.recommend(EVERYONE, k=1, as_of="2024-01-01"),
            DataError,
            "as_of needs times, and this Dataset has none",
        ),
        (lambda r: r.recommend(histories=[[10]], as_of=3), ConfigError, "as_of cuts stored histories"),
        (lambda r: r.score("ann", [99]), UnknownIdError, "unknown item: 99"),
        (lambda r: r.similar(10), ConfigError, "has no item vectors"),
        (lambda r: r.explain("ann", [10, 99], top=0), ConfigError, "top=0"),
    ],
)
def test_impossible_questions(ask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(recommender())


@pytest.mark.parametrize("as_of", ["yesterday", "2024-13-01", True, object(), [1]])
def test_impossible_as_of(as_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"^as_of(=| is )"):
        timed().recommend(1, k=1, as_of=as_of)


def test_popularity_has_no_similar_items() -> None:
    with pytest.raises(ConfigError, match="'popularity' has no item vectors"):
        popular().similar(10)


def test_a_model_of_another_dataset() -> None:
    with pytest.raises(StorageError, match="the model is for 4 users and 5 items, the Dataset has 2 and 5"):
        Recommender(Table(TABLE), dataset([[1], [2]], 5))


def test_scores_that_are_not_finite() -> None:
    broken = TABLE.copy()
    broken[2, 3] = np.nan
    answers = Recommender(Table(broken), dataset(HISTORIES, 5, ["ann", "bob", "cat", "dan"]))
    assert len(answers.recommend("ann", k=1)) == 1
    for ask in (lambda: answers.recommend(EVERYONE, k=1), lambda: answers.score(EVERYONE)):
        with pytest.raises(EvaluationError, match="not finite"):
            ask()


def test_no_users() -> None:
    assert recommender().recommend([], k=1).shape == (0, 5)
    assert recommender().recommend(histories=[], k=1).shape == (0, 5)
    assert recommender().score([], 10).shape == (0, 2)
