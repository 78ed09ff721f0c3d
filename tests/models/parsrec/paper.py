"""PARSRec written once more from its equations: float64 NumPy, one session and one step at a time, no tricks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tests.models.paper import layer_norm, linear, softmax

Array = np.ndarray
Weights = Mapping[str, Array]


class Step(NamedTuple):
    """What one step gives: scores (n_items + 1,), the next state (width,), weights (blocks, heads, items looked at)."""

    scores: Array
    state: Array
    attention: Array


def start(weights: Weights, history: Sequence[int]) -> Array:
    """h₀."""
    table = weights["items.weight"]
    return table[list(history)].mean(0) if len(history) else np.zeros(table.shape[1])


def step(weights: Weights, user: Array, state: Array, basket: Sequence[int], heads: int) -> Step:
    """One step with the items of the basket, or SOB (row 0) when it is empty."""
    table = weights["items.weight"]
    seen = table[list(basket) or [0]]
    query = np.concatenate([user, state])
    attended, found, block = query, [], 0
    while f"attention_blocks.{block}.query.weight" in weights:
        name = f"attention_blocks.{block}."
        own = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
        q, k, v = linear(own, "query", attended), seen @ own["key.weight"].T, linear(own, "value", seen)
        size = len(q) // heads
        parts = [slice(head * size, (head + 1) * size) for head in range(heads)]
        shares = [softmax(k[:, part] @ q[part] / np.sqrt(size)) for part in parts]
        heard = np.concatenate([share @ v[:, part] for share, part in zip(shares, parts, strict=True)])
        attended = linear(own, "linear", layer_norm(own, "norm", attended + linear(own, "output", heard)))
        found.append(shares)
        block += 1
    together = np.concatenate([query, attended])
    return Step(
        table @ linear(weights, "output", together), np.maximum(linear(weights, "hidden", together), 0), np.array(found)
    )


def walk(weights: Weights, user: Array, history: Sequence[int], basket: Sequence[int], heads: int) -> Step:
    """The step after the whole basket, item by item in its order."""
    state = start(weights, history)
    for n in range(len(basket)):
        state = step(weights, user, state, basket[:n], heads).state
    return step(weights, user, state, basket, heads)


def learn(
    weights: Weights, user: Array, history: Sequence[int], order: Sequence[int], heads: int, loss: str
) -> tuple[float, list[int]]:
    """The loss of one session summed over its steps, and the targets, given the random order of its items."""
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
    chance = 1 / (1 + np.exp(-scores))
    others = np.delete(chance, target)
    return float(-np.log(chance[target]) - np.log(1 - others).sum())


LOSSES = {
    "softmax": lambda scores, target: -float(np.log(softmax(scores)[target])),
    "bce": _bce,
    "mse": lambda scores, target: float(((scores - np.eye(len(scores))[target]) ** 2).sum()),
}
