"""Users that a Dataset, a Recommender or a run forgets, on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from segue.data.dataset import Dataset
from segue.data.shards import is_shards
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, StorageError, UnknownIdError
from segue.inference.loading import load
from segue.inference.storage import MANIFEST
from segue.inference.unfinished import is_unfinished
from segue.models.base import CountingModel
from segue.training.run_manifest import RECOMMENDER, checkpoints, run_folder


def forget(
    target: str | Path,
    users: Sequence[Any],
    *,
    histories: bool = True,
    out: str | Path | None = None,
    may_be_unknown: bool = False,
) -> dict[str, Any]:
    """Remove users from the folder of a Dataset, a Recommender or a run.

    A repeated call ends what a killed one began.

    Parameters
    ----------
    target
        The folder.
    users
        Raw ids; as text for integers, too.
    histories
        False also leaves out the histories of all users of a Recommender.
    out
        Folder of the result; `target` itself if it is None. Of a run it gets the Recommender only.
    may_be_unknown
        True accepts users of whom none is known, such as all users that a service has forgotten.

    Returns
    -------
    dict
        `users` (number forgotten), `unknown` (number of ids that were not there), `written` (the folder), `deleted`
        (checkpoints), and `remembers`: a sentence on the weights, empty for a Dataset.

    Raises
    ------
    UnknownIdError
        None of the users is known, and `may_be_unknown` is False.
    StorageError
        The folder is nothing of the kind, or an unfinished run.
    """
    folder = Path(target)
    if (folder / "dataset.json").is_file():
        if not histories:
            raise ConfigError(f"{folder} is a Dataset, and its histories are all that it is: name a run.")
        data = Dataset.open(folder)
        known = known_of(data.users, users, may_be_none=may_be_unknown)
        left = data.forget(known)
        left.save(folder if out is None else out)
        return _result(data, left, folder if out is None else Path(out), [], "", _unknown(data.users, users))
    if is_shards(folder):
        raise StorageError(
            f"{folder} is a Dataset in shards, whose users cannot be forgotten in place: prepare the log without them, "
            "or forget them in what segue.Shards.merged(out=) writes."
        )
    if is_unfinished(folder):
        raise StorageError(f"{folder} is an unfinished run, and its checkpoints hold all users: finish or delete it.")
    is_run = not (folder / MANIFEST).is_file()
    if out is not None or not is_run:
        return _forget(folder, users, histories, folder if out is None else Path(out), [], may_be_unknown)
    with run_folder(folder, True, None):
        load(folder, verify=False)  # before anything is deleted
        deleted = checkpoints(folder)
        for name in deleted:
            (folder / name).unlink()
        return _forget(folder, users, histories, folder / RECOMMENDER, deleted, may_be_unknown)


def _forget(
    folder: Path, users: Sequence[Any], histories: bool, place: Path, deleted: list[str], may_be_unknown: bool
) -> dict[str, Any]:
    recommender = load(folder)
    may_be_none = may_be_unknown or bool(deleted)
    known = known_of(recommender.dataset.users, users, may_be_none=may_be_none) if users else pl.Series([])
    left = recommender.forget(known) if len(known) else recommender
    left.save(place, histories=histories)
    kind = "counts" if isinstance(left.model, CountingModel) else "weights"
    remembers = (
        f"The {kind} of {left.model.config.name} were learned with the interactions of these users, and may still tell "
        "something of them: train again on the Dataset without them to remove that too."
    )
    unknown = _unknown(recommender.dataset.users, users)
    return _result(recommender.dataset, left.dataset, place, deleted, remembers if len(known) else "", unknown)


def _unknown(vocabulary: Vocabulary, users: Sequence[Any]) -> int:
    """Number of raw ids that a vocabulary lacks."""
    return int((vocabulary.encode(list(users)) == 0).sum()) if len(users) else 0


def known_of(vocabulary: Vocabulary, users: Sequence[Any], may_be_none: bool = False) -> pl.Series:
    """The known ones of some raw ids; an UnknownIdError if there are none."""
    ids = vocabulary.convert(list(users))
    known = ids.filter(pl.Series(vocabulary.encode(ids) > 0, dtype=pl.Boolean))
    if not len(known) and not may_be_none:
        vocabulary.require(list(users), "user")
        raise UnknownIdError("no user was named.")
    return known.unique(maintain_order=True)


def _result(
    before: Dataset, after: Dataset, place: Path, deleted: list[str], remembers: str, unknown: int
) -> dict[str, Any]:
    users = len(before.users.codes) - len(after.users.codes)
    return {"users": users, "unknown": unknown, "written": str(place), "deleted": deleted, "remembers": remembers}
