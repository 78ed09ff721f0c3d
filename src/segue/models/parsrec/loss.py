"""Losses that compare one target with every item of the catalogue, with stored or recomputed scores."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segue.nn.softmax import softmax_and_total

CatalogueLossName = Literal["softmax", "bce", "mse"]

_CHUNK_BYTES = 32 << 20


def catalogue_loss(
    name: CatalogueLossName, vectors: Tensor, items: Tensor, targets: Tensor, scores: Tensor | None = None
) -> Tensor:
    """Summed loss of n positions over all items, with s = vectors · itemsᵀ and y the one-hot row of the target.

    - **softmax**: −log softmax(s)[target], the categorical cross-entropy;
    - **bce**: −log σ(s[target]) − Σ over the other items of log(1 − σ(s));
    - **mse**: Σ over all items of (s − y)².

    Parameters
    ----------
    name
        Name of the loss.
    vectors
        (n, width), one vector per position.
    items
        (n_items, width) item vectors.
    targets
        (n,) int64 rows of `items`.
    scores
        (n, n_items) scores s, if they are already computed; they are overwritten. Otherwise the scores are computed in
        chunks of rows, once for the loss and once for its gradient, and memory never holds all of them.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.to(items.dtype)
        loss: Tensor = _CatalogueLoss.apply(name, vectors, items, targets, scores)  # type: ignore[no-untyped-call]
    return loss


class _CatalogueLoss(torch.autograd.Function):
    """Loss with ∂loss/∂s computed in the forward pass from stored scores; the backward pass is two matrix products."""

    @staticmethod
    def forward(
        ctx: Any, name: CatalogueLossName, vectors: Tensor, items: Tensor, targets: Tensor, scores: Tensor | None
    ) -> Tensor:
        ctx.name = name
        if scores is not None:
            loss, residual = _with_residual(name, scores, targets)
            ctx.save_for_backward(vectors, items, targets, residual)
            return loss
        ctx.save_for_backward(vectors, items, targets)
        parts = [_with_residual(name, vectors[rows] @ items.T, targets[rows])[0] for rows in _chunks(vectors, items)]
        return torch.stack(parts).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vectors, items, targets, *kept = ctx.saved_tensors
        if kept:
            residual = kept[0]
            return None, (residual @ items).mul_(gradient), residual.T @ (vectors * gradient), None, None
        vector_gradient, item_gradient = torch.empty_like(vectors), torch.zeros_like(items)
        for rows in _chunks(vectors, items):
            _, residual = _with_residual(ctx.name, vectors[rows] @ items.T, targets[rows])
            vector_gradient[rows] = (residual @ items).mul_(gradient)
            item_gradient.addmm_(residual.T, vectors[rows] * gradient)
        return None, vector_gradient, item_gradient, None, None


def _chunks(vectors: Tensor, items: Tensor) -> list[slice]:
    size = max(1, _CHUNK_BYTES // (items.element_size() * len(items)))
    return [slice(first, first + size) for first in range(0, len(vectors), size)]


def _with_residual(name: CatalogueLossName, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss and ∂loss/∂s (n, n_items); `scores` may be overwritten."""
    column = targets[:, None]
    target_scores = scores.gather(1, column)
    one = torch.ones_like(target_scores)
    if name == "softmax":
        shares, total = softmax_and_total(scores)
        return (total - target_scores[:, 0]).sum(), shares.scatter_add_(1, column, -one)
    if name == "bce":
        loss = F.softplus(scores).sum() - target_scores.sum()
        return loss, scores.sigmoid_().scatter_add_(1, column, -one)
    loss = scores.square().sum() - 2 * target_scores.sum() + len(target_scores)
    return loss, scores.scatter_add_(1, column, -one).mul_(2)
