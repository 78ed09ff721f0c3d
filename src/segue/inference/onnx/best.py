"""Best scores of each row in NumPy: blocks of columns with the highest maxima are found first, then searched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of

Floats = npt.NDArray[np.float32]

_BLOCK = 64
"""Columns in a block."""
_MIN_REDUCTION = 4
"""Blocks are used if they reduce the number of scores to search by at least this factor."""


def best_of(scores: Floats, k: int) -> tuple[Int64, Floats]:
    """Columns and scores (n, k) of the best scores (n, m) of each row, by (score descending, column ascending).

    Parameters
    ----------
    scores
        (n, m) float32 without NaN; −inf for columns that may not be chosen.
    k
        Number of columns, from 1 to m.

    Returns
    -------
    columns
        (n, k) int64; 0 for scores of −inf.
    scores
        (n, k) float32.
    """
    n_blocks = scores.shape[1] // _BLOCK
    if n_blocks < _MIN_REDUCTION * (k + 1):
        return _whole(scores, k)
    # Block j holds the columns j, j + n_blocks, …, so that one maximum of long rows finds the maxima of all blocks.
    n, m = scores.shape
    inside = _BLOCK * n_blocks
    highest = scores[:, :inside].reshape(n, _BLOCK, n_blocks).max(1)
    blocks = highest.argpartition(n_blocks - k - 1, axis=1)[:, n_blocks - k - 1 :]
    columns = np.empty((n, _BLOCK * (k + 1) + m - inside), dtype=np.int64)
    columns[:, : _BLOCK * (k + 1)] = (blocks[:, None, :] + (n_blocks * np.arange(_BLOCK))[:, None]).reshape(n, -1)
    columns[:, _BLOCK * (k + 1) :] = np.arange(inside, m)
    rows = np.arange(n)[:, None]
    values = scores[rows, columns]
    chosen = values.argpartition(values.shape[1] - k - 1, axis=1)[:, values.shape[1] - k - 1 :]
    columns, values = columns[rows, chosen], values[rows, chosen]
    order = np.lexsort((columns, -values), axis=1)
    columns, values = columns[rows, order], values[rows, order]
    tied = (values[:, k - 1] == values[:, k]) & (values[:, k] > -np.inf)
    columns, values = columns[:, :k], values[:, :k]
    if tied.any():  # of equal scores at the end of the list any may have been chosen
        columns[tied], values[tied] = _whole(scores[tied], k)
    columns[np.isneginf(values)] = 0
    return columns, values


def _whole(scores: Floats, k: int) -> tuple[Int64, Floats]:
    """Like `best_of`, by a search through all columns."""
    edge = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k, None]
    rows, columns = np.nonzero(scores >= edge)
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    counts = np.bincount(rows, minlength=len(scores))
    ranks = np.arange(len(rows)) - np.repeat(offsets_of(counts)[:-1], counts)
    chosen = order[ranks < k]
    best, values = columns[chosen].reshape(-1, k), values[chosen].reshape(-1, k)
    best[np.isneginf(values)] = 0
    return best, values
