"""Nearest sessions: the common part of V-SKNN and VSTAN.

A session in progress is compared with stored sessions, and the items of the nearest ones are scored. A session is one
of the Dataset, or a whole history if the Dataset has none or if its sessions are single items.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, positions, rows_of
from segue.models.base import ModelConfig
from segue.models.popularity import popularity
from segue.models.sparse import Floats, SparseModel, add_entries, csr, nearest
from segue.settings import Count, Penalty, Positive

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Float64 = npt.NDArray[np.float64]

_MIN_LENGTH = 2.0
"""Mean number of items from which the sessions of a Dataset are compared; else whole histories."""
_ROWS = 64
"""Histories that are answered at once."""
_CELLS = 1 << 22
"""Pairs of a history and a stored session that are held at once, with padding."""


@dataclass(frozen=True)
class SessionNeighbours(ModelConfig):
    """Settings of models of nearest sessions."""

    may_change_on_start: ClassVar[frozenset[str]] = ModelConfig.may_change_on_start | {"unit"}

    neighbours: Count = 100
    """Number of nearest sessions whose items are scored."""

    sample: Count = 1000
    """Number of the most recent sessions with a common item that are compared. Without times, the last ones in the
    order of the users."""

    unit: Literal["session", "history"] | None = None
    """Unit that is compared: sessions, or whole histories. None means sessions if they have two items or more on
    average, else histories."""

    idf: Penalty = 0.0
    """Weight of rare items: scores are multiplied by 1 + idf · log(sessions / sessions with the item)."""

    smoothing: Positive = 1e-9
    """Weight of popularity, which orders items without any other score."""

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the unit that fits the Dataset."""
        if self.unit is not None:
            return self
        with_sessions = dataset.session_offsets is not None and len(dataset.sessions) > 0
        is_long = with_sessions and dataset.n_interactions >= _MIN_LENGTH * len(dataset.sessions)
        return replace(self, unit="session" if is_long else "history")


class SessionInputs(NamedTuple):
    """Sessions in progress of n histories, as distinct items.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = unknown.
    lengths
        (n,) int64 lengths of the sessions, repeats included.
    rows, items
        (m,) int64 history and item code of each distinct item, ascending.
    places
        (m,) int64 position of the last occurrence in the session, from 1.
    """

    users: Any
    lengths: Any
    rows: Any
    items: Any
    places: Any


class Neighbours(NamedTuple):
    """Nearest sessions of n histories, row by row, the most recent first.

    Attributes
    ----------
    rows
        (p,) int64 rows of the histories.
    sessions
        (p,) int64 stored sessions, numbered from the most recent one.
    similarities
        (p,) float64.
    """

    rows: Int64
    sessions: Int64
    similarities: Float64


class Met(NamedTuple):
    """Items of the nearest sessions, one neighbour after the other.

    Attributes
    ----------
    entries
        (e,) int64 position of the item in the matrix of stored sessions.
    first, lengths
        (p,) int64 first item of each of the neighbours, and their numbers of items.
    rows, items
        (e,) int64 row of the history, ascending, and item code.
    current
        (e,) int32 position of the item in the session in progress, from 1; 0 if it is not there.
    """

    entries: Int64
    first: Int64
    lengths: Int64
    rows: Int64
    items: npt.NDArray[np.int32]
    current: npt.NDArray[np.int32]


class SpokenFor(NamedTuple):
    """Nearest sessions that have the item of a pair, pair by pair, the most recent session first.

    Attributes
    ----------
    pairs
        (m,) int64 pair of a history and an item, ascending.
    sessions
        (m,) int64 stored sessions, numbered from the most recent one.
    similarities
        (m,) float64 similarity to the session in progress.
    terms
        (m,) float64 term of the session in the score of the item.
    offsets
        (m + 1,) int64 first common item of each session, and the end of the last.
    common
        (offsets[-1],) int64 items of the session that are in the session in progress, ascending.
    """

    pairs: Int64
    sessions: Int64
    similarities: Float64
    terms: Float64
    offsets: Int64
    common: Int64


class SessionNeighboursModel(SparseModel):
    """Stored sessions, the most recent first.

    Buffers
    -------
    sessions_values, sessions_columns, sessions_offsets
        Sparse (any, n_items + 1): position of the last occurrence of each item in a session, from 1.
    session_users
        (any,) int32 user of each session.
    session_times
        (any,) int64 time of the last interaction of each session; 0 without times.
    shares
        (n_items + 1,) float32 popularity.
    """

    config: SessionNeighbours
    sessions_offsets: Tensor
    session_users: Tensor
    session_times: Tensor
    shares: Tensor

    def __init__(self, config: SessionNeighbours, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.add_matrix("sessions", 0, n_items + 1)
        self._ragged.append("sessions_offsets")
        self.add_ragged("session_users", torch.int32)
        self.add_ragged("session_times", torch.int64)
        self.register_buffer("shares", torch.zeros(n_items + 1))
        self._index: _Index | None = None

    def count(self, dataset: Dataset) -> None:
        """Store the visible sessions or histories."""
        visible = dataset.compact()
        if self.config.unit == "session":
            sessions = visible.sessions
            users, starts, ends = sessions.users, sessions.starts, sessions.ends
        else:
            users = np.flatnonzero(visible.lengths)
            starts, ends = visible.starts[users], visible.ends[users]
        times = np.zeros(len(users), dtype=np.int64) if visible.times is None else visible.times[ends - 1]
        order = np.argsort(times, kind="stable")[::-1]
        users, starts, ends, times = users[order], starts[order], ends[order], times[order]
        rows, items, places = _last_places(visible.items, starts, ends, self.n_items + 1)
        shape = (len(users), self.n_items + 1)
        self._shapes["sessions"] = shape
        self.set_matrix("sessions", csr(places, rows, items, shape))
        self.set_buffer("session_users", users)
        self.set_buffer("session_times", times)
        self.set_buffer("shares", popularity(dataset))
        self._index = None

    def inputs(self, histories: Histories) -> SessionInputs:
        """Session in progress of each history: its basket, or else its newest session, or the whole history."""
        starts, ends = histories.starts, histories.ends
        if self.config.unit == "session":
            if histories.session_offsets is not None:
                before = np.searchsorted(histories.session_offsets, ends - 1, side="right") - 1
                starts = np.maximum(starts, histories.session_offsets[np.maximum(before, 0)])
            if histories.baskets is not None:
                starts = np.where(histories.baskets < ends, np.maximum(histories.baskets, starts), starts)
        rows, items, places = _last_places(histories.items, starts, ends, self.n_items + 1)
        arrays = (histories.users, ends - starts, rows, items, places)
        return SessionInputs(*(torch.from_numpy(np.ascontiguousarray(one)) for one in arrays))

    def rows_of_scores(self, inputs: SessionInputs) -> Floats:
        """Sum the scores of the items of the nearest sessions."""
        scores = np.empty((len(inputs.users), self.n_items + 1), dtype=np.float32)
        scores[:] = self.config.smoothing * self.shares.cpu().numpy()
        index = self._made_index()
        for first, last, part in self._blocks(inputs, index):
            _, met, terms = self._terms(part, index)
            add_entries(scores[first:last], met.rows, met.items, terms)
        return scores

    def spoken_for(self, histories: Histories, items: Int64) -> SpokenFor:
        """Nearest sessions with the item, for pairs of a history and an item code.

        Parameters
        ----------
        histories
            n histories.
        items
            (n,) item of each pair. Its score is the sum of the terms and of the part of popularity.
        """
        index, parts, seen = self._made_index(), [], 0
        inputs = SessionInputs(*(tensor.numpy() for tensor in self.inputs(histories)))
        for first, _, part in self._blocks(inputs, index):
            neighbours, met, terms = self._terms(part, index)
            entries = np.flatnonzero(met.items == items[first + met.rows])
            chosen = np.repeat(np.arange(len(met.lengths)), met.lengths)[entries]
            starts = met.first[chosen]
            met_items = positions(starts, starts + met.lengths[chosen])
            owners = np.repeat(np.arange(len(chosen)), met.lengths[chosen])
            is_common = met.current[met_items] > 0
            ends = seen + np.cumsum(np.bincount(owners[is_common], minlength=len(chosen)))
            common = met.items[met_items[is_common]].astype(np.int64)
            pairs, sessions = first + neighbours.rows[chosen], neighbours.sessions[chosen]
            parts.append((pairs, sessions, neighbours.similarities[chosen], terms[entries], ends, common))
            seen += len(common)
        if not parts:
            none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
            return SpokenFor(none, none, nothing, nothing, np.zeros(1, dtype=np.int64), none)
        pairs, sessions, similarities, terms, ends, common = (np.concatenate(one) for one in zip(*parts, strict=True))
        return SpokenFor(pairs, sessions, similarities, terms, np.concatenate([[0], ends]), common)

    def _terms(self, inputs: SessionInputs, index: _Index) -> tuple[Neighbours, Met, Float64]:
        """Nearest sessions of each row, their items, and the term (e,) of each of these in the score."""
        neighbours = self._nearest(inputs, index)
        met = self._met(inputs, neighbours)
        terms = self.terms(inputs, neighbours, met)
        if self.config.idf:
            terms = terms * (1 + self.config.idf * index.rarity[met.items])
        return neighbours, met, terms

    def settle(self) -> None:
        """Make the matrices and the index of sessions by item once."""
        super().settle()
        self._index = None
        self._index = self._made_index()

    @abstractmethod
    def weights(self, inputs: SessionInputs) -> Float64:
        """Weights (m,) of the items of the sessions in progress, whose sums are similarities."""

    def adjusted(self, similarities: Float64, sessions: Int64, rows: Int64, inputs: SessionInputs) -> Float64:
        """Similarities (p,) of pairs of stored sessions (p,) and rows (p,), from the sums of the weights."""
        return similarities

    @abstractmethod
    def terms(self, inputs: SessionInputs, neighbours: Neighbours, met: Met) -> Float64:
        """Terms (e,) of the score, one for each item of each neighbour."""

    # ---- neighbours -------------------------------------------------------------------------------------------------

    def _blocks(self, inputs: SessionInputs, index: _Index) -> Any:
        """Parts of the inputs whose pairs with stored sessions fit in memory, with their first and last rows."""
        n = len(inputs.users)
        bounds = np.searchsorted(inputs.rows, np.arange(n + 1))
        pairs = np.concatenate([[0], np.cumsum(index.lengths[inputs.items])])[bounds]
        widths = np.minimum(np.diff(pairs), self._shapes["sessions"][0])
        first = 0
        while first < n:
            widest = np.maximum.accumulate(widths[first : first + _ROWS])
            fits = widest * np.arange(1, len(widest) + 1) <= _CELLS
            last = first + max(1, int(fits.sum()))
            part = slice(bounds[first], bounds[last])
            rows = inputs.rows[part] - first
            users, lengths = inputs.users[first:last], inputs.lengths[first:last]
            yield first, last, SessionInputs(users, lengths, rows, inputs.items[part], inputs.places[part])
            first = last

    def _nearest(self, inputs: SessionInputs, index: _Index) -> Neighbours:
        """Nearest stored sessions of each row, other than the session in progress itself."""
        n = len(inputs.users)
        queries = index.matrix((self.weights(inputs), inputs.items, np.searchsorted(inputs.rows, np.arange(n + 1))), n)
        common = queries @ index.recent
        met = np.diff(common.indptr)
        own = self._own_session(inputs, index).astype(common.indices.dtype)
        # Sessions before the oldest of `sample` + 1 with one of the items are not in the sample, even without its own.
        limits = np.minimum.reduceat(index.limits[inputs.items], np.searchsorted(inputs.rows, np.arange(n)))
        limits = limits.clip(max=np.iinfo(common.indices.dtype).max).astype(common.indices.dtype)
        kept = common.indices <= np.repeat(limits, met)
        kept &= common.indices != np.repeat(own, met)
        sessions, sums = common.indices[kept].astype(np.int64), common.data[kept]
        counts = np.bincount(np.repeat(np.arange(n), met)[kept], minlength=n)
        if not len(sums):
            return Neighbours(sessions, sessions, sums)
        # One sort of integers, each a session and an entry: the most recent first, which decides between equal ones.
        none = self._shapes["sessions"][0] * len(sums)
        table = np.full((n, int(counts.max())), none, dtype=np.int64)
        table[np.arange(table.shape[1]) < counts[:, None]] = sessions * len(sums) + np.arange(len(sums))
        table.sort(axis=1)
        table = table[:, : self.config.sample]
        places = table < none
        rows = np.repeat(np.arange(n), places.sum(1))
        sessions, entries = np.divmod(table[places], len(sums))
        adjusted = self.adjusted(sums[entries], sessions, rows, inputs)
        distances = np.full(table.shape, np.inf)
        distances[places] = -adjusted
        kept = nearest(distances, self.config.neighbours)[places]
        return Neighbours(rows[kept], sessions[kept], adjusted[kept])

    def _own_session(self, inputs: SessionInputs, index: _Index) -> Int64:
        """Stored session (n,) that is the one in progress, -1 for none: no neighbour of itself.

        For histories, it is the user's own; for sessions, the user's newest one if it has the same items.
        """
        own: Int64 = index.newest[inputs.users]
        if self.config.unit == "history":
            return own
        hashes = np.zeros(len(own), dtype=np.uint64)
        np.add.at(hashes, inputs.rows, index.codes[inputs.items])
        return np.asarray(np.where((own >= 0) & (index.hashes[own] == hashes), own, -1), dtype=np.int64)

    def _met(self, inputs: SessionInputs, neighbours: Neighbours) -> Met:
        """Items of the nearest sessions."""
        stored = self.matrix("sessions")
        starts = stored.indptr[neighbours.sessions].astype(np.int64)
        ends = stored.indptr[neighbours.sessions + 1].astype(np.int64)
        lengths = ends - starts
        entries = positions(starts, ends)
        items, rows = stored.indices.take(entries), np.repeat(neighbours.rows, lengths)
        places = np.zeros((len(inputs.users), self.n_items + 1), dtype=np.int32)
        places[inputs.rows, inputs.items] = inputs.places
        current = places.reshape(-1).take(rows * places.shape[1] + items)
        return Met(entries, np.cumsum(lengths) - lengths, lengths, rows, items, current)

    def _made_index(self) -> _Index:
        return _Index(self) if self._index is None else self._index

    def fault(self) -> str | None:
        """Sessions of users who do not exist."""
        n = len(self.sessions_offsets) - 1
        if len(self.session_users) != n or len(self.session_times) != n:
            return "session_users and session_times are not as many as the sessions"
        if n and (int(self.session_users.min()) < 1 or int(self.session_users.max()) > self.n_users):
            return "session_users holds users who do not exist"
        return super().fault()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._shapes["sessions"] = (len(self.sessions_offsets) - 1, self.n_items + 1)
        self._index = None


class _Index:
    """Stored sessions by item and by user.

    Attributes
    ----------
    recent
        Sparse (n_items + 1, sessions): 1 for the `sample` + 1 most recent sessions with each item. The most recent
        sessions with any of several items are among them.
    limits
        (n_items + 1,) int64 the oldest of these sessions; a large number if the item has fewer.
    lengths
        (n_items + 1,) int64 number of these sessions.
    newest
        (n_users + 1,) int64 newest stored session of each user; -1 for none.
    codes
        (n_items + 1,) uint64 random numbers of the items.
    hashes
        (sessions,) uint64 sums of the numbers of the items of each session.
    rarity
        (n_items + 1,) float64 logarithm of the number of sessions over that with the item.
    """

    def __init__(self, model: SessionNeighboursModel) -> None:
        stored = model.matrix("sessions")
        by_item = stored.T.tocsr()
        by_item.sort_indices()
        counts = np.diff(by_item.indptr).astype(np.int64)
        most = model.config.sample + 1
        self.lengths = np.minimum(counts, most)
        starts = by_item.indptr[:-1].astype(np.int64)
        full = counts >= most
        self.limits = np.full(len(counts), np.iinfo(np.int64).max)
        self.limits[full] = by_item.indices[starts[full] + most - 1]
        entries = positions(starts, starts + self.lengths)
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.recent = type(stored)((np.ones(len(entries)), by_item.indices[entries], offsets), shape=by_item.shape)
        users = model.session_users.cpu().numpy()
        self.newest = np.full(model.n_users + 1, -1, dtype=np.int64)
        self.newest[users[::-1]] = np.arange(len(users))[::-1]
        self.newest[0] = -1
        self.codes = np.random.default_rng(0).integers(1 << 63, size=model.n_items + 1, dtype=np.uint64)
        self.hashes = np.zeros(len(users), dtype=np.uint64)
        np.add.at(self.hashes, np.repeat(np.arange(len(users)), np.diff(stored.indptr)), self.codes[stored.indices])
        self.rarity = np.log(max(len(users), 1) / np.maximum(counts, 1))
        self._kind, self._side = type(stored), model.n_items + 1

    def matrix(self, parts: tuple[Any, Any, Any], rows: int) -> csr_matrix:
        """Sparse (rows, n_items + 1) of values, columns and offsets."""
        return self._kind(parts, shape=(rows, self._side))


def _last_places(items: npt.NDArray[np.int32], starts: Int64, ends: Int64, side: int) -> tuple[Int64, Int64, Int64]:
    """Rows, codes and last positions from 1 (m,) of the distinct items of slices, ascending by row and code."""
    rows, flat = rows_of(starts, ends), positions(starts, ends)
    keys = rows * side + items[flat]
    places = flat - starts[rows] + 1
    order = np.lexsort((places, keys))
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = np.diff(keys[order]) > 0
    order = order[last]
    return rows[order], keys[order] % side, places[order]
