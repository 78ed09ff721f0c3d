"""Table of item vectors that a model reads and scores with: plain, or with the content of the items.

With content, the vector of an item is E[i] + Σ over its values of V[value] + W · (its given vectors). Training leaves
E[i] out for a random share of the items of each step, so that the content learns to stand alone (as DropoutNet, Volkovs
et al., NeurIPS 2017). An item that does not occur in training has its content only. It is no negative, and no part of a
full softmax; these would push its content away from everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.tables.table import Table
from segue.errors import ConfigError
from segue.models.features import Coding
from segue.models.scores import ProductScores
from segue.nn.divided import DividedTable, Division, current_division

_RAGGED = {
    "offsets": torch.int64,
    "values": torch.int64,
    "vectors": torch.float32,
    "keys": torch.int64,
    "edges": torch.float64,
    "edge_offsets": torch.int64,
    "scales": torch.float32,
}
"""Buffers whose size depends on the data, and their types."""

CONTENT = (*_RAGGED, "value_vectors", "projection")
"""Tensors of a `ContentTable` that belong to the content; the others have a row for each item."""


class Catalogue(NamedTuple):
    """Items that a softmax over all items compares.

    Attributes
    ----------
    vectors
        (m + 1, width) vector of padding, and of each of the m items.
    codes
        (m,) int64 codes of the items; None if they are all, in their order.
    rows
        (n_items + 1,) int64 row of each item code in `vectors`, 0 for items that are not compared; None if they are
        all.
    divided
        Table whose rows are divided over processes: `vectors` are then the rows of this process alone.
    """

    vectors: Tensor
    codes: Tensor | None = None
    rows: Tensor | None = None
    divided: DividedTable | None = None

    def rows_of(self, codes: Tensor) -> Tensor:
        """Rows (…,) of item codes (…,)."""
        return codes if self.rows is None else self.rows[codes]

    def all_codes(self) -> Tensor:
        """Codes (m,) of the items."""
        if self.codes is not None:
            return self.codes
        return torch.arange(1, len(self.vectors), device=self.vectors.device)


class ItemTable(nn.Embedding):
    """Vectors (n_items + 1, width) of the items; row 0 is padding."""

    def prepare(self, dataset: Dataset) -> None:
        """Store facts of the visible interactions and of the item table."""

    def draw(self, fill: Callable[[Tensor], object]) -> None:
        """Draw the weight with a function that fills a tensor (rows, width)."""
        fill(self.weight)

    def products(self, vectors: Tensor, offset: bool = False) -> ProductScores:
        """Scores by products with vectors made of those of `all`; `offset` as in `ProductScores`."""
        return ProductScores(vectors, offset)

    def all(self) -> Tensor:
        """Vectors (n_items + 1, width) of all items."""
        return self.weight

    def with_rows(self, *codes: Tensor) -> Tensor:
        """Table (n_items + 1, width) with the vectors of these item codes; other rows may hold anything."""
        return self.weight

    def candidates(self) -> Int64 | None:
        """Codes (m,) of the items that may be negatives; None for all."""
        return None

    def catalogue(self, vectors: Tensor) -> Catalogue:
        """Items of a full softmax, given the vectors of all."""
        return Catalogue(vectors)


class DividedItemTable(DividedTable, ItemTable):
    """Vectors of the items, divided over processes (`DividedTable`)."""

    def all(self) -> Tensor:
        """Vectors (own rows, width) of the items of this process."""
        return self.weight

    def with_rows(self, *codes: Tensor) -> Tensor:
        """Refuse: no process has all rows."""
        raise NotImplementedError("models with divided tables read rows by calling the table.")

    def catalogue(self, vectors: Tensor) -> Catalogue:
        """Items of a full softmax, given the vectors of this process."""
        return Catalogue(vectors, divided=self)

    def products(self, vectors: Tensor, offset: bool = False) -> ProductScores:
        """Scores of all processes, by products with the vectors of this one."""
        return DividedProducts(vectors, offset, self.division, self.codes)

    def whole(self, weight: Tensor) -> ItemTable:
        """Return the same table, whole, with this weight (n_items + 1, width)."""
        return ItemTable(weight.shape[0], weight.shape[1], _weight=weight)


class DividedProducts(ProductScores):
    """Products with vectors that are divided over processes. All processes must ask for the same scores in step.

    Parameters
    ----------
    vectors, offset
        Vectors of this process, and the offset of `ProductScores`.
    division
        Place of this process.
    codes
        Codes of its items.
    """

    def __init__(self, vectors: Tensor, offset: bool, division: Division, codes: range) -> None:
        super().__init__(vectors, offset)
        self._division, self._codes = division, codes

    @property
    def division(self) -> Division:
        """Place of this process."""
        return self._division

    @property
    def own_codes(self) -> range:
        """Codes of the items that this process scores."""
        return self._codes

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) of the item codes start … stop - 1, which are all of this process."""
        return super().all(queries, start - self._codes.start, stop - self._codes.start, out)

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) of `items` (batch, n) of any process."""
        own = (items >= self._codes.start) & (items < self._codes.stop)
        if not len(self._codes):
            return self._division.total(queries.new_zeros(items.shape))
        scores = super().of(queries, torch.where(own, items - self._codes.start, 0))
        return self._division.total(torch.where(own, scores, 0.0))


class ContentTable(ItemTable):
    """Vectors of the items with their content; `weight` holds the own vectors E.

    Parameters
    ----------
    n_items, width
        Size of the table.
    names
        Columns of the item table.
    own_dropout
        Probability that a step leaves out the own vector of an item.

    Parameters of the module
    ------------------------
    value_vectors
        (values, width) V, if there are values.
    projection
        (width, total width of the given vectors) W, if there are such.

    Buffers
    -------
    trained
        (n_items + 1,) bool, True for items that occur in training, and for padding.
    offsets, values, vectors
        The `Features` of the items.
    keys, edges, edge_offsets, scales
        The `Coding`.
    """

    trained: Tensor
    offsets: Tensor
    values: Tensor
    vectors: Tensor
    keys: Tensor
    edges: Tensor
    edge_offsets: Tensor
    scales: Tensor
    whole: Tensor | None
    value_vectors: nn.Parameter | None
    projection: nn.Parameter | None

    def __init__(self, n_items: int, width: int, names: Sequence[str], own_dropout: float) -> None:
        super().__init__(n_items + 1, width)
        self.names, self.own_dropout = tuple(names), own_dropout
        self.register_parameter("value_vectors", None)
        self.register_parameter("projection", None)
        self.register_buffer("trained", torch.ones(n_items + 1, dtype=torch.bool))
        for name, dtype in _RAGGED.items():
            self.register_buffer(name, torch.zeros(0, dtype=dtype))
        self.register_buffer("whole", None, persistent=False)

    # ---- the data ---------------------------------------------------------------------------------------------------

    def prepare(self, dataset: Dataset) -> None:
        """Read the features of the items, and draw the first weights of the content, in the size of the own vectors."""
        assert dataset.item_table is not None
        counts = dataset.item_counts()
        self.trained.copy_(torch.from_numpy(counts > 0))
        self.trained[0] = True
        coding = Coding.of(dataset.item_table, self.names, counts > 0)
        for name in ("keys", "edges", "edge_offsets", "scales"):
            self._replace(name, getattr(coding, name))
        self.read(dataset.item_table)
        width, size = self.weight.shape[1], float(self.weight.detach().std())
        share = size / np.sqrt(len(self.names))
        if len(self.keys):
            self.value_vectors = nn.Parameter(torch.randn(len(self.keys), width) * share)
        if self.vectors.shape[1]:
            self.projection = nn.Parameter(torch.randn(width, self.vectors.shape[1]) * share)

    def coding(self) -> Coding:
        """The coding of the values, with which other tables of items are read."""
        parts = (getattr(self, name).cpu().numpy() for name in ("keys", "edges", "edge_offsets", "scales"))
        return Coding(self.names, *parts)

    def read(self, table: Table) -> None:
        """Replace the features by those of a table of as many items, such as one with corrected rows."""
        features = self.coding().read(table)
        for name in ("offsets", "values", "vectors"):
            self._replace(name, getattr(features, name))

    def take(self, former: ContentTable, table: Table, trained: npt.NDArray[np.bool_] | None = None) -> None:
        """Take the content of a former model, and read a table with its coding: its weights have that meaning.

        Parameters
        ----------
        former
            Table of a model with the same columns.
        table
            The item table, with a row for each item of this model.
        trained
            (n_items + 1,) mask of the items whose values join the coding; their vectors are zero at first. None adds
            none.
        """
        known = former.coding()
        coding = known if trained is None else known.extended(table, trained)
        for name in ("keys", "edges", "edge_offsets", "scales"):
            self._replace(name, getattr(coding, name))
        self.read(table)
        if len(coding.keys):
            vectors = self.weight.new_zeros(len(coding.keys), self.weight.shape[1])
            if former.value_vectors is not None:
                rows = torch.from_numpy(np.searchsorted(coding.keys, known.keys)).to(vectors.device)
                vectors[rows] = former.value_vectors.detach().to(vectors.device)
            self.value_vectors = nn.Parameter(vectors)
        if former.projection is not None:
            if former.projection.shape[1] != self.vectors.shape[1]:
                raise ConfigError(
                    f"the vectors of the item table have {self.vectors.shape[1]} numbers, and those of the model's "
                    f"table {former.projection.shape[1]}: give vectors of the same columns and widths."
                )
            self.projection = nn.Parameter(former.projection.detach().clone().to(self.weight.device))

    def has_content(self) -> Tensor:
        """Mask (n_items + 1,) of the items with a value or a vector."""
        return (self.offsets[1:] > self.offsets[:-1]) | (self.vectors != 0).any(1)

    def _replace(self, name: str, array: Any) -> None:
        old = getattr(self, name)
        setattr(self, name, torch.from_numpy(np.ascontiguousarray(array)).to(dtype=old.dtype, device=old.device))

    # ---- vectors ----------------------------------------------------------------------------------------------------

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors (…, width) of item codes (…,)."""
        if not self.training:
            return F.embedding(codes, self.all())
        distinct, inverse = torch.unique(codes, return_inverse=True)
        return self._of(distinct)[inverse]

    def all(self) -> Tensor:
        """Vectors (n_items + 1, width) of all items."""
        if self.whole is not None:
            return self.whole
        vectors = self.weight * self._kept()[:, None]
        if self.value_vectors is not None:
            vectors = vectors + _sums(self.value_vectors, self.values, self.offsets)
        return self._with_given(vectors, self.vectors)

    def with_rows(self, *codes: Tensor) -> Tensor:
        """Table (n_items + 1, width) with the vectors of these item codes; all other rows are 0."""
        if not self.training:
            return self.all()
        distinct = torch.unique(torch.cat([one.flatten().long() for one in codes]))
        return self.weight.new_zeros(self.weight.shape).index_copy(0, distinct, self._of(distinct))

    def settle(self) -> None:
        """Compute the vectors of all items once, for a model that no longer changes."""
        self.whole = None
        self.whole = self.all()

    def _of(self, codes: Tensor) -> Tensor:
        """Vectors (n, width) of distinct item codes (n,)."""
        vectors = super().forward(codes) * self._kept(codes)[:, None]
        if self.value_vectors is not None:
            starts = self.offsets[codes]
            lengths = self.offsets[codes + 1] - starts
            ends = lengths.cumsum(0)
            first = ends - lengths
            within = torch.arange(int(ends[-1]) if len(ends) else 0, device=codes.device)
            values = self.values[within + torch.repeat_interleave(starts - first, lengths)]
            vectors = vectors + _sums(self.value_vectors, values, F.pad(ends, (1, 0)))
        return self._with_given(vectors, self.vectors[codes] if self.projection is not None else self.vectors)

    def _kept(self, codes: Tensor | None = None) -> Tensor:
        """Factors (n,), 1 or 0, of the own vectors of distinct item codes (n,), or of all; padding is always kept."""
        kept = self.trained if codes is None else self.trained[codes]
        if self.training and self.own_dropout:
            drawn = torch.rand(len(kept), device=kept.device) >= self.own_dropout
            padding = torch.arange(len(kept), device=kept.device) == 0 if codes is None else codes == 0
            kept = kept & (drawn | padding)
        return kept.to(self.weight.dtype)

    def _with_given(self, vectors: Tensor, given: Tensor) -> Tensor:
        """The vectors (n, width) plus the projections of the given vectors (n, given width)."""
        return vectors if self.projection is None else vectors + F.linear(given.to(vectors.dtype), self.projection)

    # ---- candidates -------------------------------------------------------------------------------------------------

    def candidates(self) -> Int64 | None:
        """Codes (m,) of the items that occur in training; None if all do."""
        return None if bool(self.trained.all()) else np.flatnonzero(self.trained[1:].cpu().numpy()) + 1

    def catalogue(self, vectors: Tensor) -> Catalogue:
        """Items of a full softmax: those that occur in training."""
        if bool(self.trained.all()):
            return Catalogue(vectors)
        rows = self.trained.long().cumsum(0) - 1
        known = torch.nonzero(self.trained)[:, 0]
        return Catalogue(vectors.index_select(0, known), known[1:], torch.where(self.trained, rows, 0))

    # ---- storage ----------------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The sizes depend on the data: make buffers and parameters of the size to load.
        for name in _RAGGED:
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and saved.shape != own.shape:
                setattr(self, name, own.new_empty(saved.shape))
        for name in ("value_vectors", "projection"):
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and (own is None or own.shape != saved.shape):
                setattr(self, name, nn.Parameter(self.weight.new_empty(saved.shape)))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fault(self) -> str | None:
        """Features of items or values that do not exist."""
        n, offsets = self.num_embeddings, self.offsets
        if self.keys.shape != ((0,) if self.value_vectors is None else self.value_vectors.shape[:1]):
            return "the values and their vectors have other numbers"
        if offsets.shape != (n + 1,) or int(offsets[0]) != 0 or int(offsets[-1]) != len(self.values):
            return "the offsets of the features do not rise from 0 to their number"
        if bool((offsets[1:] < offsets[:-1]).any()):
            return "the offsets of the features fall"
        if len(self.values) and not 0 <= int(self.values.min()) <= int(self.values.max()) < len(self.keys):
            return "an item has a value that does not exist"
        width = 0 if self.projection is None else self.projection.shape[1]
        if self.vectors.shape != (n, width):
            return "the given vectors do not fit their projection"
        edges = self.edge_offsets
        if self.edges.ndim != 1 or len(edges) < 1 or int(edges[-1]) != len(self.edges) or int(edges[0]) != 0:
            return "the offsets of the buckets do not rise from 0 to their number"
        return None


def item_table(n_items: int, width: int, features: object, own_dropout: float) -> ItemTable:
    """Table of a model with these resolved features; a plain or divided one (`dividing`) if they are None."""
    division = current_division()
    if not features:
        return ItemTable(n_items + 1, width) if division is None else DividedItemTable(n_items + 1, width, division)
    assert isinstance(features, tuple)
    return ContentTable(n_items, width, features, own_dropout)


def _sums(table: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
    """Sums (n, width) of the rows of a table, for ragged values with offsets (n + 1,)."""
    return F.embedding_bag(values, table, offsets, mode="sum", include_last_offset=True)
