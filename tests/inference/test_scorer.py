from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.tables.table import Table
from segue.inference.recommender import Recommender
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.ranking import top_k
from segue.models.base import Model, TrainableModel
from segue.models.registry import MODELS
from tests.helpers import make_dataset
from tests.models.test_behaviour import config

THREADS = 16
CALLS = {"sasrec": 64, "ssept": 16, "parsrec": 16, "markov": 16, "arerec": 16}


def shop() -> Dataset:
    """A small Dataset with times, ratings and sessions, for every model."""
    rng = np.random.default_rng(5)
    rows = [rng.integers(1, 31, rng.integers(4, 12)).tolist() for _ in range(20)]
    times = [np.cumsum(rng.integers(1, 50, len(row))).tolist() for row in rows]
    ratings = [rng.integers(1, 6, len(row)).tolist() for row in rows]
    dataset = make_dataset(rows, times, ratings, catalogue=range(1, 31))
    shops, pairs = [f"shop {item % 3}" for item in range(1, 31)], [[str(item), str(item + 1)] for item in range(1, 31)]
    table = Table(pl.DataFrame({"shop": shops, "pairs": pairs}), {"shop": "category", "pairs": "categories"}, "item")
    return Dataset(**{**vars(dataset), "session_offsets": dataset.offsets[1:], "item_table": table})


def built(name: str, data: Dataset) -> Model:
    torch.manual_seed(1)
    model = config(name).resolved(data).build(data.n_users, data.n_items)
    if isinstance(model, TrainableModel):
        model.prepare(data)
    else:
        model.count(data)  # type: ignore[operator]
    return model


@pytest.fixture
def impatient() -> Iterator[None]:
    """Switch threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_asking_changes_no_tensor_and_no_mode(name: str) -> None:
    data = shop()
    model = built(name, data).train()
    before = copy.deepcopy(model.state_dict())
    Scorer.of(model).queries(data.histories())
    answers = Recommender(model, data)
    answers.recommend([1, 2], k=3)
    answers.score([1], [2, 3])
    after = model.state_dict()
    assert model.training and before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_scorer_gives_the_same_answers_in_any_mode_and_when_pickled(name: str) -> None:
    data = shop()
    model = built(name, data)
    expected = top_k(Scorer.of(model.eval()), data.histories(), 5)
    for scorer in (Scorer.of(model.train()), pickle.loads(pickle.dumps(Scorer.of(model)))):
        for one, other in zip(top_k(scorer, data.histories(), 5), expected, strict=True):
            assert np.array_equal(one, other)


def test_scorer_of_takes_a_model_a_recommender_or_a_scorer() -> None:
    data = shop()
    model = built("sasrec", data)
    answers = Recommender(model, data)
    assert scorer_of(answers) is answers.scorer and scorer_of(answers.scorer) is answers.scorer
    assert scorer_of(model).config is model.config


def test_a_scorer_shares_the_memory_of_the_model() -> None:
    model = built("sasrec", shop())
    frozen = Scorer.of(model).model
    for one, other in zip(model.parameters(), frozen.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr() and not other.requires_grad


@pytest.mark.parametrize(("name", "n_calls"), CALLS.items())
def test_many_threads_get_the_answers_of_one(name: str, n_calls: int, impatient: None) -> None:
    data = shop()
    answers = Recommender(built(name, data), data)

    def calls(user: int) -> list[pl.DataFrame]:
        return [
            answers.recommend(user, k=4),
            answers.score(user, [1, 2, 30]),
            answers.similar(user, k=3),
            answers.explain(user, 7),
        ]

    expected = {user: calls(user) for user in range(1, 21)}
    errors: list[Any] = []

    def ask(first: int) -> None:
        try:
            for number in range(n_calls // 4):
                user = (first + number) % 20 + 1
                for one, other in zip(calls(user), expected[user], strict=True):
                    assert one.equals(other), f"{one} is not {other}"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
