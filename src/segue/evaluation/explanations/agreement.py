"""Agreement of explanations with a planted truth, the same for plain counts, and a probe of user vectors."""

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
    """Agreement of a matrix of categories for each of two groups with the planted covariances.

    Attributes
    ----------
    rank
        For each group, Spearman's correlation over the pairs of categories with a planted covariance other than zero in
        any group. Over all pairs, the ties at zero would cap it.
    linear
        For each group, Pearson's correlation over all pairs.
    signs
        Number of the differing pairs with the planted sign of the difference.
    differing
        Number of pairs with different planted covariances in the groups.
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
        (2, categories, categories); the mean of both directions counts, and the diagonal is ignored.
    omega
        (2, categories, categories), as `Planted.omega`.

    Raises
    ------
    DataError
        A pair of categories has no value: there is too little data.
    """
    rows, columns = np.triu_indices(omega.shape[1], 1)
    explained = (matrices + matrices.transpose(0, 2, 1))[:, rows, columns] / 2
    planted = omega[:, rows, columns]
    missing = int((~np.isfinite(explained)).sum())
    if missing:
        raise DataError(f"{missing:,} pairs of categories never met: explain more sessions.")
    related = (planted != 0).any(axis=0)
    differing = planted[0] != planted[1]
    same_sign = np.sign(explained[0] - explained[1]) == np.sign(planted[0] - planted[1])
    return Agreement(
        tuple(_spearman(values[related], true[related]) for values, true in zip(explained, planted, strict=True)),
        tuple(float(np.corrcoef(values, true)[0, 1]) for values, true in zip(explained, planted, strict=True)),
        int(same_sign[differing].sum()),
        int(differing.sum()),
    )


def _spearman(left: Floats, right: Floats) -> float:
    first, second = (pl.Series(values).rank("average").to_numpy() for values in (left, right))
    return float(np.corrcoef(first, second)[0, 1])


def cooccurrence(dataset: Dataset, categories: Labels, groups: Labels) -> Floats:
    """Co-occurrence of categories in sessions, by counting alone, without any model.

    For categories c and d of a group's sessions, log (P(c, d) / (P(c) P(d))): the change of the log-probability of c
    with the knowledge of d. An explanation is the same change, but by leaving d out. Half a session is added to each
    count, so that pairs that never meet have a value.

    Returns
    -------
    (groups, categories, categories)
    """
    sessions, size = dataset.sessions, len(categories.names)
    rows = rows_of(sessions.starts, sessions.ends)
    own = categories.codes[dataset.items[positions(sessions.starts, sessions.ends)]]
    group = groups.codes[sessions.users]
    result = np.empty((len(groups.names), size, size))
    for number in range(len(groups.names)):
        mine = (group[rows] == number) & (own >= 0)
        together = _counts(rows[mine], own[mine], size)
        counts, n = np.diag(together), int((group == number).sum())
        result[number] = np.log((together + 0.5) * (n + 1) / np.outer(counts + 0.5, counts + 0.5))
    return result


def _counts(rows: Int64, categories: Int64, size: int) -> Int64:
    """Number (size, size) of sessions with both categories; on the diagonal, with the category."""
    sessions, index = np.unique(rows, return_inverse=True)
    together = np.zeros((size, size))
    for first in range(0, len(sessions), 1 << 16):
        inside = (index >= first) & (index < first + (1 << 16))
        incidence = np.zeros((min(1 << 16, len(sessions) - first), size), dtype=np.float32)
        incidence[index[inside] - first, categories[inside]] = 1
        together += incidence.T @ incidence
    return together.round().astype(np.int64)


def separation(vectors: Floats, groups: npt.NDArray[np.int64], folds: int = 5, seed: int = 0) -> float:
    """Cross-validated area under the ROC of a linear probe that tells two groups of users apart by their vectors.

    The probe is ridge regression on standardised vectors. Its penalty is fixed: the number of training users. The area
    is that of the scores of all users, each from the fold that held the user out; each fold's scores are standardised.

    Parameters
    ----------
    vectors
        (n, width)
    groups
        (n,) 0 or 1.
    folds
        Number of folds of about equal size, drawn from `seed`, each with both groups in proportion.
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
        fold_scores = z @ np.linalg.solve(x.T @ x + len(x) * np.eye(x.shape[1]), x.T @ y)
        scores[held] = (fold_scores - fold_scores.mean()) / (fold_scores.std() + 1e-12)
    ranks = pl.Series(scores).rank("average").to_numpy()
    ones = int((groups == 1).sum())
    zeros = len(groups) - ones
    return float((ranks[groups == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))
