"""Similarity of hidden states and item vectors."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.errors import ConfigError

LEARNT_TEMPERATURES = (0.01, 1.0)
"""Limits of a learnt temperature."""


def check_learnt_temperature(start: float) -> None:
    """Raise a ConfigError if a learnt temperature cannot start at this value."""
    low, high = LEARNT_TEMPERATURES
    if not low < start < high:
        raise ConfigError(
            f"temperature={start}: with learn_temperature=True it is the start; expected between {low} and {high}."
        )


class Similarity(nn.Module):
    """Similarity of hidden states and item vectors: dot product, or cosine divided by a temperature.

    Both are dot products of the results of `query` and `item`. A learnt temperature (as in CLIP, Radford et al. 2021)
    stays between 0.01 and 1. It is lowest^(1 - s) · highest^s, with s the sigmoid of a parameter, so it has a gradient
    everywhere.

    Parameters
    ----------
    name
        "dot" or "cosine".
    temperature
        Divisor of the cosine.
    learn
        Learn the temperature, starting at the given one.
    """

    def __init__(self, name: Literal["dot", "cosine"], temperature: float = 1.0, learn: bool = False) -> None:
        super().__init__()
        self.name = name
        self._fixed = temperature
        self.warmth: nn.Parameter | None = None
        if learn and name == "cosine":
            check_learnt_temperature(temperature)
            low, high = LEARNT_TEMPERATURES
            self.warmth = nn.Parameter(torch.tensor(math.log(temperature / low) / math.log(high / low)).logit())

    @property
    def temperature(self) -> float | Tensor:
        """Divisor of the cosine."""
        if self.warmth is None:
            return self._fixed
        low, high = LEARNT_TEMPERATURES
        return low * (math.log(high / low) * self.warmth.sigmoid()).exp()

    def query(self, hidden: Tensor) -> Tensor:
        """Hidden states (n, width), ready for a dot product."""
        return hidden if self.name == "dot" else F.normalize(hidden, dim=-1) / self.temperature

    def item(self, vectors: Tensor) -> Tensor:
        """Item vectors (n, width), ready for a dot product."""
        return vectors if self.name == "dot" else F.normalize(vectors, dim=-1)
