"""Lists of the service are those of the Recommender."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.inference.scoring.ranking import top_k
from segue.models.registry import MODELS
from segue.serving.asking import _because_titles
from segue.serving.ranked import Ranked
from segue.serving.served import BestItems, Question
from segue.serving.torch_served import TorchServed
from segue.serving.traced import TracedScorer, traced
from tests.helpers import make_dataset

TRAINING = segue.Training(epochs=1, cpu=True)


def question(**given: Any) -> Question:
    empty: dict[str, Any] = dict.fromkeys(Question.__dataclass_fields__)
    return Question(**{**empty, "k": 3, "strict": False, **given})


def small(**settings: Any) -> segue.Recommender:
    rng = np.random.default_rng(0)
    lists = [rng.integers(1, 701, rng.integers(2, 40)).tolist() for _ in range(50)]
    data = make_dataset(lists, catalogue=range(1, 701))
    config = segue.SASRec(width=8, max_length=20, **settings)
    return segue.fit(config, data, training=TRAINING, quiet=True)


@pytest.fixture(scope="module")
def recommender() -> segue.Recommender:
    return small(transitions=False)


def test_lists_of_a_batch_are_those_of_the_recommender(recommender: segue.Recommender) -> None:
    served = TorchServed(recommender, "run")
    asked = [
        (question(user=1), {"users": [1]}),
        (question(user="2", k=5, exclude_seen=False), {"users": [2], "exclude_seen": False}),
        (question(user=3, basket=[5, 6, 5]), {"users": [3], "basket": [5, 6]}),
        (question(items=[1, 2, 3, "x"]), {"histories": [[1, 2, 3]]}),
        (question(basket=[]), {"basket": []}),
        (question(user=4, allow=[1, 2, 9, 30]), {"users": [4], "allow": [1, 2, 9, 30]}),
        (question(user=4, deny=[3]), {"users": [4], "deny": [3]}),
        (question(user="nobody"), {"users": ["nobody"], "unknown": "popular"}),
    ]
    answers = served.answer([one for one, _ in asked])
    for (one, arguments), answer in zip(asked, answers, strict=True):
        assert isinstance(answer, BestItems), answer
        expected = recommender.recommend(**arguments, k=one.k)  # type: ignore[arg-type]
        assert answer.items == expected["item"].to_list(), one
        assert answer.scores == pytest.approx(expected["score"].to_list(), rel=1e-4)
        assert answer.model == expected["model"][0]
    unknown = answers[3]
    assert isinstance(unknown, BestItems) and unknown.unknown == ["x"]


def test_a_fault_of_one_question_is_its_own(recommender: segue.Recommender) -> None:
    served = TorchServed(recommender, "run")
    answers = served.answer([question(user=1, k=10_000), question(user=1), question(user="x", strict=True),
                             question(user=1, allow=["zz"])])  # fmt: skip
    assert [type(answer).__name__ for answer in answers] == [
        "ConfigError", "BestItems", "UnknownIdError", "UnknownIdError",
    ]  # fmt: skip


@pytest.mark.parametrize("settings", [{"transitions": False}, {"transitions": True}, {"repeats": True}], ids=str)
def test_ranked_lists_are_exact(settings: dict[str, Any]) -> None:
    recommender = small(**settings)
    scorer, histories = recommender.scorer, recommender.dataset.histories()
    ranked = Ranked.of(scorer)
    assert ranked is not None
    for k, hidden, part in itertools.product([1, 7], [True, False], [slice(0, None), slice(3, 4)]):
        some = histories.select(part)
        codes, scores = ranked.lists(some, k, some if hidden else None)
        expected = top_k(scorer, some, k, exclude_seen=hidden)
        np.testing.assert_array_equal(codes, expected[0])
        np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=1e-5)


def test_ranked_lists_order_equal_scores_by_code() -> None:
    data = make_dataset([[1, 2], [3, 4]], catalogue=range(1, 1001))
    scorer = segue.fit(segue.Popularity(), data, quiet=True).scorer
    ranked = Ranked.of(scorer)
    assert ranked is not None
    codes, _ = ranked.lists(data.histories(), 6, data.histories())
    assert codes.tolist() == [[3, 4, 5, 6, 7, 8], [1, 2, 5, 6, 7, 8]]


@pytest.mark.parametrize("transitions", [False, True])
def test_traces_are_exact_or_not_used(transitions: bool) -> None:
    recommender = small(transitions=transitions)
    scorer = traced(recommender.scorer, recommender.dataset)
    assert isinstance(scorer, TracedScorer)
    histories = recommender.dataset.histories()
    for part in (slice(0, 1), slice(0, 9), slice(0, None)):
        ours, theirs = scorer.queries(histories.select(part)), recommender.scorer.queries(histories.select(part))
        assert (ours - theirs).abs().max() < 1e-5


def test_every_model_of_next_items_is_served() -> None:
    walks = [[(start + step) % 12 + 1 for step in range(6)] for start in range(24)]
    data = make_dataset(walks, [[10 * step for step in range(6)]] * 24, catalogue=range(1, 13))
    for name, model in MODELS.items():
        if model.task != "next-items" or name in ("content-neighbours", "category-popularity"):
            continue  # the two models of content need an item table; tests/serving/test_parity.py has one
        config = model(epochs=1) if "epochs" in model.__dataclass_fields__ else model()
        served = TorchServed(segue.fit(config, data, training=TRAINING, quiet=True), "run")
        served.check()
        (answer,) = served.answer([question(user=1)])
        assert isinstance(answer, BestItems) and len(answer.items) == 3, name


def test_titles_of_items_in_reasons() -> None:
    frame = pl.DataFrame({"kind": ["repeats", "session", "item"], "because": ["jam", "2024", "tea"]})
    served: Any = SimpleNamespace(titles_of=lambda items: [f"{item}, tinned" for item in items])
    assert _because_titles(served, frame) == ["jam, tinned", None, "tea, tinned"]
