"""Parts of the counting models: baskets of histories, sparse matrices in buffers, and queries that are scores.

The queries of these models are rows of scores for the whole catalogue, because their scores have no short form. Their
products are sparse and run on the CPU, whatever the device of the answers is. SciPy is imported with the first product.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.models.base import CountingModel, ModelConfig
from segue.models.scores import ItemScores

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]

_COST_OF_MEETING = 64.0
"""Time of a pair of entries that is multiplied on its own, relative to one of a block that reads the whole matrix."""
_MAX_MEETINGS = 1 << 20
"""Pairs of entries that are multiplied at once."""
_SUMMED = 16
"""Rows of a matrix of sums in float64 that is used again and again."""
_BLOCK = 32
"""Rows of a block: their columns stand side by side in a few cache lines."""


class Baskets(NamedTuple):
    """Distinct items of the baskets of n histories, basket by basket, oldest first.

    Attributes
    ----------
    rows
        (m,) int64 history of each entry, ascending.
    items
        (m,) int64 item codes, ascending within a basket.
    later
        (m,) int64 number of baskets of the same history after the entry's.
    ages
        (m,) int64 time from the basket to the newest basket of the history, in the unit of the times; 0 without times.
    counts
        (n,) int64 number of baskets of each history.
    """

    rows: Int64
    items: Int64
    later: Int64
    ages: Int64
    counts: Int64


def baskets_of(histories: Histories) -> Baskets:
    """Baskets of n histories: their sessions, the session in progress last.

    In histories without sessions, each interaction is a basket of its own. The time of a basket is that of its first
    interaction.
    """
    rows = rows_of(histories.starts, histories.ends)
    flat = positions(histories.starts, histories.ends)
    begins = _begins(histories, rows, flat)
    number = np.cumsum(begins) - 1  # of all baskets, from 0
    counts = np.bincount(rows[begins], minlength=len(histories)).astype(np.int64)
    first_entry = np.flatnonzero(begins)
    stride = int(histories.items[flat].max(initial=0)) + 1
    keys = number * stride + histories.items[flat]
    if (keys[1:] <= keys[:-1]).any():
        keys = distinct(keys)
    number, items = keys // stride, keys % stride
    of_basket = rows[first_entry]
    last = np.cumsum(counts) - 1
    later = (last[of_basket] - np.arange(len(of_basket)))[number]
    ages = np.zeros(len(of_basket), dtype=np.int64)
    if histories.times is not None and len(flat):
        times = histories.times[flat[first_entry]]
        if histories.as_of is not None:
            times = np.minimum(times, histories.as_of[of_basket])
        ages = np.maximum(times[last[of_basket]] - times, 0)
    return Baskets(of_basket[number], items, later, ages[number], counts)


def distinct(keys: Int64) -> Int64:
    """Distinct keys in ascending order; for many integers a sort is faster than the hashing of NumPy."""
    ordered = np.sort(keys)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _begins(histories: Histories, rows: Int64, flat: Int64) -> npt.NDArray[np.bool_]:
    """Mask (m,) of the positions `flat` (m,) at which a basket begins."""
    if histories.session_offsets is None:
        begins = np.ones(len(flat), dtype=np.bool_)
        if histories.baskets is not None:
            begins &= flat <= histories.baskets[rows]
        return np.asarray(begins)
    offsets = offsets_of(histories.ends - histories.starts)
    low, high = np.searchsorted(histories.session_offsets, np.stack([histories.starts, histories.ends]))
    of_row = rows_of(low, high)
    begun = np.asarray(histories.session_offsets)[positions(low, high)]
    begins = np.zeros(len(flat) + 1, dtype=np.bool_)
    begins[offsets] = True
    begins[offsets[of_row] + begun - histories.starts[of_row]] = True
    begins = begins[:-1]
    if histories.baskets is not None:
        first = histories.baskets[rows]
        begins = (begins & (flat < first)) | (flat == first)
    return np.asarray(begins)


def histories_of_all(dataset: Dataset) -> Histories:
    """Visible histories of all user codes from 0, so that row and code are the same."""
    return dataset.histories(np.arange(dataset.n_users + 1, dtype=np.int64))


def csr(values: npt.ArrayLike, rows: Int64, columns: Int64, shape: tuple[int, int]) -> csr_matrix:
    """Sparse matrix float32 of entries in any order; entries of the same place are summed in float64."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((np.asarray(values, dtype=np.float64), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix.astype(np.float32)


def ones(rows: Int64, columns: Int64, shape: tuple[int, int]) -> csr_matrix:
    """Sparse matrix float32 with a 1 at each place of some entry."""
    matrix = csr(np.ones(len(rows)), rows, columns, shape)
    matrix.data[:] = 1
    return matrix


def sets_of(histories: Histories, n_items: int) -> csr_matrix:
    """Sparse (n, n_items + 1) of n histories: 1 for each distinct item."""
    rows, items = histories.seen()
    return ones(rows, items.astype(np.int64), (len(histories), n_items + 1))


def newest_of_items(inputs: BasketInputs, n_items: int) -> Int64:
    """Entries (e,) of the newest basket with each item of each history, by history, then by item code."""
    keys = inputs.rows * (n_items + 1) + inputs.items
    order = np.lexsort((inputs.later, keys))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = np.diff(keys[order]) > 0
    return np.asarray(order[first])


def mean_entries(matrix: csr_matrix) -> float:
    """Mean number of entries of the rows that have any; 1 without such rows."""
    return float(matrix.nnz / max(np.count_nonzero(np.diff(matrix.indptr)), 1)) or 1.0


def sparse_rows(rows: Floats) -> csr_matrix:
    """The same matrix without its zeros."""
    from scipy.sparse import csr_matrix

    return csr_matrix(rows)


def add_into(scores: Floats, matrix: csr_matrix) -> Floats:
    """Add a sparse matrix without duplicates to a dense one (n, m) of the same shape, in place; return the latter."""
    index = np.repeat(np.arange(scores.shape[0], dtype=np.int64) * scores.shape[1], np.diff(matrix.indptr))
    scores.reshape(-1)[index + matrix.indices] += matrix.data
    return scores


def add_entries(
    scores: Floats, rows: Int64, columns: npt.NDArray[np.integer[Any]], values: npt.NDArray[np.float64]
) -> Floats:
    """Add values (e,) at rows (e,), ascending, and columns (e,) to a dense matrix (n, m), in place; return the latter.

    Values of the same place are summed in float64, in their order. It costs no sort and no pass over the matrix.
    """
    n, width = scores.shape
    bounds = np.searchsorted(rows, np.arange(0, n + _SUMMED, _SUMMED))
    sums = np.zeros(min(n, _SUMMED) * width)
    for number, (low, high) in enumerate(pairwise(bounds.tolist())):
        first = number * _SUMMED
        places = (rows[low:high] - first) * width + columns[low:high]
        np.add.at(sums, places, values[low:high])
        flat = scores[first : first + _SUMMED].reshape(-1)
        added = flat.take(places) + sums.take(places).astype(np.float32)
        flat[places] = added  # the same result wherever a place repeats
        sums[places] = 0
    return scores


def _bag_product(rows: csr_matrix | Floats, matrix: csr_matrix) -> Floats:
    """Product (n, m) of sparse or dense rows (n, inner) with the transpose of a sparse matrix (m, inner).

    Every element is summed in the order of the matrix, whatever the other rows are.
    """
    product = torch.empty(rows.shape[0], matrix.shape[0])
    columns, offsets = torch.from_numpy(matrix.indices), torch.from_numpy(matrix.indptr)
    values = torch.from_numpy(matrix.data)
    table = torch.zeros(matrix.shape[1], _BLOCK)  # one width: the same sums in any block
    flat, places = table.numpy().reshape(-1), np.zeros(0, dtype=np.int64)
    for first in range(0, rows.shape[0], _BLOCK):
        last = min(first + _BLOCK, rows.shape[0])
        if isinstance(rows, np.ndarray):
            table[:, : last - first] = torch.from_numpy(rows[first:last]).T
        else:
            entries = slice(rows.indptr[first], rows.indptr[last])
            flat[places] = 0  # of the block before
            places = np.repeat(np.arange(last - first), np.diff(rows.indptr[first : last + 1]))
            places += _BLOCK * rows.indices[entries].astype(np.int64)
            flat[places] = rows.data[entries]
        sums = F.embedding_bag(columns, table, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)
        product[first:last] = sums[:, : last - first].T
    return product.numpy()


def _gathered_product(rows: csr_matrix, matrix: csr_matrix) -> Floats:
    """Product (n, m) of sparse rows (n, inner) with a sparse matrix (inner, m), summed in the order of their entries.

    The rows of the matrix that a row meets stand one after the other, as a sparse row with duplicates, whose dense form
    is the sum.
    """
    n, width = rows.shape[0], matrix.shape[1]
    product = np.empty((n, width), dtype=np.float32)
    lengths = np.diff(matrix.indptr)[rows.indices]
    spent = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[rows.indptr]
    first = 0
    while first < n:
        last = int(np.searchsorted(spent, spent[first] + _MAX_MEETINGS, side="right")) - 1
        last = max(first + 1, min(last, n))
        part = slice(rows.indptr[first], rows.indptr[last])
        met = matrix[rows.indices[part]]
        values = np.repeat(rows.data[part], lengths[part])
        values *= met.data
        offsets = met.indptr[rows.indptr[first : last + 1] - part.start]
        type(matrix)((values, met.indices, offsets), shape=(last - first, width)).toarray(out=product[first:last])
        first = last
    return product


class CommonCounts:
    """Numbers of units with two items at once, some items at a time.

    Parameters
    ----------
    units
        Sparse (units, m) matrix of zeros and ones.
    """

    def __init__(self, units: csr_matrix) -> None:
        self._units, self._by_item = units, units.T.tocsr()
        self.counts = np.diff(self._by_item.indptr).astype(np.float64)
        meetings = float((np.diff(units.indptr).astype(np.float64) ** 2).sum())
        self._reads_all = units.nnz * self._by_item.shape[0] < _COST_OF_MEETING * meetings

    def rows(self, first: int, last: int) -> Floats:
        """Counts (last - first, m) float32 of the items first … last - 1 with all items: exact up to 2²⁴."""
        part = self._by_item[first:last]
        return _bag_product(part, self._by_item) if self._reads_all else _gathered_product(part, self._units)


def nearest(distances: npt.NDArray[np.floating[Any]], k: int) -> npt.NDArray[np.bool_]:
    """Mask (n, m) of the k smallest finite distances of each row (n, m); of equal ones the first columns.

    It has fewer than k per row if fewer are finite. A row does not depend on the others.
    """
    finite: npt.NDArray[np.bool_] = np.isfinite(distances)
    if k >= distances.shape[1]:
        return finite
    edge = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    chosen = distances < edge
    tied = (distances == edge) & finite
    spare = k - chosen.sum(1, keepdims=True)
    crowded = np.flatnonzero(tied.sum(1) > spare[:, 0])
    tied[crowded] &= np.cumsum(tied[crowded], axis=1) <= spare[crowded]
    return np.asarray((chosen & finite) | tied)


class DenseScores(ItemScores):
    """Scores that the queries (batch, n_items + 1) already hold."""

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) of the item codes start … stop - 1."""
        part = queries[:, start:stop]
        return part.clone() if out is None else out.copy_(part)

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) of `items` (batch, n)."""
        return queries.gather(1, items)


class SparseModel(CountingModel):
    """Model whose queries are its scores of the whole catalogue, made by sparse products.

    Subclasses declare their sparse matrices by `add_matrix` and ragged arrays by `add_ragged`, fill them in `count`,
    and write `rows_of_scores`.
    """

    dense_queries = True
    counting_scores = True
    repeats_together = True

    reads_both: ClassVar[tuple[str, ...]] = ()
    """Matrices that are needed transposed too; a settled model keeps both forms."""

    def __init__(self, config: ModelConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self._ragged: list[str] = []
        self._shapes: dict[str, tuple[int, int]] = {}
        self._matrices: dict[str, csr_matrix] = {}
        self._rows_met: dict[str, float] = {}

    def add_ragged(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        """Declare a one-dimensional buffer whose length depends on the data."""
        self._ragged.append(name)
        self.register_buffer(name, torch.zeros(0, dtype=dtype))

    def add_matrix(self, name: str, rows: int, columns: int) -> None:
        """Declare a sparse matrix (rows, columns): the buffers `name_values`, `name_columns` and `name_offsets`."""
        self._shapes[name] = (rows, columns)
        self.add_ragged(f"{name}_values")
        self.add_ragged(f"{name}_columns", torch.int32)
        self.register_buffer(f"{name}_offsets", torch.zeros(rows + 1, dtype=torch.int64))

    def set_buffer(self, name: str, array: npt.NDArray[Any]) -> None:
        """Replace a declared buffer by the values of an array of any length."""
        old = getattr(self, name)
        setattr(self, name, torch.from_numpy(np.ascontiguousarray(array)).to(dtype=old.dtype, device=old.device))

    def set_matrix(self, name: str, matrix: csr_matrix) -> None:
        """Replace a declared matrix."""
        matrix.sort_indices()
        self.set_buffer(f"{name}_values", matrix.data)
        self.set_buffer(f"{name}_columns", matrix.indices)
        self.set_buffer(f"{name}_offsets", matrix.indptr)
        self._matrices, self._rows_met = {}, {}

    def matrix(self, name: str) -> csr_matrix:
        """A declared matrix, on the memory of its buffers if they are on the CPU."""
        if name in self._matrices:
            return self._matrices[name]
        from scipy.sparse import csr_matrix

        values, columns, offsets = (
            getattr(self, f"{name}_{part}").cpu().numpy() for part in ("values", "columns", "offsets")
        )
        small = len(columns) <= np.iinfo(np.int32).max
        index = (columns, offsets.astype(np.int32)) if small else (columns.astype(np.int64), offsets)
        return csr_matrix((values, *index), shape=self._shapes[name], copy=False)

    def transposed(self, name: str) -> csr_matrix:
        """The transpose of a declared matrix, in new memory."""
        key = f"{name}, transposed"
        return self._matrices[key] if key in self._matrices else self.matrix(name).T.tocsr()

    def times(self, rows: csr_matrix | Floats, name: str, entries: float) -> Floats:
        """Product (n, columns) float32 of sparse or dense rows (n, matrix rows) with a declared matrix.

        Parameters
        ----------
        rows, name
            The factors.
        entries
            Usual number of entries of a row, from the fit: it decides how the product is computed. Two ways of one
            model would differ in rounding.
        """
        if self._shapes[name][0] > _COST_OF_MEETING * entries:
            return _gathered_product(sparse_rows(rows) if isinstance(rows, np.ndarray) else rows, self.matrix(name))
        return _bag_product(rows, self.transposed(name))

    def times_transposed(self, rows: csr_matrix, name: str, entries: float) -> Floats:
        """Product (n, matrix rows) of sparse rows (n, columns) with the transpose of a declared matrix, as `times`."""
        stored = self.matrix(name)
        if name not in self._rows_met:  # a pass over the matrix, so once: single lists are asked for, too
            counts = np.bincount(stored.indices).astype(np.float64)  # of each column, which rows meet as often
            self._rows_met[name] = float((counts**2).sum() / max(counts.sum(), 1.0))
        if stored.nnz > _COST_OF_MEETING * entries * self._rows_met[name]:
            return _gathered_product(rows, self.transposed(name))
        return _bag_product(rows, stored)

    def settle(self) -> None:
        """Make the matrices once, for a model that is counted."""
        self._matrices = {}
        matrices = {name: self.matrix(name) for name in self._shapes}
        matrices |= {f"{name}, transposed": self.transposed(name) for name in self._shapes if name in self.reads_both}
        self._matrices = matrices

    def inputs(self, histories: Histories) -> Any:
        """Baskets of each history, as `BasketInputs`; models that read something else have their own."""
        return BasketInputs.of(histories)

    @abstractmethod
    def rows_of_scores(self, inputs: Any) -> Floats:
        """Return the scores (n, n_items + 1) float32 of n histories.

        Parameters
        ----------
        inputs
            The result of `inputs`, as arrays instead of tensors.
        """

    def encode(self, inputs: Any) -> Tensor:
        """Return the scores (n, n_items + 1) of n histories as their queries."""
        scores = self.rows_of_scores(type(inputs)(*(tensor.cpu().numpy() for tensor in inputs)))
        return torch.from_numpy(scores).to(self.device)

    def scores(self) -> DenseScores:
        """The scores that the queries hold."""
        return DenseScores()

    def fault(self) -> str | None:
        """Matrices whose rows or columns do not exist."""
        for name, (_, width) in self._shapes.items():
            values, columns, offsets = (getattr(self, f"{name}_{part}") for part in ("values", "columns", "offsets"))
            if int(offsets[0]) != 0 or int(offsets[-1]) != len(columns) or bool((offsets[1:] < offsets[:-1]).any()):
                return f"{name}_offsets does not rise from 0 to the number of {name}_columns"
            if len(values) != len(columns):
                return f"{name}_values and {name}_columns have other lengths"
            if len(columns) and (int(columns.min()) < 0 or int(columns.max()) >= width):
                return f"{name}_columns holds columns that do not exist"
        return super().fault()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The lengths depend on the data: make buffers of the size to load.
        for name in self._ragged:
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.ndim == 1:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        self._matrices, self._rows_met = {}, {}
        super()._load_from_state_dict(state_dict, prefix, *args)


class BasketInputs(NamedTuple):
    """Baskets of n histories as tensors; see `Baskets`.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = unknown.
    rows, items, later, ages
        (m,) int64 entries of the baskets.
    counts
        (n,) int64 numbers of baskets.
    """

    users: Any
    rows: Any
    items: Any
    later: Any
    ages: Any
    counts: Any

    @classmethod
    def of(cls, histories: Histories) -> BasketInputs:
        """Inputs of n histories."""
        return cls(*(torch.from_numpy(np.ascontiguousarray(one)) for one in (histories.users, *baskets_of(histories))))
