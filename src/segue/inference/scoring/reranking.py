"""Lists with at most n items per category, and diverse lists: chosen one by one from the best candidates.

Maximal marginal relevance (Carbonell and Goldstein 1998, "The use of MMR, diversity-based reranking"): the next item i
has the largest (1 − d) · r(i) − d · max s(i, j) over the items j that were chosen. The relevance r is the score, scaled
to 0 … 1 over the user's candidates; the similarity s is a cosine of vectors, or the share of common categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64

Scores = npt.NDArray[np.float32]
Values = npt.NDArray[np.int32]

_POOL = 10
"""Candidates for each place of a list."""
_SMALLEST_POOL = 100
_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Reranking:
    """Rules for the items of a list together.

    Attributes
    ----------
    limits
        Numbers (n_items + 1, width) of the categories of each item, 0 = none, and the largest number of items of a list
        with the same one; by column.
    diversity
        d in the equation, from 0 to 1.
    vectors
        (n_items + 1, width) float32 unit vectors whose cosine is the similarity.
    categories
        (n_items + 1, width) numbers of categories, 0 = none: the similarity is the share of common ones (Jaccard).
    label
        Plain text that tells these rules from others.
    """

    limits: Mapping[str, tuple[Values, int]] = field(default_factory=dict)
    diversity: float = 0.0
    vectors: Scores | None = None
    categories: Values | None = None
    label: str = ""

    def pool(self, k: int, n_items: int) -> int:
        """Number of candidates from which a list of k items is chosen."""
        return min(max(_POOL * k, _SMALLEST_POOL), n_items)

    def choose(self, codes: Int64, scores: Scores, k: int) -> tuple[Int64, Scores]:
        """Choose k of the candidates of each user, one by one.

        Parameters
        ----------
        codes, scores
            (n, m) candidates, best first; code 0 = none.
        k
            Length of the lists.

        Returns
        -------
        codes, scores
            (n, k) in the order of the choice; code 0 and −inf if the rules leave fewer.
        """
        chosen = np.zeros((len(codes), k), dtype=np.int64)
        values = np.full((len(codes), k), -np.inf, dtype=np.float32)
        widths = [numbers.shape[1] for numbers, _ in self.limits.values()]
        widths += [one.shape[1] for one in (self.vectors, self.categories) if one is not None]
        rows = max(1, _BYTES // (4 * codes.shape[1] * max(widths, default=1)))
        for first in range(0, len(codes), rows):
            part = slice(first, first + rows)
            chosen[part], values[part] = self._chosen(codes[part], scores[part], k)
        return chosen, values

    def _chosen(self, codes: Int64, scores: Scores, k: int) -> tuple[Int64, Scores]:
        n, m = codes.shape
        every = np.arange(n)
        free = codes > 0
        relevance = _scaled(scores, free) * np.float32(1 - self.diversity)
        similar = np.zeros((n, m), dtype=np.float32)
        limits = [(numbers[codes], limit) for numbers, limit in self.limits.values()]
        counts = [np.zeros(numbers.shape, dtype=np.int32) for numbers, _ in limits]
        chosen = np.zeros((n, k), dtype=np.int64)
        values = np.full((n, k), -np.inf, dtype=np.float32)
        similarity = self._similarity(codes)
        for place in range(k):
            worth = np.where(free, relevance - np.float32(self.diversity) * similar, -np.inf)
            best = worth.argmax(axis=1)
            alive = free[every, best]
            chosen[alive, place] = codes[every, best][alive]
            values[alive, place] = scores[every, best][alive]
            free[every, best] = False
            if not alive.any() or place == k - 1:
                break
            if similarity is not None:
                newest = similarity(best)
                similar = np.maximum(similar, newest) if place else newest  # a cosine may be below 0
            for (numbers, limit), count in zip(limits, counts, strict=True):
                taken = numbers[every, best]
                shared = (numbers[:, :, :, None] == taken[:, None, None, :]).any(axis=3) & (numbers > 0)
                count += shared & alive[:, None, None]
                free &= ~(count >= limit).any(axis=2)
        return chosen, values

    def _similarity(self, codes: Int64) -> Callable[[Int64], Scores] | None:
        """Function of the chosen columns (n,) that gives the similarity (n, m) of all candidates to these."""
        every = np.arange(len(codes))
        if self.vectors is not None:
            vectors = self.vectors[codes]
            return lambda best: np.matmul(vectors, vectors[every, best][:, :, None])[:, :, 0]
        if self.categories is not None:
            numbers = self.categories[codes]
            sizes = (numbers > 0).sum(axis=2)
            return lambda best: _jaccard(numbers, sizes, numbers[every, best], sizes[every, best])
        return None


def _jaccard(numbers: Values, sizes: Int64, taken: Values, taken_sizes: Int64) -> Scores:
    shared = ((numbers[:, :, :, None] == taken[:, None, None, :]).any(axis=3) & (numbers > 0)).sum(axis=2)
    union = sizes + taken_sizes[:, None] - shared
    return np.where(union > 0, shared / np.maximum(union, 1), 0).astype(np.float32)


def _scaled(scores: Scores, free: npt.NDArray[np.bool_]) -> Scores:
    """Scores (n, m) scaled to 0 … 1 over the candidates of each row; order is kept."""
    high = np.where(free, scores, -np.inf).max(axis=1, keepdims=True)
    low = np.where(free, scores, np.inf).min(axis=1, keepdims=True)
    spread = high - low
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(spread > 0, (scores - low) / spread, 1)
    return np.where(free, scaled, 0).astype(np.float32)
