"""Statistics, against counts by hand and against naive counting."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from segue.data.dataset import Dataset
from segue.data.statistics import describe as statistics
from segue.data.statistics.describe import describe
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError

DAY = 86_400
STEPS = [
    {"step": "read", "users": 5, "items": 4, "interactions": 12},
    {"step": "minimum rating 2", "users": 3, "items": 4, "interactions": 8},
]


def _dataset(
    histories: list[list[int]],
    n_items: int,
    times: list[int] | None = None,
    ratings: list[float] | None = None,
    unit: str | None = "s",
    metadata: dict[str, Any] | None = None,
) -> Dataset:
    lengths = [0, *map(len, histories)]
    return Dataset(
        items=np.array([item for history in histories for item in history], dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        users=Vocabulary(pl.Series([f"u{n:04d}" for n in range(len(histories))], dtype=pl.String)),
        catalogue=Vocabulary(pl.Series([f"i{n:04d}" for n in range(n_items)], dtype=pl.String)),
        times=None if times is None else np.array(times, dtype=np.int64),
        ratings=None if ratings is None else np.array(ratings, dtype=np.float32),
        time_unit=unit if times is not None else None,
        metadata=metadata or {},
    )


@pytest.fixture
def shop() -> Dataset:
    return _dataset(
        [[1, 2, 1, 1], [3, 1], [2, 1]],
        n_items=4,
        times=[0, 0, DAY, 2 * DAY, 5, 5, 7, 9],
        ratings=[5, 4, 4, 4, 2, 5, 5, float("nan")],
        metadata={"steps": STEPS},
    )


def test_counts_by_hand(shop: Dataset) -> None:
    found = describe(shop)
    assert (found.users, found.items, found.interactions) == (3, 4, 8)
    assert found.density == pytest.approx(8 / 12)
    assert found.sparsity == pytest.approx(4 / 12)
    assert (found.lengths.min, found.lengths.mean, found.lengths.median, found.lengths.max) == (2, 8 / 3, 2, 4)
    assert found.short_users == 2
    assert found.repeats == 2 / 8
    items = found.item_lengths
    assert (items.min, items.mean, items.median, items.max) == (0, 2, 1.5, 5)
    popularity = found.popularity
    assert (popularity.ranks, popularity.counts) == ((1, 2, 3, 4), (5, 2, 1, 0))
    assert popularity.top_1_percent == popularity.top_10_percent == 5 / 8
    assert popularity.gini == pytest.approx(0.5)  # mean absolute difference of (0, 1, 2, 5) over twice their mean
    assert found.steps == tuple(STEPS)


def test_times_by_hand(shop: Dataset) -> None:
    times = describe(shop).times
    assert times is not None
    assert (times.first, times.last, times.days) == ("1970-01-01 00:00:00+00:00", "1970-01-03 00:00:00+00:00", 2.0)
    assert times.tied == 4 / 8  # the first two of the first user, both of the second
    assert sum(times.activity.counts) == 8
    assert times.activity.counts[0] == 6


def test_times_that_are_steps_are_no_dates(tmp_path: Path) -> None:
    found = describe(_dataset([[1, 2, 1]], 2, [0, 1, 1]))
    assert found.times is not None
    assert (found.times.first, found.times.last, found.times.days) == ("0", "1", None)
    assert found.times.activity.counts == (1, 2), "each step is a period"
    assert found.picture(tmp_path / "steps.png").stat().st_size > 1000


def test_sessions_by_hand(shop: Dataset, tmp_path: Path) -> None:
    assert describe(shop).sessions is None
    shop = replace(shop, session_offsets=np.array([0, 2, 4, 5, 6, 8]))
    found = describe(shop).sessions  # 1 2 at once | 1 1 on two days || 3 | 1 || 2 1
    assert found is not None
    assert (found.sessions, found.single, found.repeats, found.one_item) == (5, 1, 1 / 8, 2 / 5)
    assert (found.per_user.min, found.per_user.mean, found.per_user.max) == (1, 5 / 3, 2)
    assert (found.lengths.min, found.lengths.mean, found.lengths.max) == (1, 8 / 5, 2)
    assert found.length_histogram.counts == (2, 3)
    assert found.median_pause == 0.5  # a day, and none
    shown = str(describe(shop))
    for piece in ("users with one session", "median pause between sessions", "12.0 hours", "session length"):
        assert piece in shown
    assert describe(shop).to_dict()["sessions"]["sessions"] == 5
    assert describe(shop).picture(tmp_path / "sessions.png").stat().st_size > 1000
    view = shop.until(shop.ends - np.array([0, 1, 1, 0]))
    seen = describe(view).sessions
    assert seen is not None
    assert (seen.sessions, seen.one_item) == (4, 2 / 4)


def test_ratings_by_hand(shop: Dataset) -> None:
    ratings = describe(shop).ratings
    assert ratings is not None
    assert ratings.distribution == {"2": 1, "4": 3, "5": 3}
    assert ratings.mean == pytest.approx(29 / 7)
    assert ratings.deviation == pytest.approx(np.std([5, 4, 4, 4, 2, 5, 5]))
    assert ratings.deviation_of_users == pytest.approx(np.std([17 / 4, 7 / 2, 5]))
    assert ratings.deviation_of_items == pytest.approx(np.std([18 / 4, 9 / 2, 2]))


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_units_of_time(unit: str, per_second: int) -> None:
    start = 1_700_000_000 * per_second
    times = describe(_dataset([[1, 2]], 2, [start, start + DAY * per_second], unit=unit)).times
    assert times is not None
    assert (times.first, times.days) == ("2023-11-14 22:13:20+00:00", 1.0)


def test_times_of_unknown_unit_or_without_a_date(tmp_path: Path) -> None:
    unknown = describe(_dataset([[1, 2]], 2, [10, 40], unit=None))
    assert unknown.times is not None
    assert (unknown.times.first, unknown.times.last, unknown.times.days) == ("10", "40", None)
    far = describe(_dataset([[1, 2]], 2, [10**17, 10**17]))
    assert far.times is not None
    assert far.times.first == str(10**17)
    for found in (unknown, far):
        assert found.picture(tmp_path / "times.png").stat().st_size > 1000


def test_a_view_is_described_as_far_as_it_is_visible(shop: Dataset) -> None:
    view = shop.until(np.array([0, 2, 6, 6], dtype=np.int64))
    found = describe(view)
    assert (found.interactions, found.repeats, found.lengths.max) == (4, 0, 2)
    assert found.lengths.min == 0


def test_many_different_ratings_are_put_in_ranges() -> None:
    ratings = describe(_dataset([[1] * 100], 1, ratings=np.linspace(0, 1, 100).tolist())).ratings
    assert ratings is not None
    assert len(ratings.distribution) == 10
    assert sum(ratings.distribution.values()) == 100


def test_equally_popular_items_have_no_gini() -> None:
    assert describe(_dataset([[1, 2], [3, 4]], 4)).popularity.gini == pytest.approx(0)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=8), min_size=1, max_size=12))
def test_repeats_and_ties_in_pieces_equal_naive_counting(histories: list[list[tuple[int, int]]]) -> None:
    histories = [sorted(history, key=lambda pair: pair[1]) for history in histories]
    items = [[item for item, _ in history] for history in histories]
    dataset = _dataset(items, 5, [time for history in histories for _, time in history])
    whole = statistics._CHUNK
    try:
        statistics._CHUNK = 4
        repeated, tied = statistics._within_users(dataset)
    finally:
        statistics._CHUNK = whole
    assert repeated == sum(len(history) - len(set(history)) for history in items)
    moments = [Counter(time for _, time in history) for history in histories]
    assert tied == sum(count for counter in moments for count in counter.values() if count > 1)
    found = describe(dataset)
    assert sum(found.length_histogram.counts) == len(histories)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), max_size=7), min_size=1, max_size=8))
def test_mean_ratings_in_pieces_equal_naive_means(histories: list[list[tuple[int, int]]]) -> None:
    rows = [(user, item, rating) for user, history in enumerate(histories) for item, rating in history]
    items, ratings = [[item for item, _ in history] for history in histories], [float(rating) for _, _, rating in rows]
    dataset = _dataset(items, 4, ratings=ratings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_CHUNK", 4)
        found = statistics._mean_ratings(dataset, np.array(ratings, dtype=np.float32))
    for means, place in zip(found, (0, 1), strict=True):
        codes = sorted({row[place] for row in rows})
        expected = [np.mean([row[2] for row in rows if row[place] == code]) for code in codes]
        np.testing.assert_allclose(means, expected)


def test_an_empty_dataset_is_described() -> None:
    found = describe(_dataset([[]], 0, []))
    assert (found.interactions, found.density, found.repeats, found.times) == (0, 0, 0, None)
    assert "interactions" in str(found)


def test_json_and_back(shop: Dataset) -> None:
    content = describe(shop).to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["sparsity"] == pytest.approx(1 / 3)
    assert content["steps"] == STEPS
    assert content["times"]["days"] == 2.0
    assert (content["lengths"]["max"], content["item_lengths"]["max"]) == (4, 5)
    assert content["ratings"]["deviation_of_items"] == pytest.approx(np.std([4.5, 4.5, 2]))


def test_for_the_terminal(shop: Dataset) -> None:
    found = describe(shop)
    shown = str(found)
    for piece in (
        "33.333%",
        "1970-01-03 00:00:00 UTC",
        "Gini",
        "minimum rating 2",
        "4.14",
        "history length of items",
        "of the means of items",
    ):
        assert piece in shown
    stream = io.StringIO()
    Console(file=stream, width=100).print(found)
    assert "history length of users" in stream.getvalue()
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_picture(shop: Dataset, tmp_path: Path, ending: str) -> None:
    path = describe(shop).picture(tmp_path / "made" / f"shop{ending}")
    assert path.stat().st_size > 1000
    assert [file.name for file in path.parent.iterdir()] == [f"shop{ending}"]


def test_picture_without_times_and_ratings(tmp_path: Path) -> None:
    assert describe(_dataset([[1, 2], [1]], 2)).picture(tmp_path / "small.png").stat().st_size > 1000
    assert describe(_dataset([[]], 1)).picture(tmp_path / "empty.png").stat().st_size > 1000


def test_picture_of_an_unknown_kind(shop: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shop\.doc: a picture ends in \.png, \.svg, \.pdf"):
        describe(shop).picture(tmp_path / "shop.doc")


@pytest.mark.realdata
def test_real_movielens(real_data: Path) -> None:
    rows = np.loadtxt(real_data / "ml-100k" / "u.data", dtype=np.int64)
    rows = rows[np.lexsort((rows[:, 3], rows[:, 0]))]
    counts = np.bincount(rows[:, 0], minlength=944)
    dataset = Dataset(
        items=rows[:, 1].astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        users=Vocabulary(pl.Series(range(1, 944), dtype=pl.Int64)),
        catalogue=Vocabulary(pl.Series(range(1, 1683), dtype=pl.Int64)),
        times=rows[:, 3],
        ratings=rows[:, 2].astype(np.float32),
        time_unit="s",
    )
    found = describe(dataset)
    assert (found.users, found.items, found.interactions) == (943, 1682, 100_000)
    assert (found.lengths.min, found.lengths.max, found.item_lengths.max) == (20, 737, 583)
    assert found.repeats == 0
    assert found.times is not None and found.ratings is not None
    assert found.times.first.startswith("1997-09-20") and found.times.last.startswith("1998-04-22")
    assert found.ratings.distribution == {"1": 6110, "2": 11370, "3": 27145, "4": 34174, "5": 21201}
