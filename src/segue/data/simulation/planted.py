"""The truth behind simulated sessions: related categories, tastes of users, prices.

It is drawn before the sessions, and hidden from all models. Explanations can be measured against it.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from segue.arguments import check_fields, checked
from segue.data.ragged import Int64
from segue.errors import ConfigError, StorageError
from segue.files import FileKind, atomic_file
from segue.locks import collect
from segue.memory import require_memory
from segue.settings import Count, Penalty, Seed, Settings, between

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

TRUTH = FileKind("the truth of a simulation", (b"omega.npy", b"prices.npy"))

FIRST_ITEM = 2
"""Raw id of the first item: 0 and 1 are the begin and end of a basket in the session file."""
BLOCK = 64
"""Number of users that share a random generator."""
CATEGORIES = (
    "pasta", "rice", "noodles", "potatoes", "bread", "butter", "cheese", "jam", "coffee", "tea", "milk", "salad",
    "fish", "meat", "chocolate", "biscuits", "crisps", "soap", "nappies", "beer",
)  # fmt: skip
"""Names of the categories, for datasets with names."""

_INSTEAD = (-0.25,) * 6
_TOGETHER = (0.2, 0.5, 0.8, 0.4, 0.7, 0.6)
_MIXED = (0.5, -0.5, -1.0)
# Upper triangles of the blocks of Ω, row by row; () is a category by itself.
_BLOCKS: tuple[tuple[tuple[float, ...], ...], ...] = (
    (_INSTEAD, _TOGETHER, (-0.4, 0.5, 0.5), _MIXED, (0.5, -0.3, 0.5), (), (0.99,)),
    (_INSTEAD, _TOGETHER, (-0.4, -0.5, -0.5), _MIXED, (0.5, 1.0, 0.5), (), (-0.5,)),
)
_SHAPES, _PRICES, _TASTES, SESSIONS = range(4)  # purposes of generators


@dataclass(frozen=True)
class Market(Settings):
    """Settings of a simulation.

    The letters in brackets are those of the PARSRec paper.
    """

    users: Count = 100
    """Number of users (I)."""

    sessions: Count = 50
    """Sessions of each user (T)."""

    categories: Annotated[int, between(1, 20)] = 20
    """Number of categories (C), at most 20."""

    products: Count = 15
    """Products of each category (Jc)."""

    incidence: float = -0.5
    """Mean of the utility of a category (Gamma0)."""

    noise: Penalty = 1.0
    """Standard deviation of a product's utility between the sessions of a user (Sigma0)."""

    taste: Penalty = 2.0
    """Standard deviation of a product's utility between users (tau0)."""

    price_effect: float = 2.0
    """Utility lost per unit of price (Beta)."""

    shortest: Count = 3
    """Fewest items of a session."""

    longest: Count = 11
    """Most items of a session; never more than there are categories."""

    seed: Seed = 123
    """The same seed gives the same sessions."""

    names: bool = False
    """Call users user-0001 and items tea-07 instead of 0 and 142."""

    @property
    def items(self) -> int:
        """Number of items."""
        return self.categories * self.products

    def check(self) -> None:
        """Raise a ConfigError if the lengths do not go together, or if the memory cannot hold the market."""
        if self.shortest > self.categories:
            raise ConfigError(
                f"shortest={self.shortest} is more than the {self.categories} categories: expected as many or fewer."
            )
        if self.longest < self.shortest:
            raise ConfigError(
                f"longest={self.longest} is less than shortest={self.shortest}: expected as many or more."
            )
        cells = self.categories * self.products
        tastes = 16 * cells * self.products  # the correlations within each category, drawn and factored
        block = min(BLOCK, self.users) * self.sessions * 16 * 2 * self.categories
        require_memory(tastes + block + self.users, "the simulation", "choose fewer products, sessions or users")


@dataclass(frozen=True, eq=False)
class Planted:
    """The truth behind simulated sessions.

    Attributes
    ----------
    market
        The settings of the simulation.
    omega
        (2, categories, categories) covariance of the utilities of the categories in each group of users; the
        diagonal is 1. Two categories with a positive covariance are taken together.
    groups
        (users,) 0 for the first half of the users, 1 for the second: the row of `omega` of each user.
    prices
        (categories, products).
    factors
        (categories, products, products) float32; `factors @ factors.T` is `correlations`.

    Examples
    --------
    >>> truth = segue.simulate(users=4, sessions=2, categories=5).truth
    >>> truth.omega.shape
    (2, 5, 5)
    """

    market: Market
    omega: Floats
    groups: npt.NDArray[np.int8]
    prices: Floats
    factors: Singles

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def correlations(self) -> Floats:
        """(categories, products, products) correlation of users' tastes between the products of each category."""
        factors = self.factors.astype(np.float64)
        return np.asarray(factors @ factors.transpose(0, 2, 1))

    def categories_of(self, items: npt.ArrayLike) -> Int64:
        """Categories (n,), counted from 0, of raw integer item ids (n,)."""
        return np.asarray((np.asarray(items, dtype=np.int64) - FIRST_ITEM) // self.market.products)

    def tastes(self, users: npt.ArrayLike) -> Singles:
        """Utilities of products to users without prices (α of the paper), drawn again at each call to save memory.

        Parameters
        ----------
        users
            (n,) numbers of users, counted from 0.

        Returns
        -------
        (n, categories, products) float32
        """
        numbers = np.asarray(users, dtype=np.int64)
        blocks, block_of = np.unique(numbers // BLOCK, return_inverse=True)
        tastes = np.empty((len(numbers), *self.prices.shape), dtype=np.float32)
        for index, block in enumerate(blocks.tolist()):
            inside = block_of == index
            tastes[inside] = self.tastes_of_block(block)[numbers[inside] % BLOCK]
        return tastes

    def tastes_of_block(self, block: int) -> Singles:
        """`tastes` of the users from `block * BLOCK` on."""
        size = min(BLOCK, self.market.users - block * BLOCK)
        drawn = generator(self.market.seed, _TASTES, block).standard_normal(
            (self.prices.shape[0], size, self.prices.shape[1]), dtype=np.float32
        )
        utilities = drawn @ self.factors.transpose(0, 2, 1)
        return np.asarray(utilities.transpose(1, 0, 2) * np.float32(self.market.taste))

    @checked
    def save(self, path: str | Path) -> Path:
        """Write one .npz file (arrays, and the settings as JSON), and return its path."""
        with atomic_file(Path(path), TRUTH) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                settings=np.array(json.dumps(asdict(self.market))),
                omega=self.omega,
                groups=self.groups,
                prices=self.prices,
                factors=self.factors,
            )
        return Path(path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Planted:
        """Read a file that `save` wrote.

        Raises
        ------
        StorageError
            The file is missing, damaged or of another kind.
        """
        collect(Path(path).parent)  # a simulation that was killed may have left its last step to us
        try:
            with np.load(Path(path), allow_pickle=False) as archive:
                content: dict[str, Any] = {name: archive[name] for name in archive.files}
            market = Market(**json.loads(str(content.pop("settings"))))
            return cls(market, **content)
        except (ConfigError, OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise StorageError(f"{path} does not hold the truth of a simulation: {error}") from None


def plant(market: Market) -> Planted:
    """Draw the truth.

    Prices are uniform between half and twice a centre, which each category draws from a log-normal(0.5, 0.1).

    Raises
    ------
    ConfigError
        An option has an impossible value.
    """
    size = (market.categories, market.products)
    rng = generator(market.seed, _PRICES)
    centres = rng.lognormal(0.5, 0.1, size=(market.categories, 1))
    prices = rng.uniform(centres / 2, centres * 2, size=size)
    groups = (2 * np.arange(market.users) >= market.users).astype(np.int8)
    return Planted(market, omegas(market.categories), groups, prices, _vines(*size, market.seed))


def generator(seed: int, purpose: int, block: int = 0) -> np.random.Generator:
    """The generator of one purpose and one block of users; earlier draws do not change it."""
    return np.random.default_rng([seed, purpose, block])


def omegas(categories: int) -> Floats:
    """(2, categories, categories) covariance of category utilities in the two groups (the leading part of the 20)."""
    full = np.zeros((2, len(CATEGORIES), len(CATEGORIES)))
    for group, blocks in enumerate(_BLOCKS):
        start = 0
        for upper in blocks:
            size = round((1 + np.sqrt(1 + 8 * len(upper))) / 2)
            rows, columns = np.triu_indices(size, 1)
            full[group, start + rows, start + columns] = upper
            start += size
    full += full.transpose(0, 2, 1)
    full += np.eye(len(CATEGORIES))
    return full[:, :categories, :categories]


def root_of(covariance: Floats) -> Floats:
    """A matrix A (…, n, n) with A Aᵀ = covariance (…, n, n).

    Both Ω are singular, because some categories are exact opposites or twins, so Cholesky's method fails. This root
    uses eigenvectors; eigenvalues below zero, which rounding causes, count as zero.
    """
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def vine_factor(partial: Floats) -> Floats:
    """The Cholesky factor (n, n) of the correlation matrix of a C-vine.

    Its partial correlations are the canonical ones of the factor, so neither recursion nor decomposition is
    needed: L[i, k] = P[i, k] · Π_{l<k} √(1 − P[i, l]²), with 1 for P on the diagonal.

    Lewandowski, Kurowicka & Joe (2009), Generating random correlation matrices based on vines and extended onion
    method.

    Parameters
    ----------
    partial
        (n, n) below the diagonal: the partial correlation of i and k given all before k; zero elsewhere.
    """
    left = np.ones_like(partial)
    left[:, 1:] = np.cumprod(np.sqrt(1 - partial**2), axis=1)[:, :-1]
    return np.asarray((partial + np.eye(len(partial))) * left)


def _vines(categories: int, products: int, seed: int) -> Singles:
    """Factors (categories, products, products) of random correlation matrices, by the vine method.

    All partial correlations are drawn from Beta(0.2, 1): between 0 and 1, most of them near 0. They are not stretched
    to -1 to 1, which does not give the choices in the paper's data. Then the products are shuffled, because the first
    ones would be correlated most.
    """
    rng = generator(seed, _SHAPES)
    factors = np.empty((categories, products, products), dtype=np.float32)
    for category in range(categories):
        partial = np.tril(rng.random((products, products)) ** 5, -1)  # Beta(a, 1) is the 1/a-th power of a uniform
        factors[category] = vine_factor(partial)[rng.permutation(products)]
    return factors
