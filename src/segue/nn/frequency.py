"""Frequency branch beside the attention, as in BSARec, causal and for histories of any length.

Shin, Choi, Wi & Park, *An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention* (AAAI
2024): a Fourier transform over the padded history keeps its lowest frequencies, low(X), and the branch is
low(X) + β² ⊙ (X - low(X)), with a learnt β for each channel. That filter reads later items and the padding, so the
state at an item depends on its future and on `max_length`. Here low(X) is a causal low-pass filter instead.

The simplest causal low-pass filter has one real pole ρ between 0 and 1: its impulse response is ρᵏ at a distance of k
items, an exponential moving average. Its gain (1 - ρ) / |1 - ρ exp(-iω)| is 1 at frequency 0 and falls to
(1 - ρ) / (1 + ρ) at π. Like the constant part of the Fourier transform, a constant history must pass unchanged, also a
short one. So the weights are divided by their sum over the items that there are:

    low(X)ₜ = Σₛ ρᵗ⁻ˢ Xₛ / Σₛ ρᵗ⁻ˢ, over the items s ≤ t

It is a softmax of (t - s) log ρ. ρ is learnt, one for each block, as the paper chooses one cut-off. It starts where the
power at the paper's cut-off is one half: with 2 π · 2 / 50 for c = 5 and 50 items, 2 - cos ω - √((2 - cos ω)² - 1) is
0.78.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FIRST_POLE = 0.78


class FrequencyBranch(nn.Module):
    """Causal low-pass filter plus the weighted rest: low(x) + β² ⊙ (x - low(x)).

    Parameters
    ----------
    width
        Number of channels, each with its own β.

    Parameters of the module
    ------------------------
    pole
        () logit of ρ.
    root_weight
        (width,) β, drawn from a normal distribution, as in the authors' program.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pole = nn.Parameter(torch.tensor(_FIRST_POLE).logit())
        self.root_weight = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """Branch (b, length, width) of inputs of that shape, oldest first; each item reads itself and earlier ones."""
        steps = torch.arange(x.shape[1], device=x.device)
        weights = self._weights(steps[:, None] - steps).to(x.dtype)
        # A product per history: `weights @ x` would be one product of transposed copies, which is slower.
        return self._mixed(torch.bmm(weights.expand(x.shape[0], -1, -1), x), x)

    def newest(self, x: Tensor, newest: Tensor) -> Tensor:
        """Branch (b, width) at the positions `newest` (b,) of inputs (b, length, width)."""
        rows, steps = torch.arange(x.shape[0], device=x.device), torch.arange(x.shape[1], device=x.device)
        weights = self._weights(newest[:, None] - steps).to(x.dtype)
        return self._mixed((weights[:, None] @ x)[:, 0], x[rows, newest])

    def _weights(self, distances: Tensor) -> Tensor:
        """Weights (…, length) for distances of that shape, 0 for negative ones; they sum to 1 over the last axis."""
        scores = distances * F.logsigmoid(self.pole)
        return scores.masked_fill(distances < 0, float("-inf")).softmax(-1)

    def _mixed(self, low: Tensor, x: Tensor) -> Tensor:
        # With bfloat16 the products are of that type, and a norm is not.
        return between(low.to(x.dtype), x, self.root_weight.square().to(x.dtype))


def between(first: Tensor, second: Tensor, share: Tensor | float) -> Tensor:
    """Return (1 - share) · first + share · second, as `torch.lerp` does, which is six operations in ONNX."""
    if torch.compiler.is_exporting():
        return first + share * (second - first)
    return torch.lerp(first, second, share)
