"""Training units of PARSRec: sessions as sets of items, each with the item counts of its history."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.errors import DataError, TrainingError
from segue.models.negatives import SharedNegatives
from segue.models.next_item import usual_batch
from segue.models.repeats import NO_REPEATS, RepeatBatch, RepeatExamples


class SparseRows(NamedTuple):
    """Sparse matrix in CSR form, as tensors.

    Attributes
    ----------
    offsets
        (rows + 1,) int32 offsets of the rows.
    columns, values
        (m,) int32 and float32; the values are counts.
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor


class SessionBatch(NamedTuple):
    """Batch of b sessions, the longest first.

    Attributes
    ----------
    users
        (b,) int64 user codes.
    items
        (b, length) int64 items of each session in random order, 0 behind the last.
    lengths
        (b,) int64 number of items of each session, descending.
    sizes
        (b,) int64 number of items in each history, with repeats.
    offsets, columns, values
        Item counts of each history, as rows of a sparse matrix (b, n_items + 1) in CSR form. A session without history
        has an empty row.
    item_offsets, item_columns, item_values
        Transpose of this matrix, for the gradient.
    negatives, log_counts
        (k,) int64 shared negatives, and float32 logarithms of their expected counts; (0,) for losses over the whole
        catalogue.
    repeats
        Repeats of the items of the sessions, one row of `items` after the other.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    sizes: Tensor
    offsets: Tensor
    columns: Tensor
    values: Tensor
    item_offsets: Tensor
    item_columns: Tensor
    item_values: Tensor
    negatives: Tensor
    log_counts: Tensor
    repeats: RepeatBatch


class SessionExamples:
    """Training units: one per visible session, also for the first session of a user, which has no history.

    A repeated item counts once in its session, and with its repeats in the histories of later sessions.

    Parameters
    ----------
    dataset
        Training view of a Dataset with sessions.
    history_sessions
        Number of earlier sessions that make the history of a session; all if None.
    history_time
        Longest time from an item of the history to the start of the session, in the Dataset's unit; any if None.
    negatives
        Number of shared negatives; 0 for losses over the whole catalogue.
    in_batch
        Share of the negatives drawn from the sessions of the batch; the others are uniform.
    repeats
        Add the repeats to batches.
    candidates
        (m,) codes of the items that may be negatives; all if None.

    Raises
    ------
    DataError
        The Dataset has no sessions, or `history_time` is given and it has no times.
    TrainingError
        No session is visible.
    """

    def __init__(
        self,
        dataset: Dataset,
        history_sessions: int | None = None,
        history_time: int | None = None,
        negatives: int = 0,
        in_batch: float = 0.0,
        repeats: bool = False,
        candidates: Int64 | None = None,
    ) -> None:
        visible = dataset.compact()
        if history_time is not None and visible.times is None:
            raise DataError(
                f"history_time={history_time} needs times, and this Dataset has none: prepare it from a log with a "
                "column of times, or limit the history with history_sessions."
            )
        sessions = visible.sessions
        if not len(sessions):
            raise TrainingError("no session is visible in the training part: there is nothing to learn.")
        self.users: Int64 = sessions.users
        self.ends = sessions.starts
        self.starts = history_starts(
            visible.starts[sessions.users], sessions.starts, visible.session_offsets, history_sessions
        )
        if history_time is not None and visible.times is not None:
            earliest = visible.times[sessions.starts] - history_time
            self.starts = first_since(visible.times, self.starts, self.ends, earliest)
        self.places, self.offsets = _sets(visible.items, sessions.starts, sessions.ends)
        self.items = visible.items[self.places]
        self.lengths: Int64 = np.diff(self.offsets)
        self.weights: Int64 = self.lengths
        self.usual_batch, self.usual_averaging = 128, 0.0
        self.n_items = visible.n_items
        self.candidates = np.arange(1, self.n_items + 1) if candidates is None else candidates
        self.negatives: SharedNegatives | None = None
        if negatives:
            counts = np.bincount(self.items, minlength=self.n_items + 1)
            self.negatives = SharedNegatives(counts, negatives, in_batch, candidates)
            self.usual_batch = max(128, usual_batch(len(self.lengths), int(self.weights.sum())))
        self.repeats = RepeatExamples(visible, with_hits=True) if repeats else None
        self.user_starts: Int64 = visible.starts[sessions.users]
        # Distinct items of each user, and the index of each interaction among them: `bincount` then counts a history.
        stride = visible.n_items + 1
        keys, slots = np.unique(rows_of(visible.starts, visible.ends) * stride + visible.items, return_inverse=True)
        self._owned = (keys % stride).astype(np.int32)
        self._owned_offsets = np.searchsorted(keys, np.arange(visible.n_users + 2) * stride)
        self._slots = slots.astype(np.int32 if len(keys) < 2**31 else np.int64)

    def batch(self, index: Int64, generator: np.random.Generator) -> SessionBatch:
        """Return the sessions at `index`, with their items in random order."""
        index = index[np.argsort(-self.lengths[index], kind="stable")]
        lengths = self.lengths[index]
        history = self._histories(index)
        sizes = self.ends[index] - self.starts[index]
        rows, places = self._shuffled(index, generator)
        items = np.zeros((len(index), int(lengths.max())), dtype=np.int64)
        items[rows, positions(np.zeros_like(lengths), lengths)] = self.items[places]
        negatives, log_counts = self._negatives(places, generator)
        arrays = (self.users[index], items, lengths, sizes)
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        repeats = NO_REPEATS
        if self.repeats is not None:
            drawn = self.candidates if self.negatives is None else negatives
            histories = self.user_starts[index], self.ends[index]
            repeats = self.repeats.batch(*histories, rows, self.places[places], drawn, generator)
        tensors += [*history, *_transposed(history, self.n_items + 1)]
        return SessionBatch._make([*tensors, torch.from_numpy(negatives), torch.from_numpy(log_counts), repeats])

    def _shuffled(self, index: Int64, generator: np.random.Generator) -> tuple[Int64, Int64]:
        """Rows (m,) and places (m,) in `items` of the items of the sessions, each row in random order."""
        starts, ends = self.offsets[index], self.offsets[index + 1]
        rows = rows_of(starts, ends)
        order = np.lexsort((generator.random(len(rows)), rows))
        return rows, positions(starts, ends)[order]

    def _negatives(self, places: Int64, generator: np.random.Generator) -> tuple[Int64, npt.NDArray[np.float32]]:
        """Shared negatives (k,), and the logarithms of their expected counts."""
        if self.negatives is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        drawn = self.negatives.draw(self.items[places].astype(np.int64), generator)
        return drawn, self.negatives.log_counts(drawn)

    def _histories(self, index: Int64) -> SparseRows:
        """Item counts of the histories of the sessions at `index`."""
        users, starts, ends = self.users[index], self.starts[index], self.ends[index]
        first, last = self._owned_offsets[users], self._owned_offsets[users + 1]
        bases = offsets_of(last - first)
        slots = self._slots[positions(starts, ends)] + np.repeat(bases[:-1] - first, ends - starts)
        counts = np.bincount(slots, minlength=int(bases[-1]))
        nonzero = np.flatnonzero(counts)
        return _sparse(np.searchsorted(nonzero, bases), self._owned[positions(first, last)][nonzero], counts[nonzero])


def history_starts(starts: Int64, ends: Int64, session_offsets: Int64 | None, history_sessions: int | None) -> Int64:
    """Starts (n,) of histories that are limited to a number of whole sessions before `ends`.

    Parameters
    ----------
    starts, ends
        (n,) starts and ends of the unlimited histories. If `session_offsets` are given, each ends between two sessions.
    session_offsets
        Starts of the sessions; without them nothing is limited.
    history_sessions
        Number of sessions; None for all.
    """
    if session_offsets is None or history_sessions is None:
        return starts
    session = np.searchsorted(session_offsets, ends) - history_sessions
    return np.maximum(starts, session_offsets[np.maximum(session, 0)])


def first_since(times: npt.NDArray[np.int64], starts: Int64, ends: Int64, earliest: Int64) -> Int64:
    """First position (n,) of each history with a time of `earliest` or later; its end if there is none.

    Parameters
    ----------
    times
        (any,) times, ascending within a history.
    starts, ends
        (n,) starts and ends of the histories.
    earliest
        (n,) times.
    """
    low, high = starts.copy(), np.maximum(starts, ends)
    while (searching := low < high).any():  # a binary search in all histories at once
        middle = (low + high) // 2
        late = searching & (times[np.minimum(middle, len(times) - 1)] >= earliest)
        high = np.where(late, middle, high)
        low = np.where(searching & ~late, middle + 1, low)
    return low


def history_rows(histories: Histories) -> SparseRows:
    """Return histories as rows of a sparse matrix, with one entry for each interaction."""
    items = histories.seen()[1]
    return _sparse(offsets_of(histories.lengths), items, np.ones(len(items)))


def history_means(table: Tensor, batch: SessionBatch) -> Tensor:
    """Mean (b, width) of the rows of `table` (n_items + 1, width) over each history of a batch; 0 if it is empty."""
    with torch.autocast(table.device.type, enabled=False):
        total: Tensor = _HistorySum.apply(table, *batch[4:10])  # type: ignore[no-untyped-call]
    return total / batch.sizes.clamp(min=1)[:, None]


class _HistorySum(torch.autograd.Function):
    """Sparse matrix times the table; the backward pass multiplies the given transpose with the gradient."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, *parts: Tensor) -> Tensor:
        """Multiply the matrix with the table; `parts` are the matrix and its transpose."""
        ctx.save_for_backward(*parts[3:])
        return row_sums(SparseRows(*parts[:3]), table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the table."""
        return (row_sums(SparseRows(*ctx.saved_tensors), gradient.contiguous()), *[None] * 6)


def _sets(items: npt.NDArray[np.int32], starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
    """Positions of the distinct items of each session, and the offsets of the sessions among them."""
    rows, places = rows_of(starts, ends), positions(starts, ends)
    order = np.lexsort((items[places], rows))
    rows, places = rows[order], places[order]
    flat = items[places]
    first = np.ones(len(flat), dtype=np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (flat[1:] != flat[:-1])
    return places[first], offsets_of(np.bincount(rows[first], minlength=len(starts)))


def _sparse(offsets: npt.NDArray[Any], columns: npt.NDArray[Any], values: npt.NDArray[Any]) -> SparseRows:
    return SparseRows(
        torch.from_numpy(offsets.astype(np.int32)),
        torch.from_numpy(columns.astype(np.int32)),
        torch.from_numpy(values.astype(np.float32)),
    )


def _transposed(rows: SparseRows, n_columns: int) -> SparseRows:
    """Transpose the matrix, which has `n_columns` columns."""
    columns = rows.columns.numpy()
    order = np.argsort(columns.astype(np.int16) if n_columns < 2**15 else columns, kind="stable")  # int16: radix sort
    row = np.repeat(np.arange(len(rows.offsets) - 1), np.diff(rows.offsets.numpy()))
    return _sparse(offsets_of(np.bincount(columns, minlength=n_columns)), row[order], rows.values.numpy()[order])


def row_sums(rows: SparseRows, dense: Tensor) -> Tensor:
    """Product (rows, width) of the sparse matrix and a dense one (columns, width)."""
    size = (len(rows.offsets) - 1, len(dense))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR")  # torch warns that CSR is in beta
        matrix = torch.sparse_csr_tensor(
            rows.offsets, rows.columns, rows.values.to(dense.dtype), size, check_invariants=False
        )
    return matrix @ dense
