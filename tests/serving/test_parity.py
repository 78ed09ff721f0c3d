"""Lists over HTTP are those of the Recommender, for every kind of model."""

from __future__ import annotations

import concurrent.futures
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.dataset import Dataset
from tests.models.test_behaviour import CONFIGS, LEARNT, config, rates
from tests.serving.servers import Server, serving

N_ITEMS, N_COLD = 420, 40
NAMES = [*CONFIGS, *(f"{name}+repeats" for name in LEARNT)]
CATEGORIES = ["tea", "milk", "bread"]


def world(rated: bool) -> Dataset:
    """Walks of 60 users over 420 items; nobody takes the last 40 items of the table."""
    rng = np.random.default_rng(5)
    rows: list[tuple[int, int, int, int]] = []
    for user in range(1, 61):
        for step in range(int(rng.integers(5, 16))):
            item = int(rng.integers(1, N_ITEMS - N_COLD + 1)) if step % 3 else int(rng.integers(1, 20))
            rows.append((user, item, 1_600_000_000 + 86_400 * step + user, int(rng.integers(1, 6))))
    rows += [(61 + item, item, 1_600_000_000, 3) for item in range(1, N_ITEMS - N_COLD + 1)]
    log = pl.DataFrame(rows, schema=["user", "item", "time", "rating"], orient="row")
    numbers = range(1, N_ITEMS + 1)
    table = pl.DataFrame(
        {
            "item": list(numbers),
            "title": [f"Item <{number}>" for number in numbers],
            "category": [CATEGORIES[number % 3] for number in numbers],
            "price": [number % 50 for number in numbers],
            "shop": [CATEGORIES[number % 2] for number in numbers],
            "pairs": [[f"pair {number // 2}", f"pair {(number + 1) // 2}"] for number in numbers],
        }
    )
    return segue.prepare(log if rated else log.drop("rating"), items=table, sessions="day")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind of model."""
    folder = tmp_path_factory.mktemp("runs")
    worlds = {rated: world(rated) for rated in (False, True)}
    runs = {}
    for name in NAMES:
        training = segue.Training(epochs=1, cpu=True)
        fitted = segue.fit(config(name), worlds[rates(name)], training=training, quiet=True)
        runs[name.replace("+", "-with-")] = fitted.save(folder / name)
    return runs


@pytest.fixture(scope="module")
def parity_server(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    words = " ".join(f"{name}={path}:1" for name, path in runs.items())
    with serving(words, f"sqlite:///{tmp_path_factory.mktemp('store') / 'events.db'}") as started:
        yield started


QUESTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"user": 7}, {"users": [7]}),
    ({"user": 8, "exclude_seen": False}, {"users": [8], "exclude_seen": False}),
    ({"history": [3, 5, 3, 9]}, {"histories": [[3, 5, 3, 9]]}),
    (
        {"history": [{"item": 3, "time": 1_600_000_000}, {"item": 5, "time": 1_600_100_000}], "user": 9},
        {"histories": pl.DataFrame({"user": [9, 9], "item": [3, 5], "time": [1_600_000_000, 1_600_100_000]})},
    ),
    ({"user": 9, "basket": [4, 6]}, {"users": [9], "basket": [4, 6]}),
    ({"user": "nobody"}, {"users": ["nobody"], "unknown": "popular"}),
    ({"user": 10, "deny": [1, 2, 3]}, {"users": [10], "deny": [1, 2, 3]}),
    ({"user": 10, "as_of": "2020-09-16"}, {"users": [10], "as_of": "2020-09-16"}),
]
WITH_TABLE: list[dict[str, Any]] = [
    {"where": "price < 20 AND category = 'tea'"},
    {"where": "category <> 'milk'", "boost": {"category": {"bread": 0.5}}, "at_most": {"category": 2}},
    {"diversity": 0.4, "diversity_by": "category", "show": ["price", "title"]},
]


@pytest.mark.parametrize("name", [name.replace("+", "-with-") for name in NAMES])
def test_lists_over_http_are_those_of_the_recommender(runs: dict[str, Path], parity_server: Server, name: str) -> None:
    recommender = segue.load(runs[name])
    cold = {*range(N_ITEMS - N_COLD + 1, N_ITEMS + 1)}
    ruled = [(rules | {"user": user}, rules | {"users": [user]}) for user in (11, 12) for rules in WITH_TABLE]
    pairs = [*QUESTIONS, *ruled]
    bodies = [{**body, "k": 4, "variant": name} for body, _ in pairs]
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        alone = list(pool.map(lambda body: parity_server.post("recommend", body), bodies))
    together = parity_server.post("recommend/batch", {"requests": bodies})["answers"]
    for (body, arguments), *answers in zip(pairs, alone, [one["recommendation"] for one in together], strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = recommender.recommend(**arguments, k=4)
        for answer in answers:
            assert [one["item"] for one in answer["items"]] == expected["item"].to_list(), body
            assert [one["score"] for one in answer["items"]] == pytest.approx(
                expected["score"].to_list(), rel=1e-4, abs=1e-6
            )
            assert answer["items"] and answer["model"] == str(expected["model"][0])
            assert all(one["title"] == f"Item <{one['item']}>" for one in answer["items"])
            assert not cold & {one["item"] for one in answer["items"]}
            if "show" in body:
                assert [one["columns"]["price"] for one in answer["items"]] == expected["price"].to_list()


def test_baskets_are_completed_under_a_condition(runs: dict[str, Path], parity_server: Server) -> None:
    name = next(iter(runs))
    where = "price < 20 AND category = 'tea'"
    answer = parity_server.post("complete", {"user": 11, "basket": [4], "n": 3, "where": where, "variant": name})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = segue.load(runs[name]).complete(11, basket=[4], n=3, where=where)
    assert [one["item"] for one in answer["items"]] == expected["item"].to_list()
    status, problem, _ = parity_server.ask("POST", "/v1/complete", {"user": 11, "where": "prise < 3"})
    assert status == 422 and "price" in problem["detail"]


def test_rules_that_are_wrong_are_problems(parity_server: Server) -> None:
    for body, word in (
        ({"where": "prise < 3"}, "price"),
        ({"where": "price <"}, "where"),
        ({"boost": {"category": {"coffee": 1}}}, "coffee"),
        ({"at_most": {"price": 2}}, "price"),
        ({"diversity_by": "category"}, "diversity"),
        ({"diversity": 2}, "diversity"),
        ({"boost": {"category": {"tea": 1e300}}}, "boost"),
        ({"show": ["nothing"]}, "nothing"),
    ):
        status, problem, _ = parity_server.ask("POST", "/v1/recommend", {"user": 7, **body})
        assert status == 422 and word in problem["detail"], problem
        batch = {"requests": [{"user": 7}, {"user": 7, **body}]}
        status, answer, _ = parity_server.ask("POST", "/v1/recommend/batch", batch)
        if status == 200:
            assert "problem" in answer["answers"][1] and "problem" not in answer["answers"][0]
