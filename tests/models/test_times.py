"""Models with a bias by the times between items: the times that they read, never read, and learn from."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import segue
from segue.data.dataset import Dataset
from segue.data.gaps import usual_gap
from segue.data.histories import Histories
from segue.data.splits.by_user import leave_last_out
from segue.errors import DataError
from segue.models.hstu import HSTU
from segue.models.sasrec import SASRec
from segue.models.ssept import SSEPT
from tests.helpers import make_dataset, prepared, queries_of

N_ITEMS = 9
ITEMS = [[1, 2, 3, 4, 5], [6, 7, 8], [2], [9, 1, 1, 3]]
TIMES = [[0, 10, 10, 500, 501], [3, 4, 90], [7], [0, 1000, 1001, 5000]]
CONFIGS = [
    pytest.param(SASRec(width=8, heads=2, max_length=3, windows="newest", time_bias=True), id="sasrec"),
    pytest.param(SSEPT(item_width=4, user_width=4, max_length=3, time_bias=True, loss="softmax"), id="ssept"),
    pytest.param(HSTU(width=8, heads=2, max_length=3, windows="newest", time_bias=True), id="hstu"),
]
ROWS = st.lists(st.lists(st.integers(0, 50), max_size=6).map(sorted), min_size=1, max_size=6)


def dataset(times: Any = TIMES) -> Dataset:
    return make_dataset(ITEMS, times, catalogue=range(1, N_ITEMS + 1))


def built(config: Any) -> Any:
    torch.manual_seed(0)
    model = config.build(len(ITEMS), N_ITEMS).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias.times"):
            torch.nn.init.normal_(parameter, std=2.0)
    model.encoder.gap.fill_(40)
    return model


def scores_of(model: Any, histories: Histories) -> torch.Tensor:
    with torch.inference_mode():
        return model.scores().all(queries_of(model, histories), 1, N_ITEMS + 1)  # type: ignore[no-any-return]


# ---- reading times --------------------------------------------------------------------------------------------------


@given(ROWS, st.integers(1, 4), st.lists(st.integers(0, 60), min_size=6, max_size=6), st.booleans())
def test_ages_are_those_of_a_plain_loop(rows: list[list[int]], width: int, moments: list[int], known: bool) -> None:
    plain = Histories.from_lists([[1] * len(row) for row in rows])
    assert plain.ages(width) is None
    as_of = np.array(moments[: len(rows)]) if known else None
    histories = replace(plain, times=np.array([time for row in rows for time in row], dtype=np.int64), as_of=as_of)
    ages = histories.ages(width)
    assert ages is not None and ages.shape == (len(rows), width)
    for row, times in enumerate(rows):
        seen = [min(time, moments[row]) if known else time for time in times[-width:]]
        assert ages[row].tolist() == [seen[-1] - time for time in seen] + [0] * (width - len(seen))


@settings(deadline=None)
@given(ROWS.filter(lambda rows: any(rows)), st.integers(0, 3))
def test_the_usual_gap_is_that_of_a_plain_loop(rows: list[list[int]], hidden: int) -> None:
    whole = make_dataset([[1] * len(row) for row in rows], rows)
    view = whole.until(np.maximum(whole.ends - hidden, whole.starts))
    visible = [row[: max(len(row) - hidden, 0)] for row in rows]
    gaps = sorted(b - a for row in visible for a, b in pairwise(row) if b > a)
    assert usual_gap(view) == (gaps[(len(gaps) - 1) // 2] if gaps else 1)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_batch_has_the_ages_of_its_inputs(config: Any) -> None:
    model = config.build(len(ITEMS), N_ITEMS)
    batch = prepared(model, dataset()).batch(np.array([2, 0, 1]), np.random.default_rng(0))
    assert batch.users.tolist() == [4, 1, 2] or isinstance(config, SSEPT)  # whose ids are swapped
    assert batch.ages.tolist() == [[1001, 1, 0], [490, 490, 0], [1, 0, 0]]
    assert model.encoder.gap.item() == 10  # of 1, 1, 1, 10, 86, 490, 1000, 3999 the fourth


@pytest.mark.parametrize("config", CONFIGS)
def test_without_times_training_says_what_is_missing(config: Any) -> None:
    model = config.build(len(ITEMS), N_ITEMS)
    with pytest.raises(DataError, match="time_bias=True needs times, and this Dataset has none"):
        model.examples(make_dataset(ITEMS, catalogue=range(1, N_ITEMS + 1)))


# ---- hidden times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS)
def test_the_time_of_the_target_is_not_known(config: Any) -> None:
    """Check training, in which it follows the inputs, and evaluation, in which it is the time of the prediction."""
    model = built(config)
    later = [[*row[:-1], row[-1] + 10**6] for row in TIMES]
    changed = [[0, *row[1:]] for row in TIMES]
    losses, scores = [], []
    for times in (TIMES, later, changed):
        split = leave_last_out(dataset(times))
        examples = prepared(model, dataset(times))
        model.encoder.gap.fill_(40)
        with torch.no_grad():
            losses.append(model(examples.batch(np.array([1, 2]), np.random.default_rng(0))).item())
        scores.append(scores_of(model, split.test.histories()))
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[0], scores[2])


@pytest.mark.parametrize("config", CONFIGS)
def test_histories_without_times_are_read_without_the_bias(config: Any) -> None:
    model = built(config)
    timed = dataset().histories()
    plain = scores_of(model, replace(timed, times=None))
    assert not torch.allclose(plain, scores_of(model, timed))
    for name, parameter in model.named_parameters():
        if name.endswith("bias.times"):
            torch.nn.init.zeros_(parameter)
    assert torch.allclose(plain, scores_of(model, timed), atol=1e-6)


# ---- learning times -------------------------------------------------------------------------------------------------


def timed_pairs(unit: int = 1) -> Dataset:
    """Return histories of two items and a third one, which follows the second if the gap is short, else the first."""
    generator = np.random.default_rng(0)
    pairs = generator.permuted(np.tile(np.arange(1, 9), (300, 1)), axis=1)[:, :2]
    soon = generator.random(300) < 0.5
    items = np.column_stack([pairs, np.where(soon, pairs[:, 1], pairs[:, 0]) + 8])
    start = generator.integers(0, 10**6, 300)
    second = start + np.where(soon, generator.integers(30, 60, 300), generator.integers(4000, 9000, 300))
    times = np.column_stack([start, second, second + 500]) * unit
    made = make_dataset(items.tolist(), times.tolist(), catalogue=range(1, 17))
    return replace(made, time_unit={1: "s", 10**9: "ns"}[unit])


def fitted(data: Dataset, **options: Any) -> segue.Recommender:
    config = SASRec(width=16, max_length=2, dropout=0.0, loss="softmax", **options)
    training = segue.Training(epochs=20, batch_size=30, learning_rate=0.01, cpu=True)
    return segue.fit(config, data, training=training, quiet=True)


def hit_rate(recommender: segue.Recommender, data: Dataset) -> float:
    split = leave_last_out(data)
    return float(segue.evaluate(recommender, split.test, k=1).metrics["hr@1"])


@pytest.fixture(scope="module")
def recommender() -> segue.Recommender:
    return fitted(timed_pairs(), time_bias=True)


def test_patterns_of_time_alone_are_learnt(recommender: segue.Recommender) -> None:
    data = timed_pairs()
    assert hit_rate(recommender, data) > 0.95
    assert hit_rate(fitted(data), data) < 0.8


def test_a_fit_does_not_depend_on_the_unit(recommender: segue.Recommender) -> None:
    assert_frame_equal(
        fitted(timed_pairs(10**9), time_bias=True).score(segue.EVERYONE),
        recommender.score(segue.EVERYONE),
        check_exact=True,
    )


def test_all_methods_of_the_recommender(recommender: segue.Recommender, tmp_path: Path) -> None:
    assert recommender.recommend([1, 2], k=3)["score"].is_finite().all()
    given = recommender.recommend(histories={"new": [3, 4]}, k=3)
    assert len(given) == 3 and len(recommender.recommend(1, basket=[5], k=2)) == 2
    assert len(recommender.similar(1, k=2)) == 2
    attention = recommender.attention([1])
    assert attention["weight"].sum() == pytest.approx(recommender.model.config.blocks, abs=1e-5)
    reasons = recommender.explain([1], [9])
    assert len(reasons) == 2 and reasons["effect"].is_finite().all()
    recommender.save(tmp_path / "kept")
    kept = segue.load(tmp_path / "kept")
    assert kept.model.encoder.gap.item() == recommender.model.encoder.gap.item() > 1
    assert_frame_equal(kept.score(segue.EVERYONE), recommender.score(segue.EVERYONE), check_exact=True)


def test_without_an_item_the_others_keep_their_times(recommender: segue.Recommender) -> None:
    """Check that the effect of the first of three items is the difference to a history without it."""
    data = make_dataset([[1, 2, 3]], [[0, 1000, 1050]], catalogue=range(1, 17))
    whole = segue.Recommender(SASRec(width=8, max_length=3, time_bias=True).build(1, 16), data)
    for name, parameter in whole.model.named_parameters():
        if name.endswith("bias.times"):
            torch.nn.init.normal_(parameter, std=2.0)
    less = segue.Recommender(whole.model, make_dataset([[2, 3]], [[1000, 1050]], catalogue=range(1, 17)))
    reasons = whole.explain([1], [9]).filter(pl.col("position") == 1)
    expected = whole.score(segue.EVERYONE, items=9)["9"].item() - less.score(segue.EVERYONE, items=9)["9"].item()
    assert reasons["effect"].item() == pytest.approx(expected, abs=1e-5) and abs(expected) > 1e-4
