"""Categories of items and groups of users: a label for each code, from a file, a frame or the truth of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.simulation.baskets import named
from segue.data.simulation.planted import CATEGORIES, FIRST_ITEM, Planted
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


@dataclass(frozen=True, eq=False)
class Labels:
    """A label for each item or for each user.

    Attributes
    ----------
    names
        The different labels.
    codes
        (n + 1,) int64: for each item or user code the place of its label in `names`; -1 for those without one.
    """

    names: tuple[str, ...]
    codes: Int64

    @classmethod
    def one(cls, n: int, name: str = "all") -> Labels:
        """The same label for all of n codes."""
        codes = np.zeros(n + 1, dtype=np.int64)
        codes[0] = -1
        return cls((name,), codes)

    @classmethod
    def of(cls, vocabulary: Vocabulary, labels: pl.DataFrame | str | Path, what: str = "ids") -> Labels:
        """From a frame, or from a CSV file with a header: raw ids in the first column, labels in the second.

        Parameters
        ----------
        vocabulary
            The items or users.
        labels
            Ids that the vocabulary does not hold are passed over; those it does, and that have no row, have no label.
        what
            "items" or "users", for messages.

        Raises
        ------
        DataError
            There is no such file, it has not two columns, no id is known, or one id has two labels.
        """
        frame, where = labels if isinstance(labels, pl.DataFrame) else _read(Path(labels)), f"labels of {what}"
        if frame.width < 2:
            raise DataError(f"{where} need two columns, ids and labels: found {', '.join(frame.columns) or 'none'}.")
        found = frame.select(pl.nth(0).alias("id"), pl.nth(1).cast(pl.String).alias("label")).drop_nulls().unique()
        codes = vocabulary.encode(found["id"])
        if not codes.any():
            raise DataError(f"{where}: none of the {len(found):,} ids is one of the Dataset's {what}.")
        twice = found.filter(pl.Series(codes > 0) & found["id"].is_duplicated())
        if len(twice):
            raise DataError(f"{where}: {twice['id'][0]!r} has two labels, {' and '.join(twice['label'].head(2))}.")
        names = found["label"].filter(pl.Series(codes > 0)).unique().sort()
        places = found["label"].replace_strict(names, pl.Series(range(len(names))), default=-1).to_numpy()
        result = np.full(len(vocabulary) + 1, -1, dtype=np.int64)
        result[codes] = places
        result[0] = -1
        return cls(tuple(names), result)

    def ordered(self, names: tuple[str, ...]) -> Labels:
        """The same labels with `names`, which hold all of this one's, in their order."""
        place = np.append([names.index(name) for name in self.names], -1).astype(np.int64)
        return Labels(names, place[self.codes])


def planted_labels(truth: Planted, dataset: Dataset) -> tuple[Labels, Labels]:
    """The categories of the items and the groups of the users behind a simulation.

    Raises
    ------
    DataError
        The Dataset does not hold what was simulated.
    """
    market = truth.market
    users, items = np.arange(market.users), np.arange(market.items) + FIRST_ITEM
    ids = [pl.DataFrame({"user": users, "item": FIRST_ITEM}), pl.DataFrame({"user": 0, "item": items})]
    people, goods = [named(frame, market) for frame in ids] if market.names else ids
    categories = pl.Series(CATEGORIES[: market.categories]).gather(truth.categories_of(items))
    groups = pl.Series(["group 1", "group 2"]).gather(truth.groups)
    of_items = Labels.of(dataset.catalogue, pl.DataFrame([goods["item"], categories.alias("category")]), "items")
    of_users = Labels.of(dataset.users, pl.DataFrame([people["user"], groups.alias("group")]), "users")
    return of_items.ordered(CATEGORIES[: market.categories]), of_users.ordered(("group 1", "group 2"))


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected a CSV file with ids and labels.") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a CSV file with ids and labels: {error}") from None
