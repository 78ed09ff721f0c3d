"""Independent implementation of PARSRec from its equations: float64 NumPy, one session and one step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tests.models.paper import layer_norm, linear, softmax

Array = np.ndarray
Weights = Mapping[str, Array]


class Step(NamedTuple):
    """Result of a step: scores (n_items + 1,), next state (width,), attention weights (blocks, heads, items)."""

    scores: Array
    state: Array
    attention: Array


def start(weights: Weights, history: Sequence[int]) -> Array:
    """Initial hidden state h₀."""
    table = weights["items.weight"]
    return table[list(history)].mean(0) if len(history) else np.zeros(table.shape[1])


def step(weights: Weights, user: Array, state: Array, basket: Sequence[int], heads: int) -> Step:
    """Take one step with the items of the basket, or SOB (row 0) if it is empty."""
    table = weights["items.weight"]
    seen = table[list(basket) or [0]]
    query = np.concatenate([user, state])
    attended, weights_of_blocks, block = query, [], 0
    while f"attention_blocks.{block}.query.weight" in weights:
        name = f"attention_blocks.{block}."
        own = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
        q, k, v = linear(own, "query", attended), seen @ own["key.weight"].T, linear(own, "value", seen)
        size = len(q) // heads
        parts = [slice(head * size, (head + 1) * size) for head in range(heads)]
        shares = [softmax(k[:, part] @ q[part] / np.sqrt(size)) for part in parts]
        gathered = np.concatenate([share @ v[:, part] for share, part in zip(shares, parts, strict=True)])
        attended = linear(own, "linear", layer_norm(own, "norm", attended + linear(own, "output", gathered)))
        weights_of_blocks.append(shares)
        block += 1
    joint = np.concatenate([query, attended])
    return Step(
        table @ linear(weights, "output", joint),
        np.maximum(linear(weights, "hidden", joint), 0),
        np.array(weights_of_blocks),
    )


def walk(weights: Weights, user: Array, history: Sequence[int], basket: Sequence[int], heads: int) -> Step:
    """Return the step after the whole basket, which is read item by item in order."""
    state = start(weights, history)
    for n in range(len(basket)):
        state = step(weights, user, state, basket[:n], heads).state
    return step(weights, user, state, basket, heads)


def learn(
    weights: Weights, user: Array, history: Sequence[int], order: Sequence[int], heads: int, loss: str
) -> tuple[float, list[int]]:
    """Loss of one session summed over its steps, and the targets, for a given random order of its items."""
    state, basket, remaining, total = start(weights, history), [], list(order), 0.0
    while remaining:
        scores, state, _ = step(weights, user, state, basket, heads)
        best = int(scores[1:].argmax()) + 1
        target = best if best in remaining else remaining[0]
        total += LOSSES[loss](scores[1:], target - 1)
        basket.append(target)
        remaining.remove(target)
    return total, basket


def _bce(scores: Array, target: int) -> float:
    probability = 1 / (1 + np.exp(-scores))
    others = np.delete(probability, target)
    return float(-np.log(probability[target]) - np.log(1 - others).sum())


LOSSES = {
    "softmax": lambda scores, target: -float(np.log(softmax(scores)[target])),
    "bce": _bce,
    "mse": lambda scores, target: float(((scores - np.eye(len(scores))[target]) ** 2).sum()),
}
