"""Sources of histories: a Dataset, a Dataset with newer events on top, and frames of histories.

All of them give items, times and sessions, so every model reads them alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.order import time_order
from segue.data.preparing.prepare import prepare
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.reading.read import Log, open_source
from segue.data.sessions import UNITS_PER_SECOND, converted
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


class HistorySource(Protocol):
    """Source of the histories of users, by user code. A Dataset is one."""

    @property
    def users(self) -> Vocabulary:
        """Vocabulary of the users with a history."""
        ...

    @property
    def catalogue(self) -> Vocabulary:
        """Vocabulary of the items."""
        ...

    @property
    def has_times(self) -> bool:
        """True if every interaction has a time."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the visible interactions."""
        ...

    def timestamp(self, moment: int | float) -> int:
        """Time in the unit of the source, from seconds since 1970."""
        ...

    def histories(self, users: Int64) -> Histories:
        """Histories of user codes (n,); empty for code 0."""
        ...

    def before(self, time: int) -> HistorySource:
        """The same source with only the interactions before `time`, in its own unit."""
        ...


@dataclass(frozen=True, eq=False)
class Events:
    """Interactions from outside a Dataset, in its item codes and its unit of time, sorted by user and time.

    Attributes
    ----------
    ids
        (n,) raw ids of the users.
    items
        (m,) int32 item codes.
    offsets
        (n + 1,) int64 first event of each user, and the end of the last.
    times
        (m,) int64, or None if the Dataset has none.
    session_offsets
        (any,) int64 first event of each session, and the end of the last; None if the Dataset has none.
    unknown
        Distinct raw ids of the items that are not in the catalogue; their events are left out.
    """

    ids: pl.Series
    items: npt.NDArray[np.int32]
    offsets: Int64
    times: npt.NDArray[np.int64] | None
    session_offsets: Int64 | None
    unknown: pl.Series

    def select(self, kept: npt.NDArray[np.bool_]) -> Events:
        """Events of the mask `kept` (m,); users without events are kept too."""
        before = np.concatenate([[0], np.cumsum(kept)])
        sessions = self.session_offsets
        return replace(
            self,
            items=self.items[kept],
            offsets=before[self.offsets],
            times=None if self.times is None else self.times[kept],
            session_offsets=None if sessions is None else np.unique(before[sessions]),
        )


def events_of(dataset: Dataset, frame: Any, *, need_times: bool = True) -> Events:
    """Read a log or a frame with `user, item[, time][, session]` for a Dataset, as `segue.prepare` does.

    If the Dataset has sessions and the frame has none, the rule of the Dataset's preparation divides the events into
    sessions. Without a rule, the events of a user are one session.

    Parameters
    ----------
    dataset
        Gives item codes, the unit of time and the rule of sessions.
    frame
        A log or a frame of any library.
    need_times
        Refuse a frame without times if the Dataset has times.

    Raises
    ------
    DataError
        The frame cannot be read, or it lacks the times that the Dataset has.
    """
    # A frame without times is either in order or an error: no warning is needed.
    opened = frame if isinstance(frame, Log) else open_source(frame, quiet=True)
    arrived = prepare(opened, duplicates="keep", **session_options(dataset, frame))
    if need_times and dataset.times is not None and arrived.times is None:
        raise DataError(
            "the events have no times, and the Dataset has: add a column of times, such as 'timestamp', so that the "
            "order of both together is known."
        )
    codes = np.concatenate([[0], dataset.catalogue.encode(arrived.catalogue.ids)])
    items = codes[arrived.items].astype(np.int32)
    times = None
    if dataset.times is not None and arrived.times is not None:
        times = converted(arrived.times, arrived.time_unit or "s", dataset.time_unit or "s")
    sessions = None
    if dataset.session_offsets is not None:
        sessions = arrived.offsets[1:] if arrived.session_offsets is None else arrived.session_offsets
        sessions = np.unique(np.concatenate([[0], sessions]))
    unknown = arrived.catalogue.ids.filter(pl.Series(codes[1:] == 0, dtype=pl.Boolean))
    return Events(arrived.users.ids, items, arrived.offsets[1:], times, sessions, unknown).select(items > 0)


def session_options(dataset: Dataset, frame: Any) -> dict[str, Any]:
    """Options of `prepare` that divide events into sessions by the rule of the Dataset."""
    rule = dict(dataset.metadata.get("options") or {}).get("sessions")
    names = [str(name).lower() for name in getattr(frame, "column_names", getattr(frame, "columns", []))]
    if dataset.session_offsets is None:
        return {"sessions": "none"}
    if rule is None or any("session" in name for name in names):
        return {}
    second = UNITS_PER_SECOND[dataset.time_unit or "s"]
    return {"day": {"sessions": "day"}, "gap": {"session_gap": rule.get("gap", 0) / second}}.get(rule["kind"], {})


@dataclass(frozen=True, eq=False)
class RecentEvents:
    """Source of histories with newer events on top of another source. `Recommender.with_events` makes it.

    A history holds the interactions of the base and the events, in order of time if there are times. Users that are
    new to the base have codes behind its own; to models they are unknown.

    Attributes
    ----------
    base
        A Dataset, or another source with events.
    events
        The newer interactions.
    """

    base: HistorySource
    events: Events

    @property
    def catalogue(self) -> Vocabulary:
        """Vocabulary of the items."""
        return self.base.catalogue

    @property
    def has_times(self) -> bool:
        """True if every interaction has a time."""
        return self.base.has_times

    @cached_property
    def users(self) -> Vocabulary:
        """Users of the base, then the users that only the events have."""
        return self.base.users.extended(self.events.ids)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the base and the events."""
        digest = hashlib.sha256(self.base.fingerprint.encode())
        for array in (self._rows, self.events.items, self.events.offsets, self.events.times):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def on(self, dataset: Dataset) -> RecentEvents:
        """The same events on top of a Dataset with the same item codes."""
        return RecentEvents(self.base.on(dataset) if isinstance(self.base, RecentEvents) else dataset, self.events)

    def timestamp(self, moment: int | float) -> int:
        """Time in the unit of the source, from seconds since 1970."""
        return self.base.timestamp(moment)

    def before(self, time: int) -> RecentEvents:
        """The same source with only the interactions before `time`."""
        assert self.events.times is not None
        return RecentEvents(self.base.before(time), self.events.select(self.events.times < time))

    def histories(self, users: Int64) -> Histories:
        """Histories of user codes (n,), in new arrays."""
        events = self.events
        stored = self.base.histories(np.where(users <= len(self.base.users), users, 0))
        rows = self._rows[users]
        starts = np.where(rows >= 0, events.offsets[rows], 0)
        ends = np.where(rows >= 0, events.offsets[rows + 1], 0)
        old, new = positions(stored.starts, stored.ends), positions(starts, ends)
        row = np.concatenate([rows_of(stored.starts, stored.ends), rows_of(starts, ends)])
        items = np.concatenate([stored.items[old], events.items[new]])
        times = None
        if stored.times is not None and events.times is not None:
            times = np.concatenate([stored.times[old], events.times[new]])
        begins = None
        if stored.session_offsets is not None and events.session_offsets is not None:
            begins = np.concatenate(
                [_starts_session(stored.session_offsets, old), _starts_session(events.session_offsets, new)],
            )
        order = time_order(row, times)
        if order is not None:
            items, times = items[order], None if times is None else times[order]
            begins = None if begins is None else begins[order]
        offsets = offsets_of(stored.lengths + ends - starts)
        sessions = None
        if begins is not None:
            sessions = np.unique(np.concatenate([offsets, np.flatnonzero(begins)]))
        return Histories(stored.users, items, offsets[:-1], offsets[1:], times, session_offsets=sessions)

    @cached_property
    def _rows(self) -> Int64:
        """Row of each user code in the events; -1 for users without events."""
        rows = np.full(len(self.users) + 1, -1, dtype=np.int64)
        rows[self.users.encode(self.events.ids)] = np.arange(len(self.events.ids))
        return rows


def _starts_session(session_offsets: Int64, item_positions: Int64) -> npt.NDArray[np.bool_]:
    """Mask (n,) of the positions at which a session begins."""
    return np.asarray(session_offsets[np.searchsorted(session_offsets, item_positions)] == item_positions)


def given_histories(dataset: Dataset, source: HistorySource, frame: Any) -> tuple[pl.Series, Histories, pl.Series]:
    """Histories from a frame, in place of the stored ones.

    Parameters
    ----------
    dataset
        Gives the item codes, the unit of time and the rule of sessions.
    source
        Gives the user codes.
    frame
        A log or a frame with `user, item[, time][, session]`.

    Returns
    -------
    ids
        (n,) raw ids of the users, in their sorted order.
    histories
        n histories.
    unknown
        Raw ids of the items that were left out.
    """
    events = events_of(dataset, frame, need_times=False)
    codes = source.users.encode(events.ids)
    users = np.where(codes <= dataset.n_users, codes, 0)
    histories = Histories(
        users, events.items, events.offsets[:-1], events.offsets[1:], events.times, None, events.session_offsets
    )
    return events.ids, histories, events.unknown


def is_frame(value: Any) -> bool:
    """True for a frame of any library or a log, False for mappings and sequences of lists."""
    if isinstance(value, pl.LazyFrame) or type(value).__name__ == "Log":  # columns of a lazy frame cost a warning
        return True
    return not isinstance(value, Mapping) and hasattr(value, "columns")
