"""The split that the data came with, for figures that can be compared with published ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.preparing.given import TEST, TEST_HISTORY, TRAINING, VALIDATION, VALIDATION_HISTORY, given_dataset
from segue.data.ragged import Int64
from segue.data.reading.columns import Column
from segue.data.reading.read import ReadOptions
from segue.data.splits.base import SplitConfig
from segue.data.splits.holdouts import Holdout, Split, holdout_after
from segue.data.stored import N_PARTS
from segue.errors import DataError


@dataclass(frozen=True)
class Given(SplitConfig):
    """The split that the data came with (`segue prepare --given`)."""

    name: ClassVar[str] = "given"

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset.

        Raises
        ------
        DataError
            The Dataset came with no split, or nobody can be evaluated.
        """
        if dataset.parts is None:
            raise DataError(
                "this Dataset came with no split: prepare it from the files of one (segue prepare --given, --test or "
                "--part; segue.given_split in Python), or choose another split."
            )
        data = dataset.compact()
        assert data.parts is not None
        keys = np.repeat(np.arange(data.n_users + 1), data.lengths) * N_PARTS + data.parts
        lengths = np.bincount(keys, minlength=N_PARTS * (data.n_users + 1)).reshape(-1, N_PARTS)
        ends = np.ascontiguousarray((data.starts[:, None] + lengths.cumsum(axis=1)).T)
        return Split(
            dataset=dataset,
            train=data.until(ends[TRAINING]),
            validation=_part(data, ends, VALIDATION_HISTORY, VALIDATION, "validation"),
            test=_part(data, ends, TEST_HISTORY, TEST, "test"),
            spec=self.spec,
        )


def _part(data: Dataset, ends: Int64, history: int, targets: int, name: str) -> Holdout:
    """Holdout of one part.

    Its users are either all known from training, or all unknown: if a part has both, only
    the known ones are evaluated.

    Parameters
    ----------
    data
        The Dataset.
    ends
        (5, n_users + 1) end of each part.
    history, targets
        Parts whose ends are those of the histories and of the targets.
    name
        Name of the Holdout.
    """
    if name == "validation" and (ends[targets] == ends[history]).all():
        nobody = np.empty(0, dtype=np.int64)
        return Holdout(data, nobody, nobody, nobody, name)
    has_history = ends[history] > data.starts
    known = ends[TRAINING] > data.starts
    trained = bool((known & has_history & (ends[targets] > ends[history])).any())
    evaluated = has_history & known if trained else has_history
    try:
        return replace(holdout_after(data, ends[history], ends[targets], name, evaluated), known=trained)
    except DataError:
        raise DataError(
            f"no user of the {name} part has a history: there is nothing to predict its targets from."
        ) from None


@checked
def given_split(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    part: str | int | None = None,
    user: Column = None,
    item: Column = None,
    time: Column = None,
    rating: Column = None,
    format: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    quote: str | None = None,
    time_unit: str | None = None,
    bad_rows: Literal["error", "drop"] = "error",
) -> Split:
    """Take over the split that data came with, so that every target is that of the published figures.

    Nothing is filtered and nothing is sorted across the parts: a user's history for the test is training, then
    validation, each in the order of time. Equal times keep the order of the files. The whole fits into memory.

    Parameters
    ----------
    train, validation, test
        Files or frames that `segue.read` takes, one for each part; validation may be missing. RecBole's files with
        item lists (`item_id_list:token_seq`) are targets with the history before them. Rows of training must then be
        steps of one sequence per user. A session with several targets becomes several users: 7#1, 7#2, ….
        Or `train` alone: a folder with the files of RecBole (`NAME.train.inter`) or gSASRec (`train/input.txt`), or
        with "train", "valid" and "test" in the names of its files; or a file with one line per user, as S3-Rec's,
        whose last item is the test target and whose last but one is that of validation.
    part
        Column of `train` that names the part of each row: train, valid (val, validation, dev) or test.
    user, item, time, rating, format, separator, header, quote, time_unit, bad_rows
        As in `segue.read`, for all files.

    Returns
    -------
    Split
        `split.dataset.save(folder)` keeps the split; `segue train folder --split given` uses it.
        `split.dataset.metadata["given"]` counts users, items and targets of each part, and those that training lacks.

    Raises
    ------
    DataError
        A file cannot be read, parts do not go together, or nobody can be evaluated.
    ConfigError
        Arguments do not go together.

    Warns
    -----
    UserWarning
        Users or items of validation or test are not in training, with their numbers.

    Examples
    --------
    >>> import polars as pl
    >>> train = pl.DataFrame({"user": [1, 1, 2, 2], "item": ["a", "b", "a", "c"], "time": [1, 2, 1, 2]})
    >>> test = pl.DataFrame({"user": [1, 2], "item": ["c", "b"], "time": [3, 3]})
    >>> split = segue.given_split(train, test=test)
    >>> split.test.n_targets.tolist(), split.train.n_interactions
    ([1, 1], 4)
    """
    reading = ReadOptions(user, item, time, rating, None, format, separator, header, quote, time_unit, bad_rows)
    return Given().split(given_dataset(train, validation, test, part=part, reading=reading))
