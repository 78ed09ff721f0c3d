from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue import prepare, read
from segue.data.dataset import Dataset
from segue.data.ragged import offsets_of
from segue.errors import ConfigError, DataError

Rows = list[tuple[Any, ...]]
DAY = 86_400


def frame(rows: Rows, *columns: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=list(columns), orient="row")


def baskets(dataset: Dataset) -> dict[Any, list[list[Any]]]:
    """The raw items of the visible sessions of each user."""
    sessions = dataset.sessions
    found: dict[Any, list[list[Any]]] = {}
    for user, start, end in zip(sessions.users, sessions.starts, sessions.ends, strict=True):
        items = dataset.catalogue.decode(dataset.items[start:end]).to_list()
        found.setdefault(dataset.users.ids[int(user) - 1], []).append(items)
    return found


def small() -> Dataset:
    rows = [("a", 1, 10), ("a", 2, 10), ("a", 3, 20), ("b", 1, 5), ("b", 2, 30), ("b", 3, 30), ("b", 4, 30)]
    rows += [("c", 4, 1)]
    return prepare(frame([(*row, row[2]) for row in rows], "user", "item", "time", "session"))


# ---- the view ------------------------------------------------------------------------------------------------------


def test_sessions_are_slices_of_histories() -> None:
    data = small()
    assert data.session_offsets is not None
    assert data.session_offsets.tolist() == [0, 2, 3, 4, 7, 8]
    sessions = data.sessions
    assert sessions.users.tolist() == [1, 1, 2, 2, 3]
    assert sessions.lengths.tolist() == [2, 1, 1, 3, 1]
    assert sessions.counts.tolist() == [0, 2, 2, 1]
    assert sessions.offsets.tolist() == [0, 0, 2, 4, 5]
    assert sessions.items is data.items
    assert repr(sessions) == "Sessions(5 sessions of 3 users)"
    assert baskets(data) == {"a": [[1, 2], [3]], "b": [[1], [2, 3, 4]], "c": [[4]]}


def test_a_view_shows_the_sessions_before_its_ends() -> None:
    data = small()
    view = data.until(data.ends - np.array([0, 1, 2, 1]))
    assert baskets(view) == {"a": [[1, 2]], "b": [[1], [2]]}, "the session in which the view ends is cut"
    assert view.sessions.counts.tolist() == [0, 1, 2, 0]
    assert baskets(view.compact()) == baskets(view)
    assert view.compact().session_offsets.tolist() == [0, 2, 3, 4]  # type: ignore[union-attr]
    assert view.fingerprint != data.fingerprint
    assert baskets(data.before(20)) == {"a": [[1, 2]], "b": [[1]], "c": [[4]]}


def test_without_sessions_the_way_to_them_is_told() -> None:
    data = prepare(frame([("a", 1, 1)], "user", "item", "time"))
    assert data.session_offsets is None
    with pytest.raises(DataError, match=r"no sessions: prepare it .* session_gap=1800"):
        data.sessions  # noqa: B018


def test_sessions_count_in_the_fingerprint_alone() -> None:
    rows = [("a", 1, 1), ("a", 2, 2), ("a", 3, 2)]
    one, day, none = (
        prepare(frame(rows, "user", "item", "time"), sessions=sessions, session_gap=gap)  # type: ignore[arg-type]
        for sessions, gap in ((None, 0.5), ("day", None), ("none", None))
    )
    assert len({one.fingerprint, day.fingerprint, none.fingerprint}) == 3
    assert np.array_equal(one.items, none.items)


def test_saved_and_opened(tmp_path: Any) -> None:
    data = small()
    view = data.until(data.ends - np.array([0, 1, 0, 0]))
    view.save(tmp_path / "view")
    opened = Dataset.open(tmp_path / "view")
    assert baskets(opened) == baskets(view)
    assert opened.fingerprint == view.compact().fingerprint
    plain = prepare(frame([("a", 1, 1)], "user", "item", "time"), out=tmp_path / "plain")
    assert plain.session_offsets is None
    assert not (tmp_path / "plain" / "session_offsets.npy").exists()


def test_an_altered_file_of_sessions_is_found(tmp_path: Any) -> None:
    from segue.errors import StorageError
    from tests.helpers import alter

    small().save(tmp_path / "data")
    alter(tmp_path / "data" / "session_offsets.npy", -1)
    with pytest.raises(StorageError, match=r"session_offsets\.npy does not match"):
        Dataset.open(tmp_path / "data")


def test_frames_number_sessions_and_make_the_same_dataset_again() -> None:
    data = small()
    shown = data.to_frame()
    assert shown["session"].to_list() == [1, 1, 2, 1, 2, 2, 2, 1]
    assert prepare(shown).fingerprint == data.fingerprint
    view = data.until(data.ends - np.array([0, 1, 0, 0]))
    assert view.to_frame()["session"].to_list() == [1, 1, 1, 2, 2, 2, 1]


# ---- by column -----------------------------------------------------------------------------------------------------


def test_a_column_is_found_by_its_name_or_named() -> None:
    rows = [("a", 1, 1, "x", "p"), ("a", 2, 2, "x", "q"), ("a", 3, 3, "y", "q")]
    table = frame(rows, "user", "item", "time", "sessionId", "basket")
    assert read(table).columns["session"] == "sessionId"
    assert baskets(prepare(table)) == {"a": [[1, 2], [3]]}
    assert baskets(prepare(read(table, session="basket"))) == {"a": [[1], [2, 3]]}
    assert "session" not in read(table, session=False).columns
    assert prepare(table, sessions="none").session_offsets is None
    assert "session" not in prepare(table, sessions="none").metadata["columns"]


def test_the_column_of_users_is_not_that_of_sessions_too() -> None:
    table = frame([("a", 1, 1)], "session_id", "item", "time")
    assert read(table, user="session_id").columns == {"user": "session_id", "item": "item", "time": "time"}


def test_columns_by_position(write_file: Any) -> None:
    path = write_file("log.csv", "a,7,9,1500000000\na,8,9,1500000001\na,9,10,1500000002\n")
    log = read(path, user=0, item=1, session=2, time=3)
    assert baskets(prepare(log)) == {"a": [[7, 8], [9]]}


def test_equal_times_keep_sessions_together() -> None:
    """Days for times: the items of two orders of one day stand mixed in the log."""
    rows = [("a", 1, 5, "x"), ("a", 2, 5, "y"), ("a", 3, 5, "x"), ("a", 4, 6, "y"), ("a", 5, 4, "z")]
    assert baskets(prepare(frame(rows, "user", "item", "time", "session"))) == {"a": [[5], [1, 3], [2, 4]]}


def test_without_times_sessions_come_in_the_order_of_the_log() -> None:
    rows = [("a", 1, "y"), ("b", 1, "x"), ("a", 2, "x"), ("a", 3, "y")]
    assert baskets(prepare(frame(rows, "user", "item", "session"))) == {"a": [[1, 3], [2]], "b": [[1]]}


def test_overlapping_sessions_are_divided_and_it_is_said() -> None:
    rows = [("a", 1, 1, "x"), ("a", 2, 2, "y"), ("a", 3, 3, "x"), ("a", 4, 4, "y")]
    with pytest.warns(UserWarning, match="overlap in time: they were divided 2 times"):
        data = prepare(frame(rows, "user", "item", "time", "session"))
    assert baskets(data) == {"a": [[1], [2], [3], [4]]}
    assert len(data.metadata["notes"]) == 1
    assert (np.diff(data.times) > 0).all()  # type: ignore[arg-type]


def test_a_missing_session_is_named_with_the_way_out() -> None:
    rows = [("a", 1, 1, "x"), ("a", 2, 2, None)]
    with pytest.raises(DataError, match=r"row 2: the session .* is missing.* session=False"):
        prepare(frame(rows, "user", "item", "time", "session"))


# ---- by pause, by day ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_pause_ends_a_session_in_any_unit(unit: str) -> None:
    second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    start = 1_700_000_000
    moments = [start, start + 1800, start + 3601, start + 3602]
    log = frame([("a", n, moment * second) for n, moment in enumerate(moments)], "user", "item", "time")
    assert baskets(prepare(log, session_gap=1800)) == {"a": [[0, 1], [2, 3]]}, "longer than the gap, not as long"


def test_users_never_share_a_session() -> None:
    rows = [("a", 1, 10), ("b", 2, 10), ("b", 3, 11), ("c", 1, 11)]
    assert baskets(prepare(frame(rows, "user", "item", "time"), session_gap=100)) == {
        "a": [[1]],
        "b": [[2, 3]],
        "c": [[1]],
    }


def test_days_are_those_of_the_calendar() -> None:
    times = ["2024-05-01T00:00:00", "2024-05-01T23:59:59", "2024-05-02T00:00:00", "1969-12-31T12:00:00"]
    log = frame([("a", n, time) for n, time in enumerate(times)], "user", "item", "time")
    assert baskets(prepare(log, sessions="day")) == {"a": [[3], [0, 1], [2]]}


def test_sessions_are_found_before_items_are_filtered() -> None:
    """An item that the core drops still holds the session together that it stood in."""
    rows = [("a", 1, 0), ("a", 9, 10), ("a", 2, 20), ("b", 1, 0), ("b", 2, 30)]
    data = prepare(frame(rows, "user", "item", "time"), session_gap=15, min_per_item=2)
    assert baskets(data) == {"a": [[1, 2]], "b": [[1], [2]]}
    gone = prepare(frame([*rows, ("a", 8, 50)], "user", "item", "time"), session_gap=15, min_per_item=2)
    assert baskets(gone) == baskets(data), "a session with nothing left is none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": "week"}, "expected column, day, none"),
        ({"sessions": "day", "session_gap": 5}, "two rules"),
        ({"sessions": "column"}, "needs a column of sessions"),
        ({"session_gap": 0}, "more than 0"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(frame([("a", 1, 1)], "user", "item", "time"), **options)


def test_gaps_and_days_need_times() -> None:
    with pytest.raises(ConfigError, match="need times"):
        prepare(frame([("a", 1)], "user", "item"), sessions="day")


LOGS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=40
)


@settings(deadline=None, max_examples=60)
@given(LOGS, st.integers(1, 4))
def test_gaps_against_a_loop(rows: Rows, gap: int) -> None:
    data = prepare(frame(rows, "user", "item", "time", "x"), session_gap=gap, duplicates="keep")
    expected: dict[int, list[list[int]]] = {}
    last: dict[int, int] = {}
    for user, item, time, _ in sorted(rows, key=lambda row: (row[0], row[2])):
        if user not in last or time - last[user] > gap:
            expected.setdefault(user, []).append([])
        expected[user][-1].append(item)
        last[user] = time
    assert baskets(data) == expected


@settings(deadline=None, max_examples=60)
@given(LOGS)
@pytest.mark.filterwarnings("ignore:.*overlap")
def test_columns_against_a_loop(rows: Rows) -> None:
    data = prepare(frame(rows, "user", "item", "time", "session"), duplicates="keep")
    begin: dict[tuple[int, int], tuple[int, int]] = {}
    for place, (user, _, time, session) in enumerate(rows):
        begin[user, session] = min(begin.get((user, session), (time, place)), (time, place))
    order = sorted(rows, key=lambda row: (row[0], row[2], begin[row[0], row[3]]))
    expected: dict[int, list[list[int]]] = {}
    before: Any = None
    for user, item, _, session in order:
        if before != (user, session):
            expected.setdefault(user, []).append([])
        expected[user][-1].append(item)
        before = user, session
    assert baskets(data) == expected


def test_many_partitions_make_the_same_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"user": rng.integers(0, 50, 2000), "item": rng.integers(0, 30, 2000)})
    table = table.with_columns(time=pl.Series(rng.integers(0, 10**6, 2000)))
    whole = prepare(table, session_gap=9000)
    monkeypatch.setattr("segue.data.preparing.partitions._PARTITION", 100)
    monkeypatch.setattr("segue.data.spool.CHUNK", 64)
    parts = prepare(table, session_gap=9000)
    assert parts.fingerprint == whole.fingerprint
    assert whole.session_offsets is not None
    lengths = np.diff(whole.session_offsets)
    assert lengths.min() >= 1
    assert np.array_equal(offsets_of(lengths), whole.session_offsets)
    assert np.isin(whole.offsets, whole.session_offsets).all()
