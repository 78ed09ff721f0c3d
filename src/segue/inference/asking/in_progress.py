"""Sessions in progress: baskets appended to the histories of their users, in flat arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of


def append_baskets(histories: Histories, baskets: Histories) -> Histories:
    """Append to each of n histories the session in progress of its user, one of n baskets."""
    extended = reserve_slots(histories, baskets.lengths)
    ends = extended.ends + baskets.lengths
    extended.items[positions(extended.ends, ends)] = baskets.seen()[1]
    return replace(extended, ends=ends)


def reserve_slots(histories: Histories, slots: Int64) -> Histories:
    """Copy n histories into new arrays, with `slots` (n,) free slots behind each.

    Every user gets a session in progress; it is empty for users that had none. A free slot has the time of the
    question, or of the newest item if the question is asked now. Session offsets refer to the new array: each history
    and each session in progress begins a session.
    """
    offsets = offsets_of(histories.lengths + slots)
    starts = offsets[:-1]
    shift = starts - histories.starts
    new, old = positions(starts, histories.ends + shift), positions(histories.starts, histories.ends)
    items = np.zeros(offsets[-1], dtype=np.int32)
    items[new] = histories.items[old]
    times = None
    if histories.times is not None:
        times = np.zeros(offsets[-1], dtype=np.int64)
        times[new] = histories.times[old]
        times[positions(histories.ends + shift, offsets[1:])] = np.repeat(_times_of_new_items(histories), slots)
    baskets = (histories.ends if histories.baskets is None else histories.baskets) + shift
    sessions = histories.session_offsets
    if sessions is not None:
        first, last = np.searchsorted(sessions, histories.starts), np.searchsorted(sessions, histories.ends)
        begins = sessions[positions(first, last)] + shift[rows_of(first, last)]
        sessions = np.unique(np.concatenate([starts, begins, baskets, offsets[-1:]]))
    return Histories(histories.users, items, starts, histories.ends + shift, times, baskets, sessions, histories.as_of)


def sessions_in_progress(histories: Histories) -> Histories | None:
    """Histories cut to the items of the session in progress; None if no user has one."""
    return None if histories.baskets is None else replace(histories, starts=histories.baskets)


def _times_of_new_items(histories: Histories) -> Int64:
    """Times (n,) of items that are added now: the time of the question, or of the newest item if that is later."""
    assert histories.times is not None
    if not len(histories.times):
        return np.zeros(len(histories), dtype=np.int64) if histories.as_of is None else histories.as_of
    newest = np.where(histories.lengths > 0, histories.times[np.maximum(histories.ends - 1, 0)], 0)
    return newest if histories.as_of is None else np.maximum(newest, histories.as_of)
