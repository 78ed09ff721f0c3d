"""Histories of users as they are now: the interactions of a Dataset, and the stored events on top.

Events stand in flat arrays, sorted by user, like the interactions of a Dataset. The newest ones stand in short lists by
user until there are many; then another thread merges them into new arrays. Reading takes no lock.
"""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.order import time_order
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.sessions import UNITS_PER_SECOND
from segue.data.vocabulary import Vocabulary
from segue.serving.arrivals import Arrivals
from segue.serving.store.base import RETRACTED, TOOK, Change, TookPart

_MERGED = 100_000
"""Newest events that are merged into the arrays."""

_MICROSECONDS = 1_000_000

FEW_IDS = 32
"""Ids for which `codes_of` is faster than `Vocabulary.encode`."""

_DIGITS = 21
_NO_INTEGER = 2**64
"""Longest text of an integer, and one that has more than 64 bits."""


class _Sorted(NamedTuple):
    """Events sorted by user, in the order of arrival within a user; item 0 = taken back.

    Attributes
    ----------
    offsets
        (codes + 2,) int64: the events of user code u are `offsets[u]` … `offsets[u + 1] - 1`.
    items
        (n,) int32 item codes.
    times
        (n,) int64, in the unit of the Dataset; empty if it has no times.
    sessions
        (n,) int64 numbers of sessions, 0 = none given; empty if the Dataset has no sessions.
    """

    offsets: Int64
    items: npt.NDArray[np.int32]
    times: Int64
    sessions: Int64


_Newest = dict[int, list[tuple[int, int, int]]]
"""Item, time and session of the newest events by user code."""


@dataclass
class _State:
    """Everything that a reader needs, replaced as a whole."""

    events: _Sorted
    merging: _Newest = field(default_factory=dict)
    newest: _Newest = field(default_factory=dict)


class LiveUsers(Vocabulary):
    """Users of a Dataset, then users that only the events have, in the order of their arrival.

    Parameters
    ----------
    base
        Users of the Dataset.
    """

    def __init__(self, base: Vocabulary) -> None:
        self.ids = base.ids
        self.base = base
        self.arrived = Arrivals(len(base) + 1)

    def __len__(self) -> int:
        return len(self.base) + len(self.arrived)

    def encode(self, ids: Iterable[Any]) -> Int64:
        """Codes (n,) of raw ids; 0 for ids that neither the Dataset nor the events have."""
        ids = ids if isinstance(ids, pl.Series) else list(ids)
        codes = self.base.encode(ids)
        if self.arrived and not codes.all():
            for row in np.flatnonzero(codes == 0).tolist():
                codes[row] = self.arrived.get(str(ids[row]), 0)
        return codes

    def codes_of(self, texts: Sequence[str]) -> Int64:
        """Codes (n,) of a few raw ids as texts, as by `encode`, in a fraction of its time."""
        codes = codes_of(self.base, texts)
        if self.arrived:
            for row in np.flatnonzero(codes == 0).tolist():
                codes[row] = self.arrived.get(texts[row], 0)
        return codes

    def add_few(self, texts: Sequence[str]) -> Int64:
        """Codes (n,) of a few raw ids as texts, as by `add`."""
        codes = codes_of(self.base, texts)
        for row in np.flatnonzero(codes == 0).tolist():
            codes[row] = self.arrived.number(texts[row])
        return codes

    def add(self, texts: pl.Series) -> Int64:
        """Codes (n,) of raw ids as texts; unknown ones get the next codes."""
        codes = self.base.encode(texts)
        unknown = np.flatnonzero(codes == 0)
        codes[unknown] = self.arrived.numbers(texts.gather(unknown))
        return codes


class LiveHistories:
    """Histories of a Dataset with stored events on top. It is a `HistorySource` without an end.

    One thread adds changes, in the order of the store; any number of threads read.

    Parameters
    ----------
    dataset
        Gives the vocabularies, the older interactions, the unit of time and the rule of sessions.

    Attributes
    ----------
    on_change
        Called with a user code after each change of the user's history.
    reads_times, reads_sessions
        True if the times and the sessions of events are kept.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.on_change: Callable[[int], None] = lambda _: None
        self.users = LiveUsers(dataset.users)
        self.last = 0
        self.unknown_items = 0
        self._arrived_items = Arrivals(1)
        self.reads_times = dataset.times is not None
        self.reads_sessions = dataset.session_offsets is not None
        self._unit = _MICROSECONDS // UNITS_PER_SECOND[dataset.time_unit or "s"]
        self._rule = dict(dict(dataset.metadata.get("options") or {}).get("sessions") or {})
        self._session_numbers = Arrivals(1)
        self._state = _State(self._sorted([], [], [], [], 0))
        self._pending = 0
        self._forgotten: dict[int, int] = {}
        self._versions: dict[int, int] = {}
        self._changing = threading.RLock()
        self._newest_stored: Int64 | None = None

    # ---- changes ------------------------------------------------------------------------------------------------

    @property
    def n_events(self) -> int:
        """Number of events on top of the Dataset."""
        return len(self._state.events.items) + self._pending - self.unknown_items

    def load(self, parts: Iterable[TookPart]) -> None:
        """Add the events of an empty state, part by part; much faster than `apply` for millions of events."""
        collecting = gc.isenabled()
        gc.disable()  # rows hold no cycles, and looking for them would take most of the time
        try:
            self._load(parts)
        finally:
            if collecting:
                gc.enable()

    def _load(self, parts: Iterable[TookPart]) -> None:
        users: list[Int64] = []
        columns: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for part in _read_ahead(parts):
            self.last = part.last
            codes, *values = self._encoded(part)
            self.unknown_items += int((values[0] < 0).sum())
            users.append(codes)
            for column, value in zip(columns, values, strict=True):
                column.append(value)
        self._state = _State(self._sorted(users, *columns, len(self.users)))
        for arrived in (self.users.arrived, self._arrived_items, self._session_numbers):
            arrived.settle()

    def leave_out(self, user: str, time: int) -> None:
        """Leave out the interactions of the Dataset before a time (microseconds since 1970), of a forgotten user."""
        code = int(self.dataset.users.encode([user])[0])
        if code:
            self._forgotten[code] = self._in_units(time)

    def apply(self, changes: Sequence[Change]) -> None:
        """Add changes; the next history of their users has them."""
        plain: list[Change] = []
        for change in changes:
            if change.kind == TOOK:
                plain.append(change)
                continue
            self._append(plain)
            plain = []
            if change.kind == RETRACTED:
                self._retract(change)
            else:
                self._forget(change)
        self._append(plain)
        if changes:
            self.last = max(self.last, changes[-1].seq)
        if self._pending >= _MERGED and not self._state.merging:
            state = self._state
            self._state = _State(state.events, state.newest, {})
            self._pending = 0
            threading.Thread(target=self._merge, name="segue-merge", daemon=True).start()

    def _append(self, changes: list[Change]) -> None:
        if not changes:
            return
        if len(changes) <= FEW_IDS:
            codes, items, times, sessions = self._encoded_few(changes)
        else:
            rows_taken = [(change.user, change.item, change.session or "", change.time) for change in changes]
            codes, items, times, sessions = self._encoded(TookPart.of_rows(changes[-1].seq, rows_taken))
        newest = self._state.newest
        zeros = [0] * len(changes)
        rows = zip(
            codes.tolist(),
            items.tolist(),
            times.tolist() if self.reads_times else zeros,
            sessions.tolist() if self.reads_sessions else zeros,
            strict=True,
        )
        for code, item, time, session in rows:
            newest.setdefault(code, []).append((item, time, session))
            self._pending += 1
            self.unknown_items += item < 0
            self._changed(code)

    def _encoded(self, part: TookPart) -> tuple[Int64, Int64, Int64, Int64]:
        """Codes of users and items, times and numbers of sessions, each (n,); the last two empty if not needed.

        Items that are not in the catalogue have codes below 0. No history shows them until the catalogue has them.
        """
        codes = self.users.add(part.users)
        items = self.dataset.catalogue.encode(part.items)
        unknown = np.flatnonzero(items == 0)
        items[unknown] = -self._arrived_items.numbers(part.items.gather(unknown))
        times = sessions = np.zeros(0, dtype=np.int64)
        if self.reads_times:
            times = self._in_units(part.times)
        if self.reads_sessions:
            given = np.flatnonzero((part.sessions != "").to_numpy())
            sessions = np.zeros(len(part.sessions), dtype=np.int64)
            sessions[given] = self._session_numbers.numbers(part.sessions.gather(given))
        return codes, items, times, sessions

    def _encoded_few(self, changes: list[Change]) -> tuple[Int64, Int64, Int64, Int64]:
        """Like `_encoded`, for a few changes."""
        texts = [change.item for change in changes]
        codes = self.users.add_few([change.user for change in changes])
        items = codes_of(self.dataset.catalogue, texts)
        for row in np.flatnonzero(items == 0).tolist():
            items[row] = -self._arrived_items.number(texts[row])
        times = sessions = np.zeros(0, dtype=np.int64)
        if self.reads_times:
            times = self._in_units(np.array([change.time for change in changes], dtype=np.int64))
        if self.reads_sessions:
            number = self._session_numbers.number
            given = [number(change.session) if change.session else 0 for change in changes]
            sessions = np.array(given, dtype=np.int64)
        return codes, items, times, sessions

    def _in_units(self, times: Any) -> Any:
        """Times in the unit of the Dataset, from microseconds; rounded down."""
        return times // self._unit if self._unit else times * (UNITS_PER_SECOND["ns"] // _MICROSECONDS)

    def _retract(self, change: Change) -> None:
        """Take back one event of a user: the newest that is equal."""
        code = int(self.users.encode([change.user])[0])
        item = int(self.dataset.catalogue.encode([change.item])[0]) or -self._arrived_items.get(change.item, 0)
        if not code or not item:
            return
        time = self._in_units(change.time) if self.reads_times else 0
        self._take_back(code, item, time)
        self._changed(code)

    def _take_back(self, code: int, item: int, time: int) -> None:
        """Remove the newest event of a user with an item and a time."""
        with self._changing:
            state = self._state
            for newest in (state.newest, state.merging):
                of_user = newest.get(code, [])
                equal = [row for row, event in enumerate(of_user) if event[:2] == (item, time)]
                if equal:
                    newest[code] = [event for row, event in enumerate(of_user) if row != equal[-1]]
                    return
            events = state.events
            if code + 1 < len(events.offsets):
                first, end = events.offsets[code : code + 2]
                equal_rows = events.items[first:end] == item
                if self.reads_times:
                    equal_rows &= events.times[first:end] == time
                if equal_rows.any():
                    events.items[first + np.flatnonzero(equal_rows)[-1]] = 0

    def _forget(self, change: Change) -> None:
        """Leave out all events of a user, and the interactions of the Dataset before."""
        code = int(self.users.encode([change.user])[0])
        self.last = max(self.last, change.seq)
        if not code:
            return
        with self._changing:
            if code <= self.dataset.n_users:
                self._forgotten[code] = self._in_units(change.time)
            state = self._state
            state.newest.pop(code, None)
            state.merging.pop(code, None)
            events = state.events
            if code + 1 < len(events.offsets):
                events.items[events.offsets[code] : events.offsets[code + 1]] = 0
        self._changed(code)

    def _changed(self, code: int) -> None:
        """Note a change of a user's history, after it was made: readers read the version first."""
        self._versions[code] = self._versions.get(code, 0) + 1
        self.on_change(code)

    def version(self, code: int) -> int:
        """Version of the history of a user code, which every change raises."""
        return self._versions.get(code, 0)

    def _merge(self) -> None:
        """Merge the newest events into new arrays."""
        with self._changing:
            state, n_codes = self._state, len(self.users)
            old, newest = state.events, state.merging
            counts = np.fromiter(map(len, newest.values()), dtype=np.int64, count=len(newest))
            codes = np.repeat(np.fromiter(newest, dtype=np.int64, count=len(newest)), counts)
            added = np.array([event for events in newest.values() for event in events], dtype=np.int64).reshape(-1, 3)
            kept = old.items != 0
            users = rows_of(old.offsets[:-1], old.offsets[1:])[kept]
            merged = self._sorted(
                [users, codes],
                [old.items[kept], added[:, 0]],
                [old.times[kept], added[:, 1]] if self.reads_times else [],
                [old.sessions[kept], added[:, 2]] if self.reads_sessions else [],
                n_codes,
            )
            self._state = _State(merged, {}, self._state.newest)

    def on(self, dataset: Dataset) -> LiveHistories:
        """The same events on a Dataset with more items; events with these items now count.

        Nobody may add changes meanwhile, and from then on they go to the new histories.
        """
        with self._changing:
            known = -np.arange(len(self._arrived_items) + 1, dtype=np.int32)
            if self._arrived_items:
                codes = dataset.catalogue.encode(pl.Series(list(self._arrived_items), dtype=pl.String))
                known[1:] = np.where(codes > 0, codes, known[1:])
            state, code_of = self._state, known.tolist()
            old = state.events
            items = np.where(old.items < 0, known[np.maximum(-old.items, 0)], old.items)
            newest: _Newest = {}
            for part in (state.merging, state.newest):
                for user, rows in part.items():
                    own = [(item if item >= 0 else code_of[-item], time, session) for item, time, session in rows]
                    newest.setdefault(user, []).extend(own)
            live = copy.copy(self)
            live.dataset, live._changing, live._forgotten = dataset, threading.RLock(), dict(self._forgotten)
            live._versions = dict(self._versions)
            live._state = _State(old._replace(items=items), {}, newest)
            live._pending = sum(map(len, newest.values()))
            live.unknown_items = int((items < 0).sum()) + sum(row[0] < 0 for rows in newest.values() for row in rows)
            return live

    @staticmethod
    def _sorted(
        users: Sequence[Int64], items: Sequence[Any], times: Sequence[Any], sessions: Sequence[Any], n_codes: int
    ) -> _Sorted:
        """Events of several parts, sorted by user; within a user in their order."""

        def joined(parts: Sequence[Any], dtype: Any) -> Any:
            return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)

        codes = joined(users, np.int64)
        columns = [joined(items, np.int32), joined(times, np.int64), joined(sessions, np.int64)]
        order = time_order(codes, None)
        if order is not None:
            columns = [column[order] if len(column) else column for column in columns]
        return _Sorted(offsets_of(np.bincount(codes, minlength=n_codes + 1)), *columns)

    # ---- histories ----------------------------------------------------------------------------------------------

    @property
    def catalogue(self) -> Vocabulary:
        """Vocabulary of the items."""
        return self.dataset.catalogue

    @property
    def has_times(self) -> bool:
        """True if every interaction has a time."""
        return self.dataset.has_times

    @property
    def fingerprint(self) -> str:
        """Hash of the Dataset and the number of the last change."""
        return f"{self.dataset.fingerprint}-{self.last}"

    def timestamp(self, moment: int | float) -> int:
        """Time in the unit of the Dataset, from seconds since 1970."""
        return self.dataset.timestamp(moment)

    def before(self, time: int) -> EarlierHistories:
        """The same source with only the interactions before `time`, in the unit of the Dataset."""
        return EarlierHistories(self, time)

    def histories(self, users: Int64) -> Histories:
        """Histories of user codes (n,), in new arrays; the user code is 0 for users unknown to the model."""
        state, dataset = self._state, self.dataset
        known = np.where(users <= dataset.n_users, users, 0)
        starts, ends = dataset.starts[known], dataset.ends[known]
        if self._forgotten:
            known, starts = self._without_forgotten(known, starts, ends)
        events = state.events
        inside = np.where(users + 1 < len(events.offsets), users, 0)
        first, last = events.offsets[inside], events.offsets[inside + 1]
        codes = users.tolist()
        if not (last > first).any() and not any(code in state.newest or code in state.merging for code in codes):
            return Histories(known, dataset.items, starts, ends, dataset.times, session_offsets=dataset.session_offsets)
        lists = [
            state.merging.get(code, ()) + state.newest.get(code, ())  # type: ignore[operator]
            if code in state.merging and code in state.newest
            else state.newest.get(code) or state.merging.get(code) or ()
            for code in codes
        ]
        newest = np.array([event for events_of_user in lists for event in events_of_user], dtype=np.int64).reshape(
            -1, 3
        )
        counts = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        stored, sorted_events = positions(starts, ends), positions(first, last)
        rows = [rows_of(starts, ends), rows_of(first, last), np.repeat(np.arange(len(lists)), counts)]
        items = np.concatenate([dataset.items[stored], events.items[sorted_events], newest[:, 0].astype(np.int32)])
        row = np.concatenate(rows)
        times = sessions = None
        if dataset.times is not None:
            times = np.concatenate([dataset.times[stored], events.times[sorted_events], newest[:, 1]])
        if dataset.session_offsets is not None:
            sessions = np.concatenate(
                [_stored_sessions(dataset.session_offsets, stored), events.sessions[sorted_events], newest[:, 2]]
            )
        is_event = np.arange(len(row)) >= len(stored)
        kept = items > 0
        if times is not None:
            kept &= ~_repeated(row, items, times, is_event)
        if not kept.all():
            row, items, is_event = row[kept], items[kept], is_event[kept]
            times = None if times is None else times[kept]
            sessions = None if sessions is None else sessions[kept]
        order = time_order(row, times)
        if order is not None:
            row, items, is_event = row[order], items[order], is_event[order]
            times = None if times is None else times[order]
            sessions = None if sessions is None else sessions[order]
        offsets = offsets_of(np.bincount(row, minlength=len(users)))
        begins = None if sessions is None else self._session_offsets(row, sessions, times, is_event, offsets)
        return Histories(known, items, offsets[:-1], offsets[1:], times, session_offsets=begins)

    def _without_forgotten(self, known: Int64, starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
        """Known user codes and starts of the stored histories, behind the time at which users were forgotten."""
        starts, known = starts.copy(), known.copy()
        for row, code in enumerate(known.tolist()):
            time = self._forgotten.get(code)
            if time is None:
                continue
            start, end = int(starts[row]), int(ends[row])
            times = self.dataset.times
            starts[row] = end if times is None else start + int(np.searchsorted(times[start:end], time))
            if starts[row] == end:
                known[row] = 0
        return known, starts

    def _session_offsets(
        self, row: Int64, sessions: Int64, times: Int64 | None, is_event: npt.NDArray[np.bool_], offsets: Int64
    ) -> Int64:
        """Positions at which sessions begin: where the number changes, or by the rule of the Dataset."""
        begins = np.ones(len(row), dtype=np.bool_)
        begins[1:] = (row[1:] != row[:-1]) | (is_event[1:] != is_event[:-1]) | (sessions[1:] != sessions[:-1])
        kind = self._rule.get("kind")
        if times is not None and kind in ("gap", "day"):
            unnamed = is_event[1:] & (sessions[1:] == 0)
            if kind == "gap":
                apart = np.diff(times) > self._rule["gap"]
            else:
                apart = np.diff(times // int(self._rule.get("day", 86_400))) != 0
            begins[1:] |= unnamed & apart
        return np.unique(np.concatenate([offsets, np.flatnonzero(begins)]))

    def is_stored(self, code: int) -> bool:
        """True if a user code is in the Dataset and was not forgotten."""
        return 0 < code <= self.dataset.n_users and code not in self._forgotten


@dataclass(frozen=True)
class EarlierHistories:
    """Source of histories that end before a time.

    Attributes
    ----------
    source
        Whole histories, with times.
    until
        The time, in the unit of the Dataset.
    """

    source: LiveHistories
    until: int

    @property
    def users(self) -> Vocabulary:
        """Vocabulary of the users."""
        return self.source.users

    @property
    def catalogue(self) -> Vocabulary:
        """Vocabulary of the items."""
        return self.source.catalogue

    @property
    def has_times(self) -> bool:
        """True if every interaction has a time."""
        return self.source.has_times

    @property
    def fingerprint(self) -> str:
        """Hash of the visible interactions."""
        return f"{self.source.fingerprint}-{self.until}"

    def timestamp(self, moment: int | float) -> int:
        """Time in the unit of the Dataset, from seconds since 1970."""
        return self.source.timestamp(moment)

    def before(self, time: int) -> EarlierHistories:
        """The same source, up to the earlier of the two times."""
        return EarlierHistories(self.source, min(time, self.until))

    def histories(self, users: Int64) -> Histories:
        """Histories of user codes (n,) before the time."""
        histories = self.source.histories(users)
        assert histories.times is not None
        rows, where = rows_of(histories.starts, histories.ends), positions(histories.starts, histories.ends)
        late = np.bincount(rows[histories.times[where] >= self.until], minlength=len(users))
        return replace(histories, ends=histories.ends - late)


def codes_of(vocabulary: Vocabulary, texts: Sequence[str]) -> Int64:
    """Codes (n,) of a few raw ids as texts, as by `Vocabulary.encode`, in a fraction of its time."""
    integers = vocabulary.ids.dtype == pl.Int64
    of = vocabulary.code_of
    codes = np.array([of(_plain_integer(text)) if integers else of(text) for text in texts], dtype=np.int64)
    return np.where(vocabulary.forgotten[codes], 0, codes) if vocabulary.has_forgotten else codes


def _plain_integer(text: str) -> int:
    """The integer that a text is, as segue writes it; one that no vocabulary has for any other text."""
    if text.removeprefix("-").isdigit() and text.isascii() and len(text) < _DIGITS:
        number = int(text)
        if str(number) == text:
            return number
    return _NO_INTEGER


def _read_ahead(parts: Iterable[TookPart]) -> Iterator[TookPart]:
    """The same parts; the store reads the next one while a part is used."""
    reading = iter(parts)
    with ThreadPoolExecutor(1, thread_name_prefix="segue-read") as reader:
        following = reader.submit(next, reading, None)
        while (part := following.result()) is not None:
            following = reader.submit(next, reading, None)
            yield part


def _stored_sessions(session_offsets: Int64, where: Int64) -> Int64:
    """Numbers (n,) of the sessions of stored positions, below 0."""
    return -np.searchsorted(session_offsets, where, side="right")


def _repeated(
    row: Int64, items: npt.NDArray[np.int32], times: Int64, is_event: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Mask (n,) of the events that an earlier entry has too, with the same user, item and time.

    A Dataset that was refreshed with exported events holds interactions that are still in the store.
    """
    if not is_event.any():
        return np.zeros(len(row), dtype=np.bool_)
    order = np.lexsort((np.arange(len(row)), times, items, row))
    same = np.zeros(len(row), dtype=np.bool_)
    before, after = order[:-1], order[1:]
    same[after] = (row[before] == row[after]) & (items[before] == items[after]) & (times[before] == times[after])
    return same & is_event
