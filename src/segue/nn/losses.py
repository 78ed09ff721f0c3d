"""Losses of next-item prediction, as functions of scores. Each returns the sum over the positions of a batch.

| loss | scores it needs | negatives | use it when |
|---|---|---|---|
| `bce` | target, k negatives | never in the user's history | you reproduce SASRec and SSE-PT (k = 1) |
| `gbce` | target, k negatives | never in the user's history | you want calibrated probabilities from few negatives |
| `sampled_softmax` | target, shared negatives | any item; hits of the target masked | the catalogue is large |
| `bpr_max` | target, shared negatives | any item; hits of the target masked | you reproduce GRU4Rec's best loss |
| `top1_max`, `top1`, `bpr` | target, shared negatives | the same | you reproduce earlier losses of GRU4Rec |
| `full_softmax` | vectors, the whole item table | every other item | the catalogue fits: exact, no sampling noise |
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from segue.nn.full_softmax import full_softmax as full_softmax
from segue.nn.softmax import softmax_and_total

_TINY = 1e-24
"""Lower limit of the probability before its logarithm, as in the program of GRU4Rec."""


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
    """Generalised BCE: the log-sigmoid of the target is weighted by β (Petrov & Macdonald 2023, equation 8).

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


def sampled_softmax(
    targets: Tensor, negatives: Tensor, hits: tuple[Tensor, Tensor], log_counts: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the target among itself and the negatives, with the logQ correction if `log_counts` are given.

    The correction divides exp(score) of each negative by the expected count of that item among the negatives (Bengio &
    Senécal 2008; Yi et al. 2019). So the expected sum over the negatives is the sum over all other items, and with more
    negatives the loss approaches the full softmax. The target is not drawn, so its score is not corrected.

    Parameters
    ----------
    targets
        (n,) scores of the targets.
    negatives
        (n, k) scores of the negatives; this tensor is overwritten.
    hits
        Rows (m,) and columns (m,) of the negatives that equal the target, from `shared_hits`; they are left out.
    log_counts
        (k,) logarithms of the expected count of each negative among the k.
    """
    with torch.autocast(negatives.device.type, enabled=False):
        if negatives.dtype in (torch.bfloat16, torch.float16):
            negatives = negatives.float()  # for sums over many items, and differences of nearly equal numbers
        loss: Tensor = _SampledSoftmax.apply(targets.to(negatives.dtype), negatives, *hits, log_counts)  # type: ignore[no-untyped-call]
    return loss


def bpr_max(targets: Tensor, negatives: Tensor, counted: Tensor, penalty: float) -> Tensor:
    """BPR-max (Hidasi & Karatzoglou 2018, equation 10): -log Σ_j s_j σ(r_t - r_j) + penalty · Σ_j s_j r_j².

    Parameters
    ----------
    targets
        (n,) scores r_t of the targets.
    negatives
        (n, k) scores r_j of the negatives; s_j is their softmax.
    counted
        (n, k) bool; False leaves a negative out. A row without negatives has loss 0.
    penalty
        Weight of the penalty on the scores of the negatives.
    """
    shares = _shares(negatives, counted)
    probabilities = (shares * (targets[:, None] - negatives).sigmoid()).sum(1)
    probabilities = torch.where(counted.any(1), probabilities, 1.0)
    return -probabilities.clamp_min(_TINY).log().sum() + penalty * (shares * negatives.square()).sum()


def top1_max(targets: Tensor, negatives: Tensor, counted: Tensor) -> Tensor:
    """TOP1-max (Hidasi & Karatzoglou 2018, equation 8): Σ_j s_j (σ(r_j - r_t) + σ(r_j²)).

    Parameters are those of `bpr_max`.
    """
    return (_shares(negatives, counted) * _top1_terms(targets, negatives)).sum()


def top1(targets: Tensor, negatives: Tensor, counted: Tensor) -> Tensor:
    """TOP1 (Hidasi et al. 2016, section 3.1.3): the mean over the negatives of σ(r_j - r_t) + σ(r_j²).

    Parameters are those of `bpr_max`.
    """
    return _mean_over(_top1_terms(targets, negatives), counted)


def bpr(targets: Tensor, negatives: Tensor, counted: Tensor) -> Tensor:
    """BPR (Rendle et al. 2009): the mean over the negatives of -log σ(r_t - r_j).

    Parameters are those of `bpr_max`.
    """
    return _mean_over(-F.logsigmoid(targets[:, None] - negatives), counted)


def _top1_terms(targets: Tensor, negatives: Tensor) -> Tensor:
    return (negatives - targets[:, None]).sigmoid() + negatives.square().sigmoid()


def _mean_over(terms: Tensor, counted: Tensor) -> Tensor:
    """Sum over the rows of the mean of the counted terms (n, k)."""
    return ((terms * counted).sum(1) / counted.sum(1).clamp_min(1)).sum()


def _shares(scores: Tensor, counted: Tensor) -> Tensor:
    """Softmax (n, k) of the counted scores; 0 for the others."""
    return scores.masked_fill(~counted, -torch.inf).softmax(1).nan_to_num(0.0)


def shared_hits(targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (m,) and columns (m,) of the pairs of a target (n,) and a negative (k,) that are the same item.

    Sorting the negatives avoids n · k comparisons, which take as long as the exponentials of the loss.
    """
    ordered, order = negatives.sort()
    first, last = torch.searchsorted(ordered, targets), torch.searchsorted(ordered, targets, right=True)
    counts = last - first
    rows = torch.repeat_interleave(counts)
    within = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    return rows, order[first[rows] + within]


class _SampledSoftmax(torch.autograd.Function):
    """Sampled softmax. The forward pass computes the softmax of the negatives; the gradient is a multiple of it.

    Let c = Σ exp(negatives) and t the score of the target. The loss is log(exp(t) + c) - t, so
    ∂loss/∂t = -c / (exp(t) + c). The gradients of the negatives sum to the opposite, in proportion to their softmax.
    """

    @staticmethod
    def forward(
        ctx: Any, targets: Tensor, negatives: Tensor, rows: Tensor, columns: Tensor, log_counts: Tensor | None
    ) -> Tensor:
        if log_counts is not None:
            negatives -= log_counts
        negatives[rows, columns] = -torch.inf
        shares, total = softmax_and_total(negatives)
        empty = total == -torch.inf
        if bool(empty.any()):
            shares[empty] = 0.0
        behind = total - targets
        ctx.save_for_backward(shares, behind.sigmoid())
        return -F.logsigmoid(-behind).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares, missed = ctx.saved_tensors
        missed = missed * gradient
        return -missed, shares * missed[:, None], None, None, None
