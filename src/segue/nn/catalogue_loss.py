"""Losses that compare one target with every item of the catalogue, given the scores or able to make them again."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CatalogueLossName = Literal["softmax", "bce", "mse"]

_CHUNK_BYTES = 32 << 20


def catalogue_loss(
    name: CatalogueLossName, vectors: Tensor, items: Tensor, targets: Tensor, scores: Tensor | None = None
) -> Tensor:
    """The summed loss of n positions over all items, with s = vectors · itemsᵀ and y the target's one-hot row.

    - **softmax**: −log softmax(s)[target], the categorical cross-entropy;
    - **bce**: −log σ(s[target]) − Σ over the other items of log(1 − σ(s));
    - **mse**: Σ over all items of (s − y)².

    Parameters
    ----------
    name
        Which loss.
    vectors
        (n, width) one vector per position.
    items
        (n_items, width) the item vectors.
    targets
        (n,) int64 rows of `items`.
    scores
        (n, n_items) s, if it is at hand; it is overwritten. Without it the scores are made in chunks of rows, once for
        the loss and once for its gradient, and never held together.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.to(items.dtype)
        loss: Tensor = _CatalogueLoss.apply(name, vectors, items, targets, scores)  # type: ignore[no-untyped-call]
    return loss


class _CatalogueLoss(torch.autograd.Function):
    """∂loss/∂s is made in place of the scores, so that the backward pass is two matrix products."""

    @staticmethod
    def forward(
        ctx: Any, name: CatalogueLossName, vectors: Tensor, items: Tensor, targets: Tensor, scores: Tensor | None
    ) -> Tensor:
        ctx.name = name
        if scores is not None:
            loss, weights = _to_residual(name, scores, targets)
            ctx.save_for_backward(vectors, items, targets, scores, weights)
            return loss
        ctx.save_for_backward(vectors, items, targets)
        parts = [_to_residual(name, vectors[rows] @ items.T, targets[rows])[0] for rows in _chunks(vectors, items)]
        return torch.stack(parts).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vectors, items, targets, *kept = ctx.saved_tensors
        if kept:
            residual, weights = kept
            weights = weights * gradient
            return None, (residual @ items).mul_(weights), residual.T @ (vectors * weights), None, None
        vector_gradient, item_gradient = torch.empty_like(vectors), torch.zeros_like(items)
        for rows in _chunks(vectors, items):
            residual = vectors[rows] @ items.T
            weights = _to_residual(ctx.name, residual, targets[rows])[1] * gradient
            vector_gradient[rows] = (residual @ items).mul_(weights)
            item_gradient.addmm_(residual.T, vectors[rows] * weights)
        return None, vector_gradient, item_gradient, None, None


def _chunks(vectors: Tensor, items: Tensor) -> list[slice]:
    size = max(1, _CHUNK_BYTES // (items.element_size() * len(items)))
    return [slice(first, first + size) for first in range(0, len(vectors), size)]


def _to_residual(name: CatalogueLossName, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss, and weights (n, 1); `scores` becomes r, with ∂loss/∂s = weights · r."""
    wanted = scores.gather(1, targets[:, None])
    if name == "softmax":
        highest = scores.amax(1, keepdim=True)
        total = scores.sub_(highest).exp_().sum(1, keepdim=True)
        scores.scatter_add_(1, targets[:, None], -total)
        return (total.log() + highest - wanted).sum(), 1 / total
    one = torch.ones_like(wanted)
    if name == "bce":
        loss = F.softplus(scores).sum() - wanted.sum()
        scores.sigmoid_().scatter_add_(1, targets[:, None], -one)
        return loss, one
    loss = scores.square().sum() - 2 * wanted.sum() + len(wanted)
    scores.scatter_add_(1, targets[:, None], -one)
    return loss, 2 * one
