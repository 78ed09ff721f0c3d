"""How far an explanation agrees with a planted truth, what plain counts reach, and what user vectors know of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.ragged import Int64, positions, rows_of
from segue.errors import DataError
from segue.evaluation.explanations.labels import Labels

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How a matrix of categories for each of two groups agrees with the planted covariances.

    Attributes
    ----------
    rank
        For each group, Spearman's correlation over the pairs of categories whose planted covariance is not zero (the
        same pairs in both groups). Over all pairs the ties at zero would cap it.
    linear
        For each group, Pearson's correlation over all pairs.
    signs
        How many of the pairs in which the groups differ have the planted sign of the difference.
    differing
        How many such pairs there are.
    """

    rank: tuple[float, ...]
    linear: tuple[float, ...]
    signs: int
    differing: int


def agreement(matrices: Floats, omega: Floats) -> Agreement:
    """Compare explanations by category with the truth.

    Parameters
    ----------
    matrices
        (2, categories, categories); the mean of both directions counts, the diagonal does not.
    omega
        (2, categories, categories), as `Planted.omega`.

    Raises
    ------
    DataError
        A pair of categories has no value, so that there is too little data.
    """
    rows, columns = np.triu_indices(omega.shape[1], 1)
    found = (matrices + matrices.transpose(0, 2, 1))[:, rows, columns] / 2
    planted = omega[:, rows, columns]
    missing = int((~np.isfinite(found)).sum())
    if missing:
        raise DataError(f"{missing:,} pairs of categories never met: explain more sessions.")
    related = (planted != 0).any(axis=0)
    differing = planted[0] != planted[1]
    same_sign = np.sign(found[0] - found[1]) == np.sign(planted[0] - planted[1])
    return Agreement(
        tuple(_spearman(one[related], true[related]) for one, true in zip(found, planted, strict=True)),
        tuple(float(np.corrcoef(one, true)[0, 1]) for one, true in zip(found, planted, strict=True)),
        int(same_sign[differing].sum()),
        int(differing.sum()),
    )


def _spearman(left: Floats, right: Floats) -> float:
    first, second = (pl.Series(values).rank("average").to_numpy() for values in (left, right))
    return float(np.corrcoef(first, second)[0, 1])


def cooccurrence(dataset: Dataset, categories: Labels, groups: Labels) -> Floats:
    """What counting alone says, without any model: how much likelier two categories are in a session together.

    For categories c and d of a group's sessions, log (P(c, d) / (P(c) P(d))): the change of the log-probability of c by
    knowing of d, as an explanation is one by taking d away. Half a session is added to each count, so that pairs that
    never meet have a value.

    Returns
    -------
    (groups, categories, categories)
    """
    sessions, size = dataset.sessions, len(categories.names)
    rows = rows_of(sessions.starts, sessions.ends)
    own = categories.codes[dataset.items[positions(sessions.starts, sessions.ends)]]
    group = groups.codes[sessions.users]
    found = np.empty((len(groups.names), size, size))
    for number in range(len(groups.names)):
        mine = (group[rows] == number) & (own >= 0)
        together = _counts(rows[mine], own[mine], size)
        counts, n = np.diag(together), int((group == number).sum())
        found[number] = np.log((together + 0.5) * (n + 1) / np.outer(counts + 0.5, counts + 0.5))
    return found


def _counts(rows: Int64, categories: Int64, size: int) -> Int64:
    """(size, size) number of sessions in which two categories are together; their own number on the diagonal."""
    sessions, place = np.unique(rows, return_inverse=True)
    together = np.zeros((size, size))
    for first in range(0, len(sessions), 1 << 16):
        inside = (place >= first) & (place < first + (1 << 16))
        incidence = np.zeros((min(1 << 16, len(sessions) - first), size), dtype=np.float32)
        incidence[place[inside] - first, categories[inside]] = 1
        together += incidence.T @ incidence
    return together.round().astype(np.int64)


def separation(vectors: Floats, groups: npt.NDArray[np.int64], folds: int = 5, seed: int = 0) -> float:
    """How well a linear probe tells two groups of users apart by their vectors: the cross-validated area under the ROC.

    The probe is ridge regression on standardised vectors, its penalty the number of training users: it is fixed, not
    chosen. The area is that of all users' scores from the folds they were held out of, each fold's scores standardised.

    Parameters
    ----------
    vectors
        (n, width)
    groups
        (n,) 0 or 1.
    folds
        Of about equal size, drawn from `seed`, each with both groups in proportion.
    """
    fold = np.empty(len(groups), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for group in (0, 1):
        mine = np.flatnonzero(groups == group)
        fold[rng.permutation(mine)] = np.arange(len(mine)) % folds
    scores = np.empty(len(groups))
    for number in range(folds):
        held = fold == number
        centre, scale = vectors[~held].mean(0), vectors[~held].std(0) + 1e-12
        x, z = (vectors[~held] - centre) / scale, (vectors[held] - centre) / scale
        y = groups[~held] - groups[~held].mean()
        found = z @ np.linalg.solve(x.T @ x + len(x) * np.eye(x.shape[1]), x.T @ y)
        scores[held] = (found - found.mean()) / (found.std() + 1e-12)
    ranks = pl.Series(scores).rank("average").to_numpy()
    ones = int((groups == 1).sum())
    zeros = len(groups) - ones
    return float((ranks[groups == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))
