"""Cross-entropy of targets among the whole catalogue, in pieces: neither positions × items scores nor a second item
table is ever held."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segue.nn.softmax import softmax_and_total

_CHUNK_BYTES = 16 << 20
"""Scores that are held at once: few enough to be worked on in the cache of a large processor."""
_FEWEST = 1_024
"""Items in a piece, at least: many positions make the scores more, not the pieces."""
_EPSILON = 1e-12


def full_softmax(vectors: Tensor, table: Tensor, targets: Tensor, normalise: bool = False) -> Tensor:
    """The summed loss log Σ exp(vectors · items) - vectors · target, the sum over all items.

    The items are taken piece by piece. Where they fit into one, their scores are made once; otherwise once for the sum,
    and once more for the gradients, which are made here and kept until they are asked for. So a step needs, besides the
    gradient of the table, little more than what it is given.

    Parameters
    ----------
    vectors
        (n, width) one vector per position.
    table
        (n_items + 1, width) vectors of the items; row 0 is nobody's and has no part.
    targets
        (n,) int64 rows of the table.
    normalise
        Whether each item's vector is divided by its length.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.to(table.dtype)
        wanted = torch.is_grad_enabled()
        loss: Tensor = _FullSoftmax.apply(vectors, table, targets, normalise, wanted)  # type: ignore[no-untyped-call]
    return loss


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, targets: Tensor, normalise: bool, graded: bool) -> Tensor:
        pieces, room = _pieces(vectors, table)
        total = vectors.new_full((len(vectors),), -torch.inf)
        for piece in pieces:
            shares, own = _softmax(vectors, _items(table[piece], normalise)[0], room)
            total = torch.logaddexp(total, own)
        wanted = (vectors * _items(table[targets], normalise)[0]).sum(1)
        ctx.gradients = None
        if graded and any(ctx.needs_input_grad):
            of_vectors, of_table = torch.zeros_like(vectors), torch.zeros_like(table)
            for piece in pieces:
                items, lengths = _items(table[piece], normalise)
                if len(pieces) > 1:
                    shares, own = _softmax(vectors, items, room)
                    shares.mul_((own - total).exp_()[:, None])
                inside = torch.nonzero((targets >= piece.start) & (targets < piece.stop))[:, 0]
                shares[inside, targets[inside] - piece.start] -= 1
                torch.addmm(of_vectors, shares, items, out=of_vectors)
                torch.mm(shares.T, vectors, out=of_table[piece])
                if lengths is not None:
                    along = (items * of_table[piece]).sum(1, keepdim=True)
                    of_table[piece].addcmul_(items, along, value=-1).div_(lengths)
            ctx.gradients = of_vectors, of_table
        return (total - wanted).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of the full softmax are made once, and were asked for before.")
        of_vectors, of_table = ctx.gradients
        ctx.gradients = None
        return of_vectors.mul_(gradient), of_table.mul_(gradient), None, None, None


def _pieces(vectors: Tensor, table: Tensor) -> tuple[list[slice], Tensor]:
    """Slices of the table without row 0, and room for the scores of the largest: one buffer for all of them, as many
    that come and go leave holes in memory."""
    size = max(_FEWEST, _CHUNK_BYTES // (table.element_size() * max(len(vectors), 1)))
    size = min(size, max(len(table) - 1, 1))
    pieces = [slice(first, min(first + size, len(table))) for first in range(1, len(table), size)]
    return pieces, vectors.new_empty(len(vectors) * size)


def _items(rows: Tensor, normalise: bool) -> tuple[Tensor, Tensor | None]:
    """Vectors of some items, and the lengths (n, 1) that they were divided by."""
    if not normalise:
        return rows, None
    lengths = rows.norm(dim=1, keepdim=True).clamp_min_(_EPSILON)
    return rows / lengths, lengths


def _softmax(vectors: Tensor, items: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax (n, items) of each position's scores, in `room`, and log Σ exp of them (n,)."""
    scores = torch.mm(vectors, items.T, out=room[: len(vectors) * len(items)].view(len(vectors), len(items)))
    return softmax_and_total(scores, in_place=True)
