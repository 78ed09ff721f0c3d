"""Cross-entropy of targets among the whole catalogue, computed in pieces.

Memory never holds all positions × items scores or a second item table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segue.nn.softmax import softmax_and_total

_CHUNK_BYTES = 16 << 20
"""Size of the scores that are held at once, which fits into the cache of a large processor."""
_FEWEST_ITEMS = 1_024
"""Smallest number of items in a piece. Many positions make the scores larger, not the pieces smaller."""
_EPSILON = 1e-12


def full_softmax(vectors: Tensor, table: Tensor, targets: Tensor, normalise: bool = False) -> Tensor:
    """Summed loss log Σ exp(vectors · items) - vectors · target, with the inner sum over all items.

    The items are processed piece by piece. If they fit into one piece, their scores are computed once. Otherwise they
    are computed twice: for the sum and for the gradients. The forward pass computes the gradients and keeps them for
    the backward pass. So a step needs little more memory than its arguments and the gradient of the table.

    Parameters
    ----------
    vectors
        (n, width), one vector per position.
    table
        (n_items + 1, width) vectors of the items; row 0 is padding and does not count.
    targets
        (n,) int64 rows of the table.
    normalise
        Divide the vector of each item by its length.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.to(table.dtype)
        graded = torch.is_grad_enabled()
        loss: Tensor = _FullSoftmax.apply(vectors, table, targets, normalise, graded)  # type: ignore[no-untyped-call]
    return loss


class PiecewiseSoftmax:
    """Softmax of positions among the items of a table, computed in pieces.

    Parameters
    ----------
    vectors
        (n, width), one vector per position.
    table
        (rows, width) vectors of the items.
    targets
        (n,) int64 rows of the targets. Those outside the table are items of another part of it.
    normalise
        Divide the vector of each item by its length.
    first
        First row that counts: 1 if row 0 is padding, else 0.
    """

    def __init__(self, vectors: Tensor, table: Tensor, targets: Tensor, normalise: bool, first: int = 1) -> None:
        self._vectors, self._table, self._targets, self._normalise = vectors, table, targets, normalise
        self._pieces, self._buffer = _pieces(vectors, table, first)
        self._last: tuple[Tensor, Tensor] | None = None

    def sums(self) -> tuple[Tensor, Tensor]:
        """Logarithm (n,) of the sum of the exponentials of all scores, and scores (n,) of the targets.

        The score of a target outside the table is 0.
        """
        vectors, table = self._vectors, self._table
        total = vectors.new_full((len(vectors),), -torch.inf)
        for piece in self._pieces:
            self._last = _softmax(vectors, _items(table[piece], self._normalise)[0], self._buffer)
            total = torch.logaddexp(total, self._last[1])
        inside = (self._targets >= 0) & (self._targets < len(table))
        rows = torch.where(inside, self._targets, 0)
        if not len(table):
            return total, vectors.new_zeros(len(vectors))
        scores = (vectors * _items(table[rows], self._normalise)[0]).sum(1)
        return total, torch.where(inside, scores, 0.0)

    def gradients(self, total: Tensor, whole: bool = True) -> tuple[Tensor, Tensor]:
        """Gradients of the summed loss: those of the vectors, as far as they come from this table, and of the table.

        Parameters
        ----------
        total
            (n,) logarithm of the sum of the exponentials of the scores of all items, those of other tables too.
        whole
            True if this table has all items.
        """
        vectors, table, targets, pieces = self._vectors, self._table, self._targets, self._pieces
        of_vectors, of_table = torch.zeros_like(vectors), torch.zeros_like(table)
        for piece in pieces:
            items, lengths = _items(table[piece], self._normalise)
            assert self._last is not None
            shares, own = self._last if len(pieces) == 1 else _softmax(vectors, items, self._buffer)
            if len(pieces) > 1 or not whole:
                shares.mul_((own - total).exp_()[:, None])
            inside = torch.nonzero((targets >= piece.start) & (targets < piece.stop))[:, 0]
            shares[inside, targets[inside] - piece.start] -= 1
            torch.addmm(of_vectors, shares, items, out=of_vectors)
            torch.mm(shares.T, vectors, out=of_table[piece])
            if lengths is not None:
                along = (items * of_table[piece]).sum(1, keepdim=True)
                of_table[piece].addcmul_(items, along, value=-1).div_(lengths)
        return of_vectors, of_table


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, targets: Tensor, normalise: bool, graded: bool) -> Tensor:
        softmax = PiecewiseSoftmax(vectors, table, targets, normalise)
        total, target_scores = softmax.sums()
        ctx.gradients = softmax.gradients(total) if graded and any(ctx.needs_input_grad) else None
        return (total - target_scores).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_vectors, of_table = taken_gradients(ctx)
        return of_vectors.mul_(gradient), of_table.mul_(gradient), None, None, None


def taken_gradients(ctx: Any) -> tuple[Tensor, Tensor]:
    """The gradients that a forward pass has kept for its backward pass, which may change them.

    Raises
    ------
    RuntimeError
        They were taken before.
    """
    if ctx.gradients is None:
        raise RuntimeError("the gradients of the full softmax are computed once, and backward() has used them before.")
    gradients: tuple[Tensor, Tensor] = ctx.gradients
    ctx.gradients = None
    return gradients


def _pieces(vectors: Tensor, table: Tensor, first: int) -> tuple[list[slice], Tensor]:
    """Slices of the table from a first row on, and one buffer for the scores of any slice.

    A single buffer keeps memory from fragmenting.
    """
    size = max(_FEWEST_ITEMS, _CHUNK_BYTES // (table.element_size() * max(len(vectors), 1)))
    size = min(size, max(len(table) - first, 1))
    pieces = [slice(start, min(start + size, len(table))) for start in range(first, len(table), size)]
    return pieces, vectors.new_empty(len(vectors) * size)


def _items(rows: Tensor, normalise: bool) -> tuple[Tensor, Tensor | None]:
    """Vectors of some items, and the lengths (n, 1) by which they are divided, if any."""
    if not normalise:
        return rows, None
    lengths = rows.norm(dim=1, keepdim=True).clamp_min_(_EPSILON)
    return rows / lengths, lengths


def _softmax(vectors: Tensor, items: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax (n, items) of the scores of each position, in `buffer`, and log Σ exp of them (n,)."""
    scores = torch.mm(vectors, items.T, out=buffer[: len(vectors) * len(items)].view(len(vectors), len(items)))
    return softmax_and_total(scores, in_place=True)
