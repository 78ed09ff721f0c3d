"""How models compare what they expect with the items that there are."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.errors import ConfigError

LEARNT_TEMPERATURES = (0.01, 1.0)
"""Limits of a temperature that is learnt."""


def check_learnt_temperature(start: float) -> None:
    """Raise a ConfigError if training cannot start at this temperature."""
    low, high = LEARNT_TEMPERATURES
    if not low < start < high:
        raise ConfigError(
            f"temperature={start}: with learn_temperature=True it is the start; expected between {low} and {high}."
        )


class Similarity(nn.Module):
    """How hidden states meet item vectors: their dot product, or their cosine divided by a temperature.

    Both are a dot product of what `query` and `item` return. A temperature that is learnt (as in CLIP, Radford et al.
    2021) stays between 0.01 and 1: it is lowest^(1 - s) · highest^s with s the sigmoid of a parameter, which has a
    gradient everywhere.

    Parameters
    ----------
    name
        "dot" or "cosine".
    temperature
        Divides the cosine.
    learn
        Whether the temperature is only where training begins.
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
        """What divides the cosine."""
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
