"""Encoders of HSTU, BERT4Rec and LRURec, from the equations of the papers: float64 NumPy, one history at a time.

`own` has the tensors of a module by name, `x` the vectors (length, width) of a history, oldest first.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from tests.models.paper import Array, Weights, softmax, time_bucket


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


def layer_norm(own: Weights, name: str, x: Array, epsilon: float) -> Array:
    return standardised(x, epsilon) * own[f"{name}.weight"] + own[f"{name}.bias"]


def linear(own: Weights, name: str, x: Array) -> Array:
    return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def bert4rec(own: Weights, x: Array, masks: Array, blocks: int, heads: int) -> Array:
    """Encoder and last layer of Sun et al. (2019); `masks` (length,) is True for masked items."""
    length, width = x.shape
    x = np.where(masks[:, None], own["encoder.mask"], x)
    positions = own["encoder.positions.weight"]
    x = layer_norm(own, "encoder.input_norm", x + positions[len(positions) - length :], 1e-12)
    size = width // heads
    for block in range(blocks):
        name = f"encoder.blocks.{block}"
        before = "encoder.final_norm.weight" in own
        read = layer_norm(own, f"{name}.attention_norm", x, 1e-12) if before else x
        query, key, value = np.split(linear(own, f"{name}.query_key_value", read), 3, axis=1)
        mixed = np.zeros_like(x)
        for now, head in np.ndindex(length, heads):
            part = slice(head * size, (head + 1) * size)
            mixed[now, part] = softmax(key[:, part] @ query[now, part] / np.sqrt(size)) @ value[:, part]
        x = x + linear(own, f"{name}.output", mixed)
        x = x if before else layer_norm(own, f"{name}.attention_norm", x, 1e-12)
        read = layer_norm(own, f"{name}.feed_forward_norm", x, 1e-12) if before else x
        x = x + linear(own, f"{name}.feed_forward.outer", gelu(linear(own, f"{name}.feed_forward.inner", read)))
        x = x if before else layer_norm(own, f"{name}.feed_forward_norm", x, 1e-12)
    if "encoder.final_norm.weight" in own:
        x = layer_norm(own, "encoder.final_norm", x, 1e-12)
    return layer_norm(own, "encoder.last_norm", gelu(linear(own, "encoder.last", x)), 1e-12)


def lrurec(own: Weights, x: Array, blocks: int) -> Array:
    """Encoder of Yue et al. (2024), with complex numbers, step by step."""
    x = layer_norm(own, "encoder.input_norm", x, 1e-5)
    for block in range(blocks):
        name = f"encoder.blocks.{block}"
        unit = f"{name}.recurrence"
        factor = np.exp(-np.exp(own[f"{unit}.decay"]) + 1j * np.exp(own[f"{unit}.angle"]))
        real, imaginary = np.split(linear(own, f"{unit}.inner", x), 2, axis=1)
        inputs = np.exp(own[f"{unit}.scale"]) * (real + 1j * imaginary)
        state, states = np.zeros(len(factor), dtype=np.complex128), []
        for given in inputs:
            state = factor * state + given
            states.append(state)
        c_real, c_imaginary = np.split(own[f"{unit}.outer.weight"], 2, axis=1)
        mixed = (np.array(states) @ (c_real - 1j * c_imaginary).T).real + own[f"{unit}.outer.bias"]
        x = layer_norm(own, f"{name}.recurrence_norm", x + mixed, 1e-5)
        inner = gelu(linear(own, f"{name}.feed_forward.inner", x))
        x = layer_norm(own, f"{name}.feed_forward_norm", x + linear(own, f"{name}.feed_forward.outer", inner), 1e-5)
    return x
