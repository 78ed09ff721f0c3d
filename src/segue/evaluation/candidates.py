"""Candidates: items drawn once for each user, among which the targets are ranked.

Sampled candidates make figures comparable with those of papers that used them. They do not estimate the figures over
all items, and may order models differently (Krichene and Rendle 2020, "On sampled metrics for item recommendation").
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.splits.holdouts import Holdout
from segue.errors import ConfigError, DataError, EvaluationError, StorageError
from segue.files import FileKind, atomic_file

_FILE = FileKind("a file of candidates", (b"users.npy", b"codes.npy", b"seed.npy"))

Law = Literal["uniform", "popularity"]

_ROUNDS = 24
_KEY_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Candidates:
    """Drawn items for every user of a Holdout.

    Attributes
    ----------
    users
        (n,) int64 user codes, ascending.
    codes
        (n, c) int64 item codes, distinct within a row and ascending; never a target, and no item of the history unless
        `sample_candidates` was told to draw from it.
    by
        Law of the draws: "uniform", or "popularity" (in proportion to the training interactions).
    seed
        Seed of the draws.
    """

    users: Int64
    codes: Int64
    by: Law
    seed: int

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n(self) -> int:
        """Number of candidates of each user."""
        return int(self.codes.shape[1])

    def of(self, users: Int64) -> Candidates:
        """The rows of the given user codes (m,).

        Raises
        ------
        EvaluationError
            A user has no candidates here.
        """
        index = np.minimum(np.searchsorted(self.users, users), max(len(self) - 1, 0))
        missing = int((self.users[index] != users).sum()) if len(self) else len(users)
        if missing:
            raise EvaluationError(
                f"{missing:,} of {len(users):,} users have no candidates here: these were drawn for another Holdout."
            )
        return replace(self, users=users, codes=self.codes[index])

    def save(self, path: str | Path) -> Path:
        """Write an .npz file, atomically, and return its path."""
        with atomic_file(Path(path), _FILE) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                users=self.users,
                codes=self.codes.astype(np.int32),
                by=np.array(self.by),
                seed=np.array(self.seed),
            )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Candidates:
        """Read what `save` wrote; a missing or damaged file is a StorageError."""
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                law = str(file["by"])
                if law not in ("uniform", "popularity"):
                    raise ValueError(f"drawn by {law!r}")
                by: Law = "uniform" if law == "uniform" else "popularity"
                return cls(file["users"], file["codes"].astype(np.int64), by, int(file["seed"]))
        except FileNotFoundError:
            raise StorageError(f"{path} is missing.") from None
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise StorageError(f"{path} does not hold candidates written by segue, or is damaged ({error}).") from None


def sample_candidates(
    holdout: Holdout, n: int, *, by: Law = "uniform", seed: int = 0, from_history: bool = False
) -> Candidates:
    """Draw n distinct items for each user of a Holdout, none of them in the user's history or among the targets.

    The same Holdout, n, law and seed give the same candidates in every process.

    Parameters
    ----------
    holdout
        The users.
    n
        Number of candidates of each user, 1 or more.
    by
        "uniform": all items with the same probability. "popularity": one after the other, each in proportion to its
        interactions in the Holdout's training view; items without any are never drawn.
    seed
        Seed of the draws.
    from_history
        Draw from the items of the history, too, for data in which users take items again. Targets are never drawn.

    Raises
    ------
    ConfigError
        n is not positive, or the law is unknown.
    DataError
        A user has fewer than n items left to draw.
    """
    if n < 1:
        raise ConfigError(f"the number of candidates is {n}: expected 1 or more, or none to rank all items.")
    urn = _urn(holdout, by, from_history)
    _check_enough(urn, n, by)
    codes = _draw(urn, n, np.random.default_rng(seed))
    return Candidates(holdout.users, codes, by, seed)


def most_candidates(holdout: Holdout, *, by: Law = "uniform", from_history: bool = False) -> int:
    """The largest n that `sample_candidates` can draw for every user; 0 for a Holdout without users."""
    return int(_urn(holdout, by, from_history).available.min()) if len(holdout) else 0


class _Urn:
    """Items that each user may draw: all of positive weight, except the user's own.

    Parameters
    ----------
    own
        (m,) int64 sorted distinct keys `row * stride + item` of the users' own items.
    weights
        (n_items + 1,) float64.
    n_users
        Number of rows.
    """

    def __init__(self, own: Int64, weights: npt.NDArray[np.float64], n_users: int) -> None:
        self.own = own
        self.weights = weights
        self.stride = len(weights)
        rows, items = np.divmod(own, self.stride)
        self.offsets = offsets_of(np.bincount(rows, minlength=n_users))
        taken = np.bincount(rows, weights=weights[items] > 0, minlength=n_users).astype(np.int64)
        self.available: Int64 = int((weights > 0).sum()) - taken
        self._uniform = bool((weights[1:] == 1.0).all())
        # Own item j of a row (codes and j from 0 …) has `item - 1 - j` foreign items before it.
        before = items - 1 - (np.arange(len(own)) - self.offsets[rows])
        self._before = rows * self.stride + before
        self._cumulative = np.cumsum(weights)

    def propose(self, rows: Int64, generator: np.random.Generator) -> Int64:
        """Draw one item for each of `rows`; with equal weights, never an own one."""
        if self._uniform:
            number = generator.integers(0, self.available[rows])
            skipped = np.searchsorted(self._before, rows * self.stride + number, side="right") - self.offsets[rows]
            return np.asarray(number + 1 + skipped, dtype=np.int64)
        drawn = generator.random(len(rows)) * self._cumulative[-1]
        return np.asarray(np.searchsorted(self._cumulative, drawn, side="right"), dtype=np.int64)

    def is_own(self, rows: Int64, items: Int64) -> npt.NDArray[np.bool_]:
        """True for each i if `items[i]` is an own item of row `rows[i]`."""
        if self._uniform or not len(self.own):
            return np.zeros(len(rows), dtype=np.bool_)
        keys = rows * self.stride + items
        index = np.minimum(np.searchsorted(self.own, keys), len(self.own) - 1)
        return np.asarray(self.own[index] == keys)


def _urn(holdout: Holdout, by: Law, from_history: bool) -> _Urn:
    """Items that the users of a Holdout may draw under a law, which is checked."""
    if by not in ("uniform", "popularity"):
        raise ConfigError(f'candidates are drawn by "uniform" or by "popularity", not by {by!r}.')
    weights = (
        np.ones(holdout.dataset.n_items + 1)
        if by == "uniform"
        else holdout.training_view().item_counts().astype(np.float64)
    )
    weights[0] = 0.0
    weights[holdout.dataset.cold_items] = 0.0
    return _Urn(_own_items(holdout, from_history), weights, len(holdout))


def _own_items(holdout: Holdout, from_history: bool) -> Int64:
    """Sorted distinct keys `row * (n_items + 1) + item` of each user's targets and, if not drawn from, history."""
    starts = holdout.history_ends if from_history else holdout.dataset.starts[holdout.users]
    items = holdout.dataset.items[positions(starts, holdout.target_ends)]
    keys: Int64 = rows_of(starts, holdout.target_ends) * (holdout.dataset.n_items + 1) + items
    return np.unique(keys)


def _check_enough(urn: _Urn, n: int, by: Law) -> None:
    fewest = int(urn.available.min(initial=n))
    if fewest < n:
        short = int((urn.available < n).sum())
        plural = "items" if by == "uniform" else "items with training interactions"
        raise DataError(
            f"{n:,} candidates are too many: for {short:,} of {len(urn.available):,} users fewer {plural} "
            f"are left that are not their own, for one only {fewest:,}: ask for {fewest:,} or fewer, or rank all items."
        )


def _draw(urn: _Urn, n: int, generator: np.random.Generator) -> Int64:
    """Draw (n_users, n) items without replacement: draw with replacement, and drop repeats.

    If that takes long, because n is a large share of the items, random keys draw the rest.
    """
    codes = np.zeros((len(urn.available), n), dtype=np.int64)
    open_rows = np.flatnonzero(urn.available >= 2 * n)
    for _ in range(_ROUNDS):
        if not len(open_rows):
            break
        part = codes[open_rows]
        row, column = np.nonzero(part == 0)
        items = urn.propose(open_rows[row], generator)
        part[row, column] = np.where(urn.is_own(open_rows[row], items), 0, items)
        part.sort(axis=1)
        part[:, 1:][part[:, 1:] == part[:, :-1]] = 0
        codes[open_rows] = part
        open_rows = open_rows[(part == 0).any(axis=1)]
    rest = np.flatnonzero((codes == 0).any(axis=1))
    size = max(1, _KEY_BYTES // (8 * urn.stride))
    for first in range(0, len(rest), size):
        rows = rest[first : first + size]
        codes[rows] = _complete(urn, rows, codes[rows], generator)
    codes.sort(axis=1)
    return codes


def _complete(urn: _Urn, rows: Int64, codes: Int64, generator: np.random.Generator) -> Int64:
    """Fill the zeros of `codes` (batch, n): the smallest keys Eᵢ / wᵢ, with E exponential, are weighted draws without
    replacement (Efraimidis and Spirakis 2006)."""
    keys = np.full((len(rows), urn.stride), np.inf)
    drawable = urn.weights > 0
    keys[:, drawable] = generator.standard_exponential((len(rows), int(drawable.sum()))) / urn.weights[drawable]
    starts, ends = urn.offsets[rows], urn.offsets[rows + 1]
    keys[rows_of(starts, ends), urn.own[positions(starts, ends)] % urn.stride] = np.inf
    np.put_along_axis(keys, codes, np.inf, axis=1)
    n = codes.shape[1]
    smallest = np.argpartition(keys, n - 1, axis=1)[:, :n]
    order = np.argsort(np.take_along_axis(keys, smallest, axis=1), axis=1)
    ranked = np.take_along_axis(smallest, order, axis=1)
    completed = np.sort(codes, axis=1)
    missing = (completed == 0).sum(axis=1, keepdims=True)
    fill = np.arange(n) < missing
    completed[fill] = ranked[fill]
    return completed
