"""Encoders of HSTU, written from the equations of the papers in float64 NumPy, one history at a time, item by item.

`own` has the tensors of a module by name, `x` the vectors (length, width) of a history, oldest first.
"""

from __future__ import annotations

import numpy as np

from tests.models.paper import Array, Weights, time_bucket


def standardised(x: Array, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def hstu(own: Weights, x: Array, blocks: int, heads: int, max_length: int, times: list[int] | None) -> Array:
    """Equations 1 to 3 of Zhai et al. (2024)."""
    length, width = x.shape
    x = x * np.sqrt(width)
    if "encoder.positions.weight" in own:
        x = x + own["encoder.positions.weight"][max_length - length :]
    size = width // heads
    for block in range(blocks):
        name = f"encoder.blocks.{block}"
        gate, value, query, key = np.split(silu(standardised(x, 1e-6) @ own[f"{name}.inner.weight"].T), 4, axis=1)
        mixed = np.zeros_like(x)
        for now, head in np.ndindex(length, heads):
            part = slice(head * size, (head + 1) * size)
            for past in range(now + 1):
                score = query[now, part] @ key[past, part]
                if f"{name}.bias.positions" in own:
                    score += own[f"{name}.bias.positions"][head, now - past]
                if f"{name}.bias.times" in own and times is not None:
                    bucket = time_bucket(times[now] - times[past], int(own["encoder.gap"]))
                    score += own[f"{name}.bias.times"][head, bucket]
                mixed[now, part] += silu(score) / max_length * value[past, part]
        gated = gate * standardised(mixed, 1e-6)
        x = x + gated @ own[f"{name}.outer.weight"].T + own[f"{name}.outer.bias"]
    return x
