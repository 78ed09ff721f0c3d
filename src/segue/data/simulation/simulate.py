"""Simulated shopping baskets with a known truth, as in the PARSRec paper.

Gholami, Motamedi & Aravindakshan (2022), PARSRec, section on simulated data. In each session of each user

1. every category c has the utility y_c, all together ~ MVN(Gamma0·1, Ω_g): Ω differs between the two halves g of the
   users, and a model should find this difference;
2. the length is ceil(Weibull(shape 0.8047, location 2, scale 1.4738)), between the limits and at most C;
3. the categories of the highest utility are taken, and from each the product j of the highest
   u_j = α_j − Beta · p_j + ε_j, with new ε ~ N(0, Sigma0), the user's own tastes α ~ MVN(0, tau0² R_c), prices p;
4. the items are shuffled: a basket has no order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from segue.arguments import check_fields, checked
from segue.data.dataset import Dataset
from segue.data.preparing.prepare import prepare
from segue.data.reading.formats.session_file import SESSION_HEADER, types_beside
from segue.data.simulation.baskets import baskets, named
from segue.data.simulation.planted import BLOCK, TRUTH, Market, Planted, plant, root_of
from segue.data.simulation.session_file import TYPES, SessionWriter
from segue.errors import ConfigError
from segue.files import (
    FileKind,
    atomic_file,
    atomic_set,
    check_file,
    check_folder,
    exclusive,
    failures_name,
    real,
)
from segue.locks import collect, temporary_folder
from segue.settings import Count

Format = Literal["parquet", "csv", "session-file", "dataset"]
Progress = Callable[[str, float], None]

_SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".txt": "session-file", "": "dataset"}

_LOG = FileKind(
    "a simulated log",
    (b"user,session,time,item",),
    (b"PAR1", b"user", b"session", b"time", b"item"),
    (SESSION_HEADER.encode(),),
)


@dataclass(frozen=True, eq=False)
class Simulation:
    """Simulated sessions, drawn on demand and always the same.

    Attributes
    ----------
    truth
        The truth behind the sessions.
    partition
        Users held in memory at a time.

    Examples
    --------
    >>> made = segue.simulate(users=4, sessions=2)
    >>> made.save("shop.csv").name
    'shop.csv'
    >>> made.dataset().n_users
    4
    """

    truth: Planted
    partition: Count = 1024

    def __post_init__(self) -> None:
        check_fields(self)

    def pieces(self) -> Iterator[pl.DataFrame]:
        """The log, `partition` users at a time: columns user, session and time (both from 0), item; a row per item."""
        market = self.truth.market
        blocks = -(-market.users // BLOCK)
        step = -(-self.partition // BLOCK)
        root = root_of(self.truth.omega)
        for first in range(0, blocks, step):
            frames = [baskets(self.truth, root, block) for block in range(first, min(first + step, blocks))]
            piece = pl.concat(frames)
            yield named(piece, market) if market.names else piece

    def log(self) -> pl.DataFrame:
        """The whole log, in memory."""
        return pl.concat(self.pieces())

    @checked
    def dataset(self, out: str | Path | None = None) -> Dataset:
        """The Dataset with its sessions, in memory or in the folder `out`."""
        with temporary_folder(None, "simulate") as folder:
            return prepare(pl.scan_parquet(self._parts(folder)), out=out)

    @checked
    def save(
        self,
        path: str | Path,
        format: Format | None = None,
        progress: Progress | None = None,
        overwrite: bool | None = None,
    ) -> Path:
        """Write the sessions, and the truth beside them (`truth_beside(path)`), in bounded memory.

        Parameters
        ----------
        path
            A file, or the folder of a Dataset.
        format
            "parquet" or "csv": the log. "session-file": one line per session, as the reference reads it. "dataset".
            If None, the ending of `path` decides: .parquet, .csv, .txt, or no ending for a Dataset.
        progress
            Called with the name of the step and the share that is done.
        overwrite
            False refuses to replace an earlier simulation; everything else is refused in any case.

        Returns
        -------
        The path.

        Raises
        ------
        ConfigError
            The format is unknown, or cannot hold names.
        StorageError
            `path` holds something that may not be replaced, or another process is writing there.
        """
        target, report = Path(path), progress or (lambda step, share: None)
        chosen = format_of(target, format)
        if chosen == "session-file" and self.truth.market.names:
            raise ConfigError("the session file holds integers: leave out names.")
        place = real(target)
        _check_target(target, chosen, overwrite)
        with (
            exclusive(target),
            atomic_set(target) as staged,
            temporary_folder(place.parent, place.name) as folder,
            failures_name(target),
        ):
            self._write(staged / place.name, chosen, folder, report)
            self.truth.save(truth_beside(staged / place.name))
        return target

    def _write(self, target: Path, chosen: Format, folder: Path, report: Progress) -> None:
        """Write the sessions in a format; `folder` is for temporary files."""
        if chosen == "dataset":
            prepare(pl.scan_parquet(self._parts(folder, report)), out=target, progress=report)
        elif chosen == "parquet":
            parts = pl.scan_parquet(self._parts(folder, report))
            with atomic_file(target) as temporary:
                parts.sink_parquet(temporary)
        elif chosen == "csv":
            with atomic_file(target) as temporary, temporary.open("wb") as stream:
                for number, piece in enumerate(self._reported(report)):
                    piece.write_csv(stream, include_header=not number)
        else:
            with SessionWriter(target) as writer:
                for piece in self._reported(report):
                    writer.write(piece)

    def _reported(self, report: Progress) -> Iterator[pl.DataFrame]:
        """The pieces; after each, the share that is done is reported."""
        for number, piece in enumerate(self.pieces(), 1):
            yield piece
            report("simulating", min(number * self.partition / self.truth.market.users, 1.0))

    def _parts(self, folder: Path, report: Progress = lambda step, share: None) -> list[Path]:
        """The pieces as Parquet files."""
        paths = []
        for number, piece in enumerate(self._reported(report)):
            paths.append(folder / f"{number:06d}.parquet")
            piece.write_parquet(paths[-1])
        return paths


@checked
def simulate(
    users: int = 100,
    sessions: int = 50,
    *,
    categories: int = 20,
    products: int = 15,
    incidence: float = -0.5,
    noise: float = 1.0,
    taste: float = 2.0,
    price_effect: float = 2.0,
    shortest: int = 3,
    longest: int = 11,
    seed: int = 123,
    names: bool = False,
    partition: Count = 1024,
) -> Simulation:
    """Simulate users whose reasons are known.

    Users, sessions and times count from 0; the item id is category · products + product + 2. Users are drawn in
    blocks of 64, each by a generator of its own, so the number of users in memory does not change the result.

    Parameters
    ----------
    users, sessions
        Number of users (I of the paper), and of the sessions of each (T).
    categories, products
        Number of categories (C; with fewer than 20 the leading part of Ω holds), and of the products of each (Jc).
    incidence
        Mean of the utilities of categories (Gamma0). It is the same for all and changes no choice.
    noise
        Standard deviation of a product's utility between sessions (Sigma0).
    taste
        Standard deviation of a product's utility between users (tau0).
    price_effect
        Utility lost per unit of price (Beta).
    shortest, longest
        Limits of the length of a session.
    seed
        The same seed gives the same sessions.
    names
        Call users "user-0001" and items "tea-07" (by category, from 1) instead of by integers.
    partition
        Users held in memory at a time.

    Returns
    -------
    Simulation
        `truth` is there at once; `log()`, `dataset()` and `save(path)` draw the sessions. The length of the history
        that a model sees is an option of the model, not of the data.

    Raises
    ------
    ConfigError
        An option has an impossible value.

    Examples
    --------
    >>> made = segue.simulate(users=4, sessions=2, categories=5)
    >>> made.log().columns
    ['user', 'session', 'time', 'item']
    >>> made.truth.groups
    array([0, 0, 1, 1], dtype=int8)
    """
    market = Market(
        users=users,
        sessions=sessions,
        categories=categories,
        products=products,
        incidence=incidence,
        noise=noise,
        taste=taste,
        price_effect=price_effect,
        shortest=shortest,
        longest=longest,
        seed=seed,
        names=names,
    )
    return Simulation(plant(market), partition)


def format_of(path: str | Path, format: Format | None = None) -> Format:
    """The format that `Simulation.save(path, format)` writes.

    Raises
    ------
    ConfigError
        The format is unknown, or the ending of the path is.
    """
    chosen = format or _SUFFIXES.get(Path(path).suffix)
    if chosen is None or chosen not in _SUFFIXES.values():
        known = ", ".join(_SUFFIXES.values())
        raise ConfigError(f"{path}: give a path that ends in .parquet, .csv, .txt or nothing, or a format of {known}.")
    return chosen


def _check_target(target: Path, chosen: Format, overwrite: bool | None) -> None:
    """Raise a StorageError if the simulation, its truth or its types would replace something else."""
    place = real(target)
    collect(place.parent)
    if chosen == "dataset":
        check_folder(target, "dataset", overwrite)
    else:
        # The columns alone may be those of a log of one's own; its truth stands only beside a simulated one.
        kind = _LOG if not place.exists() or truth_beside(place).is_file() else FileKind(_LOG.name)
        check_file(target, kind, overwrite)
    check_file(truth_beside(place), TRUTH)
    if chosen == "session-file":
        check_file(types_beside(place), TYPES)


def truth_beside(path: str | Path) -> Path:
    """Path at which `Simulation.save(path)` writes the truth.

    >>> truth_beside("data/sim.txt").name
    'sim.truth.npz'
    """
    return Path(path).with_name(f"{Path(path).stem}.truth.npz")
