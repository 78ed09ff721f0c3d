"""Events after the training count at once, and models read all sources of histories alike."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import segue
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.recommender import Recommender


def log(n_users: int = 12, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        time = 1_700_000_000
        for item in rng.integers(0, 15, rng.integers(5, 10)):
            time += int(rng.integers(60, 100_000))
            rows.append((f"u{user:02}", f"i{item:02}", time, time // 200_000))
    return pl.DataFrame(rows, schema=["user", "item", "time", "session"], orient="row")


Parts = tuple[Recommender, pl.DataFrame, pl.DataFrame]
CONFIGS = {
    "sasrec-times": segue.SASRec(width=8, blocks=1, max_length=8, time_bias=True),
    "ssept": segue.SSEPT(item_width=6, user_width=6, max_length=8),
    "parsrec": segue.PARSRec(user_width=4, item_width=4),
    "markov": segue.Markov(),
}


@pytest.fixture(scope="module", params=CONFIGS)
def parts(request: pytest.FixtureRequest) -> tuple[Recommender, pl.DataFrame, pl.DataFrame]:
    """A Recommender fitted on all but the newest two interactions of each user, the old part and the new part."""
    frame = log()
    position = pl.int_range(pl.len()).over("user")
    old = frame.filter(position < pl.len().over("user") - 2)
    training = segue.Training(epochs=2, cpu=True)
    fitted = segue.fit(CONFIGS[request.param], segue.prepare(old, duplicates="keep"), training=training, quiet=True)
    known = fitted.dataset.catalogue.ids.to_list()
    return fitted, old, frame.join(old, on=["user", "time"], how="anti").filter(pl.col("item").is_in(known))


def test_an_answer_with_events_is_that_of_the_whole_history(
    parts: tuple[Recommender, pl.DataFrame, pl.DataFrame],
) -> None:
    fitted, old, new = parts
    live = fitted.with_events(new)
    users = sorted(old["user"].unique())
    whole = pl.concat([old, new]).sort("user", "time", maintain_order=True)
    expected = fitted.recommend(histories=whole, k=5, exclude_seen=True)
    answers = live.recommend(users, k=5)
    assert_frame_equal(answers, expected, check_exact=False, abs_tol=1e-5, check_dtypes=False)
    assert not answers.equals(fitted.recommend(users, k=5))
    reasons = live.explain("u03", answers.filter(user="u03")["item"][0])
    assert set(reasons["time"].to_list()) & set(new.filter(user="u03")["time"].to_list())


def test_given_histories_with_times_are_answered_like_stored_ones(
    parts: tuple[Recommender, pl.DataFrame, pl.DataFrame],
) -> None:
    fitted, old, _ = parts
    assert_frame_equal(
        fitted.recommend(histories=old, k=4), fitted.recommend(segue.EVERYONE, k=4), abs_tol=1e-5, check_dtypes=False
    )


def test_new_users_are_answered_from_their_events() -> None:
    fitted = segue.fit(segue.Markov(), segue.prepare(log(), duplicates="keep"))
    events = pl.DataFrame({"user": ["new", "new"], "item": ["i03", "i04"], "time": [1, 2]})
    live = fitted.with_events(events)
    lists = live.recommend(["new", "u01"], k=3)
    assert lists["model"].unique().to_list() == ["markov"]
    by_hand = fitted.recommend(histories={"new": ["i03", "i04"]}, k=3)
    assert lists.filter(user="new")["item"].to_list() == by_hand["item"].to_list()
    assert "new" in live.recommend(segue.EVERYONE, k=1)["user"].to_list()
    with pytest.raises(segue.SegueError, match="unknown user: 'new'"):
        fitted.recommend("new")


def test_as_of_leaves_later_events_out() -> None:
    fitted = segue.fit(segue.Markov(), segue.prepare(log(), duplicates="keep"))
    late = pl.DataFrame({"user": ["u01"], "item": ["i03"], "time": [1_800_000_000]})
    live = fitted.with_events(late)
    assert not live.recommend("u01", k=3).equals(fitted.recommend("u01", k=3))
    assert live.recommend("u01", k=3, as_of=1_750_000_000).equals(fitted.recommend("u01", k=3, as_of=1_750_000_000))


def test_unknown_items_of_events_are_left_out_with_a_warning() -> None:
    fitted = segue.fit(segue.Markov(), segue.prepare(log(), duplicates="keep"))
    events = pl.DataFrame({"user": ["u01", "u01"], "item": ["i03", "never"], "time": [1_800_000_000, 1_800_000_001]})
    with pytest.warns(UnknownIdWarning, match="1 unknown item left out of the events: 'never'"):
        live = fitted.with_events(events)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = fitted.with_events(events.head(1)).recommend("u01", k=3)
        assert live.recommend("u01", k=3).equals(expected)


def test_events_are_exported_and_not_saved(tmp_path: Any) -> None:
    fitted = segue.fit(segue.Markov(), segue.prepare(log(), duplicates="keep"))
    live = fitted.with_events(pl.DataFrame({"user": ["new"], "item": ["i03"], "time": [1]}))
    live.export(tmp_path / "lists.parquet", segue.EVERYONE, k=2)
    assert "new" in pl.read_parquet(tmp_path / "lists.parquet")["user"].to_list()
    live.save(tmp_path / "saved")
    assert segue.load(tmp_path / "saved").recommend("u01", k=3).equals(fitted.recommend("u01", k=3))


def test_baskets_have_the_time_of_the_question() -> None:
    """A model with times sees the time between the history and the basket."""
    # Repeats count the history before the basket, so with them a basket is not the same as the newest events.
    config = segue.SASRec(width=8, blocks=1, max_length=8, time_bias=True, repeats=False)
    data = segue.prepare(log(), duplicates="keep")
    fitted = segue.fit(config, data, training=segue.Training(epochs=1, cpu=True), quiet=True)
    scores = [
        fitted.score("u01", "i05", basket=["i02"], as_of=time)["i05"].item() for time in (1_900_000_000, 1_950_000_000)
    ]
    events = pl.DataFrame({"user": ["u01"], "item": ["i02"], "time": [1_900_000_000]})
    assert fitted.with_events(events).score("u01", "i05")["i05"].item() == pytest.approx(scores[0], abs=1e-5)
    assert np.isfinite(scores).all()
