"""Scores of items from queries, usually by a product with a prepared table of item vectors.

`scores()` of a model returns an `ItemScores` for one state of the weights, which never changes. Models that score by a
product share `ProductScores`; others have their own class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from segue.nn.divided import Division


class ItemScores(ABC):
    """Scores of items for the queries of `Model.encode`. Items are codes; the score of code 0 is meaningless."""

    @abstractmethod
    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) float32 of the item codes start … stop - 1, written into `out` if given."""

    @abstractmethod
    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) float32 of `items` (batch, n) int64."""

    @property
    def products(self) -> ProductScores | None:
        """Products with item vectors that the order of the items comes from; None if it comes from something else."""
        return None

    @property
    def division(self) -> Division | None:
        """Place of this process if the items are divided over processes; None if all are here."""
        return None

    @property
    def own_codes(self) -> range | None:
        """Codes that `all` can score in this process, if the items are divided; None for all."""
        return None


class ProductScores(ItemScores):
    """Scores by products of queries and item vectors.

    Parameters
    ----------
    vectors
        (n_items + 1, width) item vectors.
    offset
        Read one more column of the queries, and add it to every score of its row.
    """

    def __init__(self, vectors: Tensor, offset: bool = False) -> None:
        self.vectors = vectors.detach()
        self.offset = offset

    @property
    def products(self) -> ProductScores:
        """The scores themselves."""
        return self

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) of the item codes start … stop - 1."""
        directions = queries[:, :-1] if self.offset else queries
        scores = torch.mm(directions, self.vectors[start:stop].T, out=out)
        return scores.add_(queries[:, -1:]) if self.offset else scores

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) of `items` (batch, n)."""
        directions = queries[:, :-1] if self.offset else queries
        scores = torch.einsum("bd,bnd->bn", directions, F.embedding(items, self.vectors))
        return scores + queries[:, -1:] if self.offset else scores


class AddedScores(ItemScores):
    """Scores of a model plus the additions that stand behind its queries.

    Parameters
    ----------
    base
        Scores of the model without the additions.
    width
        Number of columns of its queries. Behind them stand pairs of an item code and its addition, the codes ascending,
        and zeros.
    """

    def __init__(self, base: ItemScores, width: int) -> None:
        self.base, self.width = base, width

    @property
    def products(self) -> ProductScores | None:
        """Products of the model without the additions."""
        return self.base.products

    @property
    def division(self) -> Division | None:
        """Place of this process if the items of the model without the additions are divided."""
        return self.base.division

    @property
    def own_codes(self) -> range | None:
        """Codes that `all` can score in this process, if they are divided."""
        return self.base.own_codes

    def codes(self, queries: Tensor) -> Tensor:
        """Codes (batch, r) int64 of the items with additions, 0 = none."""
        return self._pairs(queries)[0]

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) of the item codes start … stop - 1."""
        scores = self.base.all(queries[:, : self.width], start, stop, out)
        codes, added = self._pairs(queries)
        rows, columns = torch.nonzero((codes >= max(start, 1)) & (codes < stop), as_tuple=True)
        scores[rows, codes[rows, columns] - start] += added[rows, columns]
        return scores

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) of `items` (batch, n)."""
        scores = self.base.of(queries[:, : self.width], items)
        codes, added = self._pairs(queries)
        if not codes.shape[1]:
            return scores
        codes = torch.where(codes > 0, codes, torch.iinfo(codes.dtype).max)
        columns = torch.searchsorted(codes, items.contiguous()).clamp_(max=codes.shape[1] - 1)
        return scores + torch.where(codes.gather(1, columns) == items, added.gather(1, columns), 0)

    def _pairs(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Item codes (batch, r) int64 and additions (batch, r)."""
        pairs = queries[:, self.width :].reshape(len(queries), -1, 2)
        return pairs[..., 0].long().contiguous(), pairs[..., 1]
