"""Predicted ratings measured: the figures, who is asked what and when, and two models compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.splits.by_user import (
    Holdout,
    Split,
    hold_out_users,
    leave_last_n,
    leave_last_out,
    random_rows,
    time_cut,
)
from segue.display import as_text
from segue.errors import ConfigError, DataError, EvaluationError, SegueError
from segue.evaluation.compare import compare
from segue.evaluation.tasks.next_items import evaluate
from segue.evaluation.tasks.ratings import evaluate_ratings
from segue.evaluation.tasks.result import Evaluation, side_by_side
from segue.models.arerec.arerec import ARERec
from segue.models.base import Model
from segue.models.ratings import Rated
from segue.training.config import Training
from segue.training.fit import fit
from tests.inference.fakes import Table
from tests.models.rating_models import ItemLevels, ItemLevelsModel, rated_dataset

DATA = rated_dataset()
SPLIT = leave_last_n(DATA, 4)
LEVELS = (1.0, 2.0, 3.0, 4.0, 5.0)


def fitted(split: Split = SPLIT, **settings: object) -> ItemLevelsModel:
    model = ItemLevels(levels=LEVELS, **settings).build(DATA.n_users, DATA.n_items)  # type: ignore[arg-type]
    model.count(split.train)
    return model.eval()


class Fixed(ItemLevelsModel):
    """Expects what it was told of each user and item, and remembers what it was asked."""

    def __init__(self, table: np.ndarray, probable: bool = False) -> None:
        super().__init__(ItemLevels(levels=LEVELS, probable=probable), table.shape[0] - 1, table.shape[1] - 1)
        self.table = torch.as_tensor(table)
        self.asked: list[np.ndarray] = []

    def rate(self, users: torch.Tensor, items: torch.Tensor, moments: torch.Tensor) -> Rated:
        self.asked.append(np.stack([one.numpy() for one in (users, items, moments)], axis=1))
        return Rated(self.table[users, items], None)


def fixed(seed: int = 0, noise: float = 1.0) -> Fixed:
    return Fixed(3.4 + noise * np.random.default_rng(seed).normal(size=(DATA.n_users + 1, DATA.n_items + 1)))


def questions(holdout: Holdout) -> list[tuple[int, int, float, int]]:
    """(user, item, rating, time) of every target, one by one."""
    data = holdout.dataset
    assert data.ratings is not None and data.times is not None
    return [
        (int(user), int(data.items[place]), float(data.ratings[place]), int(data.times[place]))
        for user, start, end in zip(holdout.users, holdout.history_ends, holdout.target_ends, strict=True)
        for place in range(start, end)
    ]


@pytest.mark.parametrize("split", [SPLIT, time_cut(DATA)])
def test_figures_are_those_of_one_question_after_the_other(split: Split) -> None:
    model = fitted(split)
    found = evaluate_ratings(model, split.test, k=2)
    squares, errors, surprises = [], [], []
    for _, item, rating, _ in questions(split.test):
        counts = model.counts[item].numpy() + 1
        expected = float((counts * LEVELS).sum() / counts.sum())
        squares.append((expected - rating) ** 2)
        errors.append(abs(expected - rating))
        surprises.append(-math.log(counts[int(rating) - 1] / counts.sum()))
    wanted = {"rmse": math.sqrt(np.mean(squares)), "mae": np.mean(errors), "log_loss": np.mean(surprises)}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert found.protocol["ratings"] == len(squares) == found.per_user["questions"].sum()
    for name in wanted:
        low, high = found.intervals[name]
        assert low < found[name] < high
    level = found.parts["level"]
    assert level["predicted"].sum() == pytest.approx(len(squares), rel=1e-6)
    assert level["questions"].to_list() == [sum(row[2] == value for row in questions(split.test)) for value in LEVELS]


def test_every_target_is_asked_at_its_own_moment() -> None:
    model = fixed()
    evaluate_ratings(model, SPLIT.test)
    assert np.concatenate(model.asked).tolist() == [[user, item, time] for user, item, _, time in questions(SPLIT.test)]
    timeless, model = leave_last_n(replace(DATA, times=None), 4), fixed()
    evaluate_ratings(model, timeless.test)
    assert (np.concatenate(model.asked)[:, 2] == NOW).all()


def test_users_held_out_are_unknown() -> None:
    model, holdout = fixed(), hold_out_users(DATA).test
    found = evaluate_ratings(model, holdout)
    assert (np.concatenate(model.asked)[:, 0] == 0).all()
    assert found.protocol["on_unknown_users"] == len(holdout)
    assert "6 on unknown users" in str(found)
    assert not {name for name in found.metrics if name.startswith("own")}, "one question each"


def test_means_per_user_make_the_figures() -> None:
    found = evaluate_ratings(fitted(), SPLIT.test, k=(2, 4))
    for name in ("rmse", "mae", "log_loss", "own_hr@2", "own_ndcg@4"):
        terms = found.terms(name)
        assert terms is not None
        values, weights = terms
        mean = values.mean() if weights is None else values.sum() / weights.sum()
        assert found[name] == pytest.approx(math.sqrt(mean) if name == "rmse" else mean)
    assert found.terms("ece") is None
    by_length, by_item = found.by_history_length, found.parts["item_ratings"]
    assert by_item["questions"].sum() == found.protocol["ratings"]
    squares = (by_item["rmse"] ** 2 * by_item["questions"]).sum() / found.protocol["ratings"]
    assert math.sqrt(squares) == pytest.approx(found["rmse"])
    squares = (by_length["rmse"] ** 2 * by_length["users"] * 4).sum() / found.protocol["ratings"]
    assert math.sqrt(squares) == pytest.approx(found["rmse"])


def test_perfect_and_hopeless_predictions() -> None:
    table = np.zeros((DATA.n_users + 1, DATA.n_items + 1))
    rated = leave_last_out(DATA).test
    for user, item, rating, _ in questions(rated):
        table[user, item] = rating
    found = evaluate_ratings(Fixed(table), rated, k=1)
    assert (found["rmse"], found["mae"], found["ece"]) == (0, 0, 0)
    assert (found["own_hr@1"], found["own_ndcg@1"]) == (1, 1)
    assert "log_loss" not in found.metrics
    assert evaluate_ratings(Fixed(table + 2), rated, k=1)["ece"] == pytest.approx(2)


def test_the_likeliest_level_may_rank() -> None:
    model = fitted()
    expected, likeliest = (evaluate_ratings(model, SPLIT.test, k=2, arg_max=flag) for flag in (False, True))
    assert expected["rmse"] == likeliest["rmse"]
    levels = np.asarray(LEVELS)[model.counts.argmax(dim=1).numpy()]
    as_told = evaluate_ratings(Fixed(np.tile(levels, (DATA.n_users + 1, 1))), SPLIT.test, k=2)
    assert likeliest["own_ndcg@2"] == pytest.approx(as_told["own_ndcg@2"])
    assert likeliest["own_ndcg@2"] != expected["own_ndcg@2"]
    assert "ranked by the likeliest level" in likeliest.remarks
    with pytest.raises(ConfigError, match="arg_max=True ranks by the most probable level, and item-levels has no prob"):
        evaluate_ratings(fitted(probable=False), SPLIT.test, arg_max=True)


def test_the_gains_may_be_the_published_ones() -> None:
    usual, published = (evaluate_ratings(fitted(), SPLIT.test, k=3, published_gains=flag) for flag in (False, True))
    assert usual["own_hr@3"] == published["own_hr@3"]
    assert usual["own_ndcg@3"] != published["own_ndcg@3"]
    assert "gains as published" in published.remarks and "gains" not in usual.remarks
    assert "published_gains" not in usual.protocol


def test_what_is_liked_begins_at_the_middle_of_the_scale() -> None:
    assert evaluate_ratings(fitted(), SPLIT.test).protocol["cutoff"] == 3
    doubled = leave_last_n(replace(DATA, ratings=DATA.ratings * 2), 4)  # type: ignore[operator]
    found = evaluate_ratings(fixed(), doubled.test, k=2)
    assert (found.protocol["cutoff"], found.protocol["scale"]) == (6, [2, 10])
    assert found["own_hr@2"] == evaluate_ratings(fixed(), SPLIT.test, k=2)["own_hr@2"]
    higher = evaluate_ratings(fixed(), SPLIT.test, k=2, cutoff=5)
    assert higher["own_hr@2"] != found["own_hr@2"]
    assert higher.per_user["own_hr@2"].null_count() > 0


def test_questions_about_items_without_ratings_are_counted() -> None:
    model = fitted()
    model.counts[3] = 0
    found = evaluate_ratings(model, SPLIT.test)
    asked = sum(item == 3 for _, item, _, _ in questions(SPLIT.test))
    assert found.protocol["on_unrated_items"] == asked > 0
    assert f"{asked} on items without ratings in training" in found.remarks


def test_a_level_of_probability_0_does_not_make_the_loss_infinite() -> None:
    model = fitted()
    model.counts[:] = torch.tensor([1e12, -1.0, -1.0, -1.0, -1.0])
    assert evaluate_ratings(model, SPLIT.test)["log_loss"] <= -math.log(1e-7)


def test_it_is_saved_printed_and_read(tmp_path: Path) -> None:
    found = evaluate_ratings(fitted(), SPLIT.test, k=(2, 4), cutoff=5)
    again = Evaluation.load(found.save(tmp_path / "found.json"))
    assert again.to_dict() == found.to_dict()
    assert again.per_user.equals(found.per_user)
    assert str(again) == str(found)
    assert "test: 60 users, 240 ratings, liked from 5" in str(found)
    assert {line.split()[1] for line in str(found).splitlines()[4:-1]} == {
        "rmse", "mae", "log_loss", "ece", "own_hr", "own_ndcg",
    }  # fmt: skip
    assert "rmse" in as_text(side_by_side({"one": found, "other": again}))


def test_the_published_leak_is_said_wherever_figures_are() -> None:
    sentence = "looked back as published: histories held the test ratings"
    leaking, honest = (evaluate_ratings(fitted(look_back=way), SPLIT.test) for way in ("reference", "train"))
    assert leaking.protocol["look_back"] == "reference"
    assert sentence in leaking.remarks and sentence in str(leaking)
    assert sentence in str(leaking.table().title)
    assert sentence in as_text(side_by_side({"first": honest, "second": leaking})).replace("\n", " ")
    assert sentence in str(compare(honest, leaking, resamples=10))
    assert compare(honest, leaking, resamples=10).to_dict()["cautions"]
    assert sentence not in str(honest) + str(compare(honest, honest, resamples=10))


def test_the_model_with_the_leak_is_known_by_its_setting() -> None:
    split = random_rows(DATA)
    config = ARERec(width=4, look_back="reference", neighbour_ratings=False)
    model = fit(config, split, training=Training(epochs=1, cpu=True), quiet=True)
    for found in (evaluate_ratings(model, split.test), evaluate(model, split.test)):
        assert found.warning == "looked back as published: histories held the test ratings"
    honest = fit(replace(config, look_back="train"), split, training=Training(epochs=1, cpu=True), quiet=True)
    assert evaluate_ratings(honest, split.test).warning is None


# ---- two models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_less_error_is_better(metric: str) -> None:
    near, far = (evaluate_ratings(fixed(seed, noise), SPLIT.test, k=2) for seed, noise in ((1, 0.1), (2, 2.0)))
    row = compare(near, far, resamples=2000)[metric]
    assert row.difference == pytest.approx(far[metric] - near[metric])
    assert 0 < row.low < row.difference < row.high
    assert (row.better, row.p_value < 0.01, row.losses > row.wins) == ("a", True, True)
    turned = compare(far, near, resamples=2000)[metric]
    assert (turned.better, turned.wins, turned.losses) == ("b", row.losses, row.wins)
    assert f"{metric} ↓" in str(compare(near, far, resamples=10, names=("near", "far")))


def test_more_hits_are_better() -> None:
    table = np.zeros((DATA.n_users + 1, DATA.n_items + 1))
    for user, item, rating, _ in questions(SPLIT.test):
        table[user, item] = rating
    best, blind = (evaluate_ratings(model, SPLIT.test, k=2, cutoff=5) for model in (Fixed(table), fixed()))
    found = compare(blind, best, resamples=2000)
    for name in ("own_hr@2", "own_ndcg@2"):
        assert found[name].better == "b"
        assert found[name].difference == pytest.approx(best[name] - blind[name])
    measured = best.per_user["own_hr@2"].drop_nulls()
    row = found["own_hr@2"]
    assert row.wins + row.ties + row.losses == len(measured) < len(best.per_user)


def test_the_interval_of_rmse_covers_its_error() -> None:
    found = evaluate_ratings(fixed(), SPLIT.test, resamples=4000)
    squares, n = found.per_user["squared_errors"].to_numpy(), found.per_user["questions"].to_numpy()
    # By the delta method, of a ratio of means over users and of its root.
    ratio = squares.sum() / n.sum()
    error = np.sqrt(((squares - ratio * n) ** 2).mean() / len(n)) / n.mean() / (2 * math.sqrt(ratio))
    wanted = (found["rmse"] - 1.96 * error, found["rmse"] + 1.96 * error)
    assert found.intervals["rmse"] == pytest.approx(wanted, abs=error / 4)
    assert evaluate_ratings(fixed(), SPLIT.test, resamples=0).intervals == {}


def test_only_the_same_questions_are_compared() -> None:
    a = evaluate_ratings(fitted(), SPLIT.test)
    for other in (
        evaluate_ratings(fitted(), SPLIT.test, cutoff=4),
        evaluate_ratings(fitted(), SPLIT.test, arg_max=True),
        evaluate_ratings(fitted(), SPLIT.test, published_gains=True),
        evaluate_ratings(fitted(), SPLIT.validation),
    ):
        with pytest.raises(EvaluationError, match="cannot be compared"):
            compare(a, other)
    drawn = [evaluate_ratings(fitted(), SPLIT.test, users=20, seed=seed).per_user["user"] for seed in (1, 1, 2)]
    assert drawn[0].equals(drawn[1]) and not drawn[0].equals(drawn[2])


# ---- what cannot be ------------------------------------------------------------------------------------------------


def broken(dataset: Dataset, value: float) -> Holdout:
    ratings = DATA.ratings.copy()  # type: ignore[union-attr]
    ratings[SPLIT.test.history_ends[0]] = value
    return leave_last_n(replace(dataset, ratings=ratings), 4).test


@pytest.mark.parametrize(
    ("model", "holdout", "options", "kind", "message"),
    [
        (Table(np.zeros((61, 26))), SPLIT.test, {}, ConfigError, "the model table predicts no ratings"),
        (fitted(), leave_last_n(replace(DATA, ratings=None), 4).test, {}, DataError, "has no ratings"),
        (fitted(), broken(DATA, np.nan), {}, DataError, "1 of 240 ratings to predict are missing"),
        (fitted(), broken(DATA, 3.5), {}, EvaluationError, r"1 of 240 .* does not know \(3.5\); .* 1, 2, 3, 4, 5"),
        (fitted(), broken(DATA, 6), {}, EvaluationError, r"does not know \(6\)"),
        (fitted(), SPLIT.test.select(np.zeros(0, dtype=np.int64)), {}, EvaluationError, "no users"),
        (Fixed(np.zeros((9, 9))), SPLIT.test, {}, EvaluationError, "8 users and 8 items.*another Dataset"),
        (Fixed(np.full((61, 26), np.nan)), SPLIT.test, {}, EvaluationError, "not finite .* for 240 of 240 questions"),
        (fitted(), SPLIT.test, {"k": ()}, ConfigError, "expected one length"),
        (fitted(), SPLIT.test, {"k": (0, 3)}, ConfigError, r"k=\(0, 3\): expected a whole number from 1"),
        (fitted(), SPLIT.test, {"users": 0}, ConfigError, "users=0: expected 1 or more, or None"),
    ],
)
def test_impossible_questions_are_explained(
    model: Model, holdout: Holdout, options: dict[str, int], kind: type[SegueError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        evaluate_ratings(model, holdout, **options)  # type: ignore[arg-type]


def test_levels_of_a_fraction_are_found() -> None:
    tenths = (0.1, 0.7, 3.3)
    ratings = np.resize(np.asarray(tenths, dtype=np.float32), len(DATA.items))
    split = leave_last_n(replace(DATA, ratings=ratings), 4)
    config = ItemLevels().resolved(split.train)
    assert config.levels == pytest.approx(tenths)
    for levels in (config.levels, tenths):
        model = ItemLevels(levels=levels).build(DATA.n_users, DATA.n_items)
        found = evaluate_ratings(model, split.test).parts["level"]
        assert found["level"].to_list() == ["0.1", "0.7", "3.3"]
        assert isinstance(found, pl.DataFrame) and found["questions"].sum() == 240
