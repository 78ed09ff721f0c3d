"""Independent implementation of SASRec, SSE-PT and their losses from the papers: float64 NumPy, left-padded.

`weights` are the arrays of a module's `state_dict`; sequences are (batch, max_length) with 0 before the oldest item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import erf

Array = np.ndarray
Weights = Mapping[str, Array]


def left_padded(histories: Sequence[Sequence[int]], length: int) -> Array:
    matrix = np.zeros((len(histories), length), dtype=np.int64)
    for row, history in enumerate(histories):
        newest = history[-length:]
        matrix[row, length - len(newest) :] = newest
    return matrix


def sasrec(
    weights: Weights,
    sequences: Array,
    heads: int,
    norm: str,
    feed_forward: str,
    times: Array | None = None,
    frequency: float = 0.0,
) -> Array:
    """Hidden states (batch, length, width); `times` have the shape of the sequences."""
    table = weights["items.weight"]
    x = table[sequences] * np.sqrt(table.shape[1])
    return encoder(weights, x, sequences != 0, heads, norm, feed_forward, times, frequency)


def ssept(
    weights: Weights,
    sequences: Array,
    users: Array,
    heads: int,
    norm: str,
    feed_forward: str,
    times: Array | None = None,
) -> Array:
    """Hidden states (batch, length, item_width + user_width); `users` are vectors (batch, user_width)."""
    table = weights["items.weight"]
    item_part = table[sequences] * np.sqrt(table.shape[1])
    user_part = np.repeat(users[:, None], sequences.shape[1], axis=1) * np.sqrt(users.shape[1])
    x = np.concatenate([item_part, user_part], -1)
    return encoder(weights, x, sequences != 0, heads, norm, feed_forward, times)


def encoder(
    weights: Weights,
    x: Array,
    real: Array,
    heads: int,
    norm: str,
    feed_forward: str,
    times: Array | None = None,
    frequency: float = 0.0,
) -> Array:
    keep = real[:, :, None]
    x = (x + weights.get("encoder.positions.weight", 0.0)) * keep
    block = 0
    while f"encoder.blocks.{block}.attention_norm.weight" in weights:
        own = {k.removeprefix(f"encoder.blocks.{block}."): v for k, v in weights.items()}
        bias = relative_bias(own, real.shape, heads, times)
        if norm == "paper":
            query = layer_norm(own, "attention_norm", x)
            x = query + beside(own, attention(own, query, x, real, heads, bias), query, real, frequency)
            x = layer_norm(own, "feed_forward_norm", x)
            x = x + position_wise(own, x, feed_forward)
        else:
            normed = layer_norm(own, "attention_norm", x)
            part = linear(own, "attention.output", attention(own, normed, normed, real, heads, bias))
            part = beside(own, part, normed, real, frequency)
            x = x + part * gate(own, "attention_gate", x, norm)
            part = position_wise(own, layer_norm(own, "feed_forward_norm", x), feed_forward)
            x = x + part * gate(own, "feed_forward_gate", x, norm)
        x = x * keep
        block += 1
    return layer_norm(weights, "encoder.final_norm", x)


def beside(own: Weights, attended: Array, x: Array, real: Array, share: float) -> Array:
    """Attention and, with the given share, low + β² (x - low): low is a mean of the past that ρ discounts by item."""
    if not share:
        return attended
    pole, weight = 1 / (1 + np.exp(-own["frequency_branch.pole"])), own["frequency_branch.root_weight"] ** 2
    low = np.zeros_like(x)
    for row in range(len(x)):
        total, count = np.zeros(x.shape[2]), 0.0
        for now in np.flatnonzero(real[row]):
            total, count = pole * total + x[row, now], pole * count + 1
            low[row, now] = total / count
    return (1 - share) * attended + share * (low + weight * (x - low))


def gate(own: Weights, name: str, x: Array, norm: str) -> Array | float:
    return 1 / (1 + np.exp(-linear(own, name, x))) if norm == "ligr" else 1.0


def relative_bias(own: Weights, shape: tuple[int, int], heads: int, times: Array | None) -> Array:
    """Attention bias (batch, heads, now, past)."""
    batch, length = shape
    bias = np.zeros((batch, heads, length, length))
    for row, head, now, past in np.ndindex(bias.shape):
        if past > now:
            continue
        if "bias.positions" in own:
            bias[row, head, now, past] += own["bias.positions"][head, now - past]
        if "bias.times" in own and times is not None:
            bucket = time_bucket(int(times[row, now] - times[row, past]), int(own["encoder.gap"]))
            bias[row, head, now, past] += own["bias.times"][head, bucket]
    return bias


def time_bucket(between: int, gap: int) -> int:
    if between <= 0:
        return 0
    return min(max(int(np.floor(2 * np.log2(between / gap) + 16.25)), 0), 63)


def attention(own: Weights, queries: Array, context: Array, real: Array, heads: int, bias: Array) -> Array:
    width = queries.shape[-1]
    size = width // heads
    q = queries @ own["attention.query.weight"].T + own["attention.query.bias"]
    k = context @ own["attention.key_value.weight"][:width].T + own["attention.key_value.bias"][:width]
    v = context @ own["attention.key_value.weight"][width:].T + own["attention.key_value.bias"][width:]
    out = np.zeros_like(q)
    for row in range(len(q)):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for now in np.flatnonzero(real[row]):
                seen = [past for past in range(now + 1) if real[row, past]]
                weight = softmax(k[row, seen, part] @ q[row, now, part] / np.sqrt(size) + bias[row, head, now, seen])
                out[row, now, part] = weight @ v[row, seen, part]
    return out


def position_wise(own: Weights, x: Array, kind: str) -> Array:
    inner = linear(own, "feed_forward.inner", x)
    if kind == "relu":
        hidden = np.maximum(inner, 0)
    elif kind == "gelu":
        hidden = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
    else:
        gate, value = np.split(inner, 2, axis=-1)
        hidden = gate / (1 + np.exp(-gate)) * value
    return linear(own, "feed_forward.outer", hidden)


def linear(own: Weights, name: str, x: Array) -> Array:
    return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]


def layer_norm(own: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8)
    return centred / deviation * own[f"{name}.weight"] + own[f"{name}.bias"]


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


# ---- scores and losses: `scores` (n, n_items + 1) of all items at each target position ------------------------------


def dot(hidden: Array, table: Array) -> Array:
    return hidden @ table.T


def cosine(hidden: Array, table: Array, temperature: float) -> Array:
    lengths = np.linalg.norm(hidden, axis=-1)[:, None] * np.linalg.norm(table, axis=-1)
    return hidden @ table.T / lengths / temperature


def log_sigmoid(x: float) -> float:
    return float(-np.log1p(np.exp(-x)))


def bce(scores: Array, targets: Array, negatives: Array, beta: float = 1.0) -> float:
    total = 0.0
    for row, target in enumerate(targets):
        total -= beta * log_sigmoid(scores[row, target])
        total -= sum(np.log(1 - 1 / (1 + np.exp(-scores[row, item]))) for item in negatives[row])
    return total


def gbce(scores: Array, targets: Array, negatives: Array, t: float) -> float:
    alpha = negatives.shape[1] / (scores.shape[1] - 2)  # the catalogue without the target; column 0 is no item
    return bce(scores, targets, negatives, beta=alpha * (t * (1 - 1 / alpha) + 1 / alpha))


def sampled_softmax(scores: Array, targets: Array, negatives: Array, expected: Array | None = None) -> float:
    """Sampled softmax; `expected` (k,) has the expected counts of the negatives, for the logQ correction."""
    weights = np.ones(len(negatives)) if expected is None else 1 / expected
    total = 0.0
    for row, target in enumerate(targets):
        others = sum(
            w * np.exp(scores[row, item]) for item, w in zip(negatives, weights, strict=True) if item != target
        )
        total -= scores[row, target] - np.log(np.exp(scores[row, target]) + others)
    return total


def full_softmax(scores: Array, targets: Array) -> float:
    return -sum(float(np.log(softmax(scores[row, 1:])[target - 1])) for row, target in enumerate(targets))
