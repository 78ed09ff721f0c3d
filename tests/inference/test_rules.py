"""Rules over the item table in lists: applied before the top k, for one user, many users, and in exports."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.errors import ConfigError
from segue.inference.recommender import Recommender
from segue.training.config import Training

N = 300


@pytest.fixture(scope="module", params=["markov", "sasrec"])
def recommender(request: pytest.FixtureRequest) -> Recommender:
    rng = np.random.default_rng(1)
    log = pl.DataFrame(
        {"user": np.repeat(np.arange(40), 12), "item": rng.integers(1, N + 1, 480), "time": np.tile(np.arange(12), 40)}
    )
    items = pl.DataFrame(
        {
            "item": range(1, N + 21),
            "name": [f"thing {n}" for n in range(1, N + 21)],
            "category": [f"c{n % 7}" for n in range(N + 20)],
            "price": [float(n % 50) for n in range(N + 20)],
            "vector": rng.normal(size=(N + 20, 4)).tolist(),
        }
    )
    config = {"markov": segue.Markov(), "sasrec": segue.SASRec(width=8, blocks=1, heads=1)}[request.param]
    data = segue.prepare(log, items=items)
    return segue.fit(config, data, training=Training(epochs=1, cpu=True), quiet=True)


def everything(recommender: Recommender, users: Any, **options: Any) -> pl.DataFrame:
    """All items of each user with their columns: the oracle filters and counts them afterwards."""
    k = recommender.dataset.n_items
    return recommender.recommend(users, k=k, show=["category", "price"], **options)


USERS = [0, 3, 17]


@pytest.mark.parametrize("users", [USERS, [5]])
def test_a_condition_applies_before_the_top_k(recommender: Recommender, users: list[int]) -> None:
    where = "price < 4 AND category IN ('c1', 'c2')"
    lists = recommender.recommend(users, k=5, where=where)
    every = everything(recommender, users)
    wanted = every.filter((pl.col("price") < 4) & pl.col("category").is_in(["c1", "c2"]))
    expected = wanted.group_by("user", maintain_order=True).head(5)
    assert lists["item"].to_list() == expected["item"].to_list()
    assert np.allclose(lists["score"], expected["score"])
    assert not len(recommender.recommend(users, where="price > 1000"))


@pytest.mark.parametrize("users", [USERS, [5]])
def test_boosts_are_added_to_the_scores(recommender: Recommender, users: list[int]) -> None:
    lists = recommender.recommend(users, k=5, boost={"category": {"c3": 100.0}}, show="category")
    assert set(lists["category"]) == {"c3"} and lists["score"].min() > 50  # type: ignore[operator]
    every = everything(recommender, users).filter(pl.col("category") == "c3")
    assert lists["item"].to_list() == every.group_by("user", maintain_order=True).head(5)["item"].to_list()


@pytest.mark.parametrize("users", [USERS, [5]])
def test_at_most_looks_as_far_as_it_must(recommender: Recommender, users: list[int]) -> None:
    lists = recommender.recommend(users, k=14, at_most={"category": 2}, boost={"category": {"c1": 50.0}})
    every = everything(recommender, users, boost={"category": {"c1": 50.0}})
    expected = every.group_by("user", "category", maintain_order=True).head(2)
    expected = expected.sort(pl.col("user").replace_strict({u: n for n, u in enumerate(users)}), "rank")
    assert lists["item"].to_list() == expected["item"].to_list() and len(lists) == 14 * len(users)
    fewer = recommender.recommend(users, k=20, at_most={"category": 2})
    assert len(fewer) == 14 * len(users)


def test_diversity_and_per_user_lists_go_together(recommender: Recommender) -> None:
    options: dict[str, Any] = {"where": "price < 30", "diversity": 0.5, "diversity_by": "vector", "k": 6}
    lists = recommender.recommend(USERS, allow={0: [1, 2, 3, 4]}, deny={3: list(range(1, 200))}, **options)
    assert set(lists.filter(pl.col("user") == 0)["item"]) <= {1, 2, 3, 4}
    assert lists.filter(pl.col("user") == 3)["item"].min() >= 200  # type: ignore[operator]
    for user in USERS:
        one = recommender.recommend(user, allow={0: [1, 2, 3, 4]}, deny={3: list(range(1, 200))}, **options)
        assert one["item"].to_list() == lists.filter(pl.col("user") == user)["item"].to_list()
    plain = recommender.recommend(USERS, k=6, where="price < 30")
    assert plain["item"].to_list() != recommender.recommend(USERS, **options)["item"].to_list()
    assert len(recommender.recommend(USERS, k=6, diversity=1.0, diversity_by="category")) == 18


def test_people_without_history_get_popular_items_under_the_same_rules(recommender: Recommender) -> None:
    lists = recommender.recommend(
        "nobody", k=7, unknown="popular", where="price < 30", at_most={"category": 1}, show=["category", "price"]
    )
    assert lists["category"].n_unique() == 7 and lists["price"].max() < 30  # type: ignore[operator]
    boosted = recommender.recommend("nobody", k=3, unknown="popular", boost={"category": {"c3": 5}}, show="category")
    assert set(boosted["category"]) == {"c3"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_exports_follow_the_rules(tmp_path: Path, recommender: Recommender, suffix: str) -> None:
    options: dict[str, Any] = {
        "users": segue.EVERYONE,
        "k": 4,
        "where": "price < 30",
        "boost": {"category": {"c3": 1.0}},
        "at_most": {"category": 2},
        "diversity": 0.3,
        "diversity_by": "vector",
        "show": ["title", "category"],
    }
    path = recommender.export(tmp_path / f"lists{suffix}", chunk=7, **options)
    frame = pl.read_parquet(path) if suffix == ".parquet" else pl.read_csv(path)
    expected = recommender.recommend(**options)
    assert frame.columns == ["user", "item", "score", "rank", "model", "name", "category"]
    assert frame["item"].to_list() == expected["item"].to_list()
    recommender.export(tmp_path / f"lists{suffix}", segue.EVERYONE, k=4)
    assert "name" not in path.read_text(errors="replace")


def test_shown_columns(recommender: Recommender) -> None:
    frame = recommender.recommend(0, k=2, show=["title", "vector"])
    assert frame.columns[-2:] == ["name", "vector"]
    assert frame["name"].to_list() == [f"thing {item}" for item in frame["item"]]
    with pytest.raises(ConfigError, match='no column "prise": did you mean "price"'):
        recommender.recommend(0, show="prise")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": 2.0}, "expected a number from 0"),
        ({"diversity": float("nan")}, "expected a number from 0"),
        ({"diversity": "much"}, "expected a number from 0"),
        ({"diversity_by": "vector"}, "give diversity a weight"),
        ({"diversity": 0.3, "diversity_by": "price"}, "of kind number, not of categories"),
        ({"at_most": {"category": 0}}, "expected a number of items, 1 or more"),
        ({"at_most": {"categry": 1}}, 'did you mean "category"'),
        ({"at_most": 2}, "expected numbers by column"),
        ({"show": 3}, "expected names of columns"),
        ({"where": "prise < 2"}, 'did you mean "price"'),
        ({"where": 3}, "where"),
        ({"boost": np.arange(3)}, "expected numbers by column and category"),
        ({"boost": {1: {2: 3}}}, "is no column of the item table"),
        ({"at_most": {1: 2}}, "is no column of the item table"),
    ],
)
def test_bad_rules(recommender: Recommender, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recommender.recommend(0, **options)


def test_rules_need_a_table() -> None:
    data = segue.prepare(pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "time": [1, 2, 3]}))
    plain = segue.fit(segue.Popularity(), data)
    for options in ({"where": "price < 2"}, {"boost": {"a": {"b": 1}}}, {"at_most": {"a": 1}}, {"show": "title"}):
        with pytest.raises(ConfigError, match="a table of items"):
            plain.recommend(1, k=1, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no dense item vectors"):
        plain.recommend(1, k=1, diversity=0.5)


def test_a_saved_recommender_follows_them_alone(tmp_path: Path, recommender: Recommender) -> None:
    opened = segue.load(recommender.save(tmp_path / "saved"))
    options: dict[str, Any] = {"where": "price < 30", "show": ["title", "price"], "k": 5}
    assert opened.recommend(USERS, **options).equals(recommender.recommend(USERS, **options))


def test_threads_share_compiled_rules_and_a_copy_can_be_sent_away(recommender: Recommender) -> None:
    fresh = pickle.loads(pickle.dumps(recommender))
    options: dict[str, Any] = {"where": "price < 30", "boost": {"category": {"c3": 1.0}}, "at_most": {"category": 2}}
    expected = recommender.recommend(USERS, **options)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fresh.recommend(USERS, **options), range(32)))
    assert all(answer.equals(expected) for answer in answers)
    pickle.loads(pickle.dumps(fresh))
