"""Independent implementation of ARERec from its equations: float64 NumPy, one pair and one neighbour at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segue.models.arerec.arerec import ARERec
from tests.models.paper import linear, softmax

Array = np.ndarray
Weights = Mapping[str, Array]


class Entry(NamedTuple):
    """Rating in the history of an item; `context` is its number among all ratings, `position` that in the history."""

    user: int
    rating: float
    time: int
    context: int
    position: int


NO_NEIGHBOUR = Entry(0, 0.0, 0, 0, 0)


class Prediction(NamedTuple):
    """Probabilities (levels,), logits and expected rating; weights (heads, n), agreement (n,) and decided (n,)."""

    logits: Array
    probabilities: Array
    expected: float
    weights: Array
    agreement: Array
    decided: Array


def histories(log: Sequence[tuple[int, int, float, int]]) -> dict[int, list[Entry]]:
    """Return the history of each item, oldest first, from rows (user, item, rating, time) sorted by user."""
    by_item: dict[int, list[Entry]] = {}
    ordered = sorted(log, key=lambda row: (row[1], row[3]))
    for context, (user, item, rating, time) in enumerate(ordered, 1):
        entries = by_item.setdefault(item, [])
        entries.append(Entry(user, rating, time, context, len(entries) + 1))
    return by_item


def neighbours(config: ARERec, history: Sequence[Entry], user: int, moment: int) -> list[Entry]:
    """Return the neighbours of a rating by this user at this time."""
    assert isinstance(config.history_length, int)
    kept = [entry for entry in history if config.look_back != "past" or entry.time < moment]
    limit = config.history_length
    most = limit + (config.look_back == "train")
    kept = kept[-most:] if config.keep == "newest" else kept[:most]
    kept = [entry for entry in kept if config.look_back != "train" or entry.user != user]
    return kept[-limit:] if config.keep == "newest" else kept[:limit]


def predict(weights: Weights, config: ARERec, user: int, item: int, entries: Sequence[Entry]) -> Prediction:
    """Predict the rating of a pair with these neighbours."""
    read = list(entries) or [NO_NEIGHBOUR]
    table, known = weights["users.weight"], weights["users.known"].astype(bool)
    of_user = table[user] if known[user] else table[known].mean(0)
    shares = attention(weights, config, of_user, table[[entry.user for entry in read]])
    products = np.array(
        [product(weights, config, item, entry, shares[:, column]) for column, entry in enumerate(read)]
    )  # (n, regions)
    regions = products.max(axis=0)
    winners = products.argmax(axis=0)
    if len(entries) < config.history_length:
        winners = winners[regions >= 0]
    if len(entries) < config.history_length:
        regions = np.maximum(regions, 0.0)
    logits = linear(weights, "output", regions)
    agreement = np.zeros(len(read))
    if config.neighbour_ratings and known[user]:
        agreement = np.array([4 * weights["asks.weight"][user] @ weights["tells.weight"][entry.user] for entry in read])
    if config.biases or config.neighbour_ratings:
        logits = logits + weights["slope"] * above(weights, config, user, item, entries, agreement)
    probabilities = softmax(logits)
    decided = np.bincount(winners, minlength=len(read)) / config.region_size
    return Prediction(logits, probabilities, float(probabilities @ weights["scale"]), shares, agreement, decided)


def attention(weights: Weights, config: ARERec, user: Array, vectors: Array) -> Array:
    """Weights (heads, n) of n neighbours."""
    if not config.attention:
        return np.zeros((0, len(vectors)))
    size = config.width // config.heads
    query = linear(weights, "regions.query", user)
    keys = [linear(weights, "regions.key", vector) for vector in vectors]
    shares = []
    for head in range(config.heads):
        part = slice(head * size, (head + 1) * size)
        shares.append(softmax(np.array([query[part] @ key[part] for key in keys]) / np.sqrt(size)))
    return np.array(shares)


def product(weights: Weights, config: ARERec, item: int, entry: Entry, shares: Array) -> Array:
    """Product (regions,) of the profiles of a neighbour and of the item."""
    vector = weights["users.weight"][entry.user]
    if config.attention:
        size = config.width // config.heads
        value = linear(weights, "regions.value", vector)
        joined = [shares[head] * value[head * size : (head + 1) * size] for head in range(config.heads)]
        vector = linear(weights, "regions.concat", np.concatenate(joined))
    shared = config.contexts == "shared"
    shape = (config.region_size, config.width)
    of_neighbour = weights["regions.k_iu.weight"][entry.user if shared else entry.context].reshape(shape)
    of_item = weights["regions.k_ui.weight"][item if shared else entry.context].reshape(shape)
    return (of_neighbour @ vector) * (of_item @ weights["items.weight"][item])


def above(weights: Weights, config: ARERec, user: int, item: int, entries: Sequence[Entry], agreement: Array) -> float:
    """Expected difference z from the mean."""
    z = 0.0
    if config.biases:
        z += float(weights["user_biases.weight"][user, 0] + weights["item_biases.weight"][item, 0])
    if config.neighbour_ratings:
        for agrees, entry in zip(agreement[: len(entries)], entries, strict=True):
            usual = float(weights["mean"]) + weights["habits"][entry.user]
            z += agrees * (entry.rating - usual) / np.sqrt(len(entries) + 5)
    return z


def loss(predictions: Sequence[tuple[Prediction, int]]) -> float:
    """Summed cross-entropy of predictions and the indices of the true levels."""
    return -sum(float(np.log(predicted.probabilities[level])) for predicted, level in predictions)


def penalty(weights: Weights, config: ARERec, users: set[int], neighbours: set[int]) -> float:
    """Penalty that is added to the mean loss, if the batch has these users and neighbours."""
    rates = {"output": config.l2_output}
    if config.attention:
        names = {"query": config.l2_query, "key": config.l2_key, "value": config.l2_value, "concat": config.l2_concat}
        rates |= {f"regions.{name}": rate for name, rate in names.items()}
    total = sum(rate * float((weights[f"{name}.weight"] ** 2).sum()) for name, rate in rates.items())
    if config.neighbour_ratings:
        read = sum(float((weights["asks.weight"][user] ** 2).sum()) for user in users)
        read += sum(float((weights["tells.weight"][user] ** 2).sum()) for user in neighbours)
        total += config.l2_agreement * read
    return total
