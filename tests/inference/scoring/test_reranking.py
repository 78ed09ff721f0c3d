"""Lists with at most n items per category, and maximal marginal relevance, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from segue.inference.scoring.reranking import Reranking

RNG = np.random.default_rng(3)


def greedy(codes, scores, k, *, limits=(), d=0.0, similarity=None):  # type: ignore[no-untyped-def]
    """The definition, one candidate after the other, in float64."""
    pool = [(int(c), float(s)) for c, s in zip(codes, scores, strict=True) if c]
    values = np.array([s for _, s in pool])
    spread = values.max() - values.min() if len(pool) else 0
    relevance = {c: (s - values.min()) / spread if spread else 1.0 for c, s in pool}
    chosen: list[int] = []
    while pool and len(chosen) < k:

        def allowed(code):  # type: ignore[no-untyped-def]
            return all(
                sum(value in set(numbers[other]) - {0} for other in chosen) < limit
                for numbers, limit in limits
                for value in set(numbers[code]) - {0}
            )

        free = [c for c, _ in pool if c not in chosen and allowed(c)]
        if not free:
            break
        worth = [
            (1 - d) * relevance[c] - d * max((similarity(c, j) for j in chosen), default=0.0)
            if similarity
            else relevance[c]
            for c in free
        ]
        chosen.append(free[int(np.argmax(worth))])
    return chosen


def lists(n: int, m: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    codes = np.stack([RNG.choice(np.arange(1, n_items + 1), m, replace=False) for _ in range(n)]).astype(np.int64)
    scores = -np.sort(-RNG.normal(size=(n, m)).astype(np.float32), axis=1)
    codes[0, -3:] = 0
    scores[0, -3:] = -np.inf
    return codes, scores


def numbers(n_items: int, width: int) -> np.ndarray:
    values = RNG.integers(0, 6, (n_items + 1, width)).astype(np.int32)
    values[0] = 0
    if width > 1:  # categories of an item are distinct
        values = np.stack([np.pad(np.unique(row[row > 0]), (0, width))[:width] for row in values])
    return values.astype(np.int32)


@pytest.mark.parametrize("width", [1, 3])
def test_at_most(width: int) -> None:
    codes, scores = lists(20, 30, 50)
    one, two = numbers(50, width), numbers(50, 1)
    chosen, values = Reranking({"a": (one, 2), "b": (two, 3)}).choose(codes, scores, 8)
    for row in range(20):
        expected = greedy(codes[row], scores[row], 8, limits=[(one, 2), (two, 3)])
        assert chosen[row][chosen[row] > 0].tolist() == expected
        assert np.isneginf(values[row][chosen[row] == 0]).all()


def test_diversity_by_vectors() -> None:
    codes, scores = lists(20, 30, 50)
    vectors = RNG.normal(size=(51, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen, _ = Reranking(diversity=0.4, vectors=vectors).choose(codes, scores, 6)
    exact = vectors.astype(np.float64)
    for row in range(20):
        expected = greedy(codes[row], scores[row], 6, d=0.4, similarity=lambda a, b: exact[a] @ exact[b])
        assert chosen[row].tolist() == expected


def test_diversity_by_categories_with_a_limit() -> None:
    codes, scores = lists(20, 30, 50)
    values = numbers(50, 3)

    def jaccard(a: int, b: int) -> float:
        one, two = set(values[a]) - {0}, set(values[b]) - {0}
        return len(one & two) / len(one | two) if one | two else 0.0

    rules = Reranking({"a": (values, 3)}, diversity=0.5, categories=values)
    chosen, _ = rules.choose(codes, scores, 6)
    for row in range(20):
        expected = greedy(codes[row], scores[row], 6, limits=[(values, 3)], d=0.5, similarity=jaccard)
        assert chosen[row][chosen[row] > 0].tolist() == expected


def test_no_diversity_keeps_the_order() -> None:
    codes, scores = lists(5, 30, 50)
    chosen, values = Reranking({"a": (np.zeros((51, 1), dtype=np.int32), 1)}).choose(codes, scores, 8)
    assert (chosen == codes[:, :8]).all() and (values == scores[:, :8]).all()
