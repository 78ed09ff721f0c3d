"""Evaluation of a Recommender on another log, compared with the log in the codes of the Recommender by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.data.recoding import recode
from segue.errors import DataError, EvaluationError, UnknownIdError
from segue.inference.asking.ids import UnknownIdWarning

TRAINED = pl.DataFrame(
    [(user, (user + step) % 9, 100 * step + user) for user in range(2, 14, 2) for step in range(5)],
    schema=["user", "item", "time"],
    orient="row",
)
OTHER = pl.DataFrame(
    [(user, (2 * user + step) % 11, 7 * step) for user in (1, 4, 3, 8, 20) for step in range(6)],
    schema=["user", "item", "time"],
    orient="row",
)  # the users 1, 3 and 20 and the items 9 and 10 are new
SMALL: dict[str, Any] = {"item_width": 4, "user_width": 4, "blocks": 1, "max_length": 5}


@pytest.fixture(scope="module")
def recommender() -> segue.Recommender:
    split = segue.leave_last_out(segue.prepare(TRAINED))
    return segue.fit(segue.SSEPT(**SMALL), split, training=segue.Training(epochs=1, cpu=True), quiet=True)


def split_quietly(recommender: segue.Recommender, data: Any, **options: Any) -> segue.Split:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownIdWarning)
        return segue.split_for(recommender, data, **options)


def by_hand(frame: pl.DataFrame) -> dict[int, list[int]]:
    """Items of each user in the order of time, without those that the Recommender does not know."""
    known = frame.filter(pl.col("item").is_in(TRAINED["item"].unique().to_list()))
    return {key[0]: part.sort("time")["item"].to_list() for key, part in known.group_by("user", maintain_order=True)}


def test_figures_are_those_of_the_histories_by_hand(recommender: segue.Recommender) -> None:
    """The rank of each target is that of the item in the list for the history as given in a request."""
    split = split_quietly(recommender, OTHER)
    evaluation = segue.evaluate(recommender, split.test, k=3, resamples=0)
    expected = {user: items for user, items in by_hand(OTHER).items() if len(items) >= 3}
    per_user = evaluation.per_user
    assert sorted(per_user["user"]) == sorted(expected)
    for row in per_user.iter_rows(named=True):
        *history, target = expected[row["user"]]
        assert row["history"] == len(history)
        lists = recommender.recommend(histories={row["user"]: history}, k=9, exclude_seen=False)
        order = [item for item in lists["item"] if item not in history or item == target]
        seen = target in history
        assert seen or row["rank"] == order.index(target) + 1
    assert evaluation.protocol["on_unknown_users"] == sum(user in (1, 3, 20) for user in expected)
    assert "on unknown users" in evaluation.remarks


def test_users_and_items_that_are_unknown_are_counted(recommender: segue.Recommender) -> None:
    with pytest.warns(UnknownIdWarning) as caught:
        segue.split_for(recommender, OTHER)
    users, items = (next(one.message for one in caught if one.message.what == what) for what in ("users", "items"))  # type: ignore[union-attr]
    assert sorted(users.ids) == [1, 3, 20]  # type: ignore[union-attr]
    assert sorted(items.ids) == [9, 10]  # type: ignore[union-attr]
    assert "3 unknown users of 5 in the other data, answered from their histories alone" in str(users)
    left_out = OTHER.filter(pl.col("item") > 8).height
    assert f"2 unknown items in the other data, left out with {left_out} of 30 interactions" in str(items)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12), st.integers(0, 30)), min_size=1, max_size=40))
def test_a_log_keeps_its_order_times_and_sessions(rows: list[tuple[int, int, int]]) -> None:
    base = segue.prepare(TRAINED)
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_columns(
        session=pl.col("time") // 10, rating=pl.col("item").cast(pl.Float64)
    )
    other = segue.prepare(frame, duplicates="keep")
    if not any(item < 9 for _, item, _ in rows):
        with pytest.raises(UnknownIdError, match="unknown item"):
            recode(base, other)
        return
    recoded = recode(base, other).dataset
    expected = other.to_frame().filter(pl.col("item") < 9)
    found = recoded.to_frame().drop("session")
    assert found.sort("user", maintain_order=True).rows() == expected.select(found.columns).rows()
    assert recoded.catalogue is base.catalogue
    assert recoded.users.ids[: base.n_users].to_list() == base.users.ids.to_list()
    sessions = [(user, time // 10) for user, item, time in expected.select("user", "item", "time").iter_rows()]
    assert len(recoded.sessions) == len(set(sessions))
    assert (recoded.sessions.lengths > 0).all()


def test_the_training_data_itself_gives_the_usual_figures(recommender: segue.Recommender) -> None:
    own = segue.leave_last_out(recommender.dataset).test
    expected = segue.evaluate(recommender, own, k=3)
    found = segue.evaluate(recommender, segue.split_for(recommender, TRAINED).test, k=3)
    assert dict(found.metrics) == dict(expected.metrics)
    assert found.protocol["questions"] == expected.protocol["questions"]


def test_files_folders_and_datasets(recommender: segue.Recommender, tmp_path: Path) -> None:
    OTHER.write_csv(tmp_path / "other.csv")
    prepared = segue.prepare(OTHER, out=tmp_path / "other")
    results = [
        segue.evaluate(recommender, split_quietly(recommender, data).test, k=3).to_dict()
        for data in (OTHER, tmp_path / "other.csv", str(tmp_path / "other"), prepared)
    ]
    assert all(one == results[0] for one in results)


def test_another_split_and_none(recommender: segue.Recommender) -> None:
    split = split_quietly(recommender, OTHER, split={"name": "leave-last-n", "n": 2})
    assert (split.test.n_targets == 2).all()
    everything = segue.fit(segue.Markov(), segue.prepare(TRAINED))
    assert split_quietly(everything, OTHER).spec == {"name": "leave-last-out"}


def test_times_of_another_unit_are_converted(recommender: segue.Recommender) -> None:
    moments = pl.DataFrame(
        {"user": [2, 2, 2], "item": [1, 2, 3], "time": [1577836800000, 1577836801000, 1577836802000]}
    )
    recoded = recode(segue.prepare(TRAINED.with_columns(pl.col("time") + 1577836800)), moments).dataset
    assert recoded.time_unit == "s" and recoded.times is not None
    assert recoded.times.tolist() == [1577836800, 1577836801, 1577836802]


def test_ratings_of_unknown_users() -> None:
    rated = TRAINED.with_columns(rating=(pl.col("item") % 5 + 1).cast(pl.Float64))
    model = segue.fit(segue.RatingBias(), segue.random_rows(segue.prepare(rated)))
    other = OTHER.with_columns(rating=(pl.col("item") % 5 + 1).cast(pl.Float64))
    split = split_quietly(model, other, split={"name": "leave-last-out"})
    found = segue.evaluate_ratings(model, split.test)
    assert found.protocol["on_unknown_users"] == 3
    alone = split_quietly(model, other.filter(pl.col("user").is_in([4, 8])), split={"name": "leave-last-out"})
    known = segue.evaluate_ratings(model, alone.test)
    mine = found.per_user.filter(pl.col("user").is_in([4, 8]))
    np.testing.assert_allclose(mine["squared_errors"], known.per_user["squared_errors"])


def test_what_cannot_be_evaluated(recommender: segue.Recommender) -> None:
    with pytest.raises(UnknownIdError, match="unknown item"):
        segue.split_for(recommender, OTHER.with_columns(pl.col("item") + 100))
    with pytest.raises(DataError, match="is not an integer"):
        segue.split_for(recommender, OTHER.with_columns(user=pl.format("u{}", "user")))
    stranger = segue.fit(
        segue.SSEPT(**SMALL),
        segue.leave_last_out(segue.prepare(TRAINED.with_columns(pl.col("user") + 1))),
        training=segue.Training(epochs=1, cpu=True),
        quiet=True,
    )
    with pytest.raises(EvaluationError, match="fitted with other users"):
        segue.evaluate(stranger, split_quietly(recommender, OTHER).test, k=3)
