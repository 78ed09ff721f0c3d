"""Categories of items and groups of users: a label for each code, from a file, a frame or a simulation."""

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
from segue.plain_text import require_text


@dataclass(frozen=True, eq=False)
class Labels:
    """A label for each item or for each user.

    Attributes
    ----------
    names
        The distinct labels.
    codes
        (n + 1,) int64: index in `names` of the label of each item or user code; -1 for codes without a label.
    """

    names: tuple[str, ...]
    codes: Int64

    @classmethod
    def one(cls, n: int, name: str = "all") -> Labels:
        """One label for all of n codes."""
        codes = np.zeros(n + 1, dtype=np.int64)
        codes[0] = -1
        return cls((name,), codes)

    @classmethod
    def of(cls, vocabulary: Vocabulary, labels: pl.DataFrame | str | Path, plural: str = "ids") -> Labels:
        """Labels from a frame, or from a CSV file with a header: raw ids in the first column, labels in the second.

        Parameters
        ----------
        vocabulary
            The items or users.
        labels
            The frame or the file. Ids outside the vocabulary are ignored; ids without a row get no label.
        plural
            "items" or "users", for messages.

        Raises
        ------
        DataError
            The file is missing or lacks two columns, no id is known, or one id has two labels.
        """
        frame, name = labels if isinstance(labels, pl.DataFrame) else _read(Path(labels)), f"labels of {plural}"
        if frame.width < 2:
            raise DataError(f"{name} need two columns, ids and labels: found {', '.join(frame.columns) or 'none'}.")
        pairs = frame.select(pl.nth(0).alias("id"), pl.nth(1).cast(pl.String).alias("label")).drop_nulls().unique()
        codes = vocabulary.encode(pairs["id"])
        if not codes.any():
            raise DataError(f"{name}: none of the {len(pairs):,} ids is one of the Dataset's {plural}.")
        twice = pairs.filter(pl.Series(codes > 0) & pairs["id"].is_duplicated())
        if len(twice):
            raise DataError(f"{name}: {twice['id'][0]!r} has two labels, {' and '.join(twice['label'].head(2))}.")
        names = pairs["label"].filter(pl.Series(codes > 0)).unique().sort()
        index = pairs["label"].replace_strict(names, pl.Series(range(len(names))), default=-1).to_numpy()
        result = np.full(len(vocabulary) + 1, -1, dtype=np.int64)
        result[codes] = index
        result[0] = -1
        return cls(tuple(names), result)

    def ordered(self, names: tuple[str, ...]) -> Labels:
        """The same labels with other `names`, which contain all of these."""
        index = np.append([names.index(name) for name in self.names], -1).astype(np.int64)
        return Labels(names, index[self.codes])


def planted_labels(truth: Planted, dataset: Dataset) -> tuple[Labels, Labels]:
    """Categories of the items and groups of the users of a simulation.

    Raises
    ------
    DataError
        The Dataset is not that of the simulation.
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
        require_text(path)
        return pl.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected a CSV file with ids and labels.") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a CSV file with ids and labels: {error}") from None
