"""Losses of next-item prediction, as functions of scores. Each returns the sum over the positions of a batch.

| loss | scores it needs | negatives | use it when |
|---|---|---|---|
| `bce` | target, k negatives | never in the user's history | you reproduce SASRec and SSE-PT (k = 1) |
| `gbce` | target, k negatives | never in the user's history | you want calibrated probabilities from few negatives |
| `sampled_softmax` | target, shared negatives | any item; hits of the target masked | the catalogue is large |
| `full_softmax` | vectors, the whole item table | every other item | the catalogue fits: exact, no sampling noise |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bce(targets: Tensor, negatives: Tensor) -> Tensor:
    """Binary cross-entropy: targets are ones, negatives zeros (Kang & McAuley 2018, equation 7).

    Parameters
    ----------
    targets
        (n,) scores of the targets.
    negatives
        (n, k) scores of k negatives per position.
    """
    return -(F.logsigmoid(targets).sum() + F.logsigmoid(-negatives).sum())


def gbce(targets: Tensor, negatives: Tensor, n_items: int, calibration: float) -> Tensor:
    """Generalised BCE: the target's log-sigmoid weighed by β (Petrov & Macdonald 2023, equation 8), exactly.

    With sampling rate α = k / (n_items - 1), β = α (t (1 - 1/α) + 1/α).

    Parameters
    ----------
    targets, negatives
        As in `bce`.
    n_items
        Size of the catalogue.
    calibration
        t in [0, 1]; 0 is plain BCE with k negatives, 1 is fully calibrated.
    """
    alpha = negatives.shape[1] / max(n_items - 1, 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    return -(beta * F.logsigmoid(targets).sum() + F.logsigmoid(-negatives).sum())


def sampled_softmax(targets: Tensor, negatives: Tensor, hits: Tensor, log_counts: Tensor | None = None) -> Tensor:
    """Cross-entropy of the target among itself and the negatives, with the logQ correction if `log_counts` are given.

    With it, exp(score) of each negative is divided by how often that item is expected among them (Bengio & Senécal
    2008; Yi et al. 2019), so that over the draws the sum of the negatives is that of all other items, and the more
    negatives, the nearer the loss is to the full softmax. The target is not drawn, and is not corrected.

    Parameters
    ----------
    targets
        (n,) scores of the targets.
    negatives
        (n, k) scores of the negatives.
    hits
        (n, k) bool: the negative is the target; it is left out.
    log_counts
        (k,) logarithms of how often each negative is expected among the k.
    """
    if log_counts is not None:
        negatives = negatives - log_counts
    negatives = negatives.masked_fill(hits, float("-inf"))
    return (torch.logaddexp(targets, torch.logsumexp(negatives, dim=1)) - targets).sum()


def full_softmax(vectors: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the target among all items, without ever holding positions × items scores.

    Parameters
    ----------
    vectors
        (n, width) one vector per position.
    items
        (n_items, width) vectors of the items with codes 1 … n_items.
    targets
        (n,) int64 item codes.
    """
    chunks = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(vectors, items, targets - 1, reduction="sum", options=chunks)
