"""Lists for millions of people into one file: in parts, so that memory stays small and a killed run goes on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.sources import HistorySource
from segue.errors import ConfigError, StorageError
from segue.files import atomic_file, read_json, write_json
from segue.inference.asking.as_of import Moment, moment
from segue.inference.asking.users import People, warn_unrated
from segue.inference.scorer import Scorer
from segue.inference.scoring.lists import Rules, Scores, best_lists, list_frame
from segue.models.base import Model

Progress = Callable[[int, int], None]
"""Called with the number of people done and of all people."""

_NOTE = "export.json"
_SUFFIXES = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True, eq=False)
class Export:
    """A file of lists to be written.

    Attributes
    ----------
    path
        Ends in .parquet, .csv or .jsonl. A file that is there is replaced at the end, in one step.
    chunk
        How many people to a part.

    Raises
    ------
    ConfigError
        Another ending, or a chunk below 1.
    """

    path: Path
    chunk: int

    def __post_init__(self) -> None:
        if self.path.suffix not in _SUFFIXES:
            raise ConfigError(
                f"{self.path} ends in {self.path.suffix or 'nothing'!r}: expected one of {', '.join(_SUFFIXES)}."
            )
        if self.chunk < 1:
            raise ConfigError(f"chunk={self.chunk} is a number of people: expected 1 or more.")

    def write(
        self,
        people: int,
        identity: Mapping[str, Any],
        lists: Callable[[slice], pl.DataFrame],
        progress: Progress | None,
    ) -> Path:
        """Write `lists(slice)` for all slices of so many people.

        Finished parts lie in the folder `<path>.parts` until all are there; a run that finds parts of the same
        `identity` makes only the missing ones. Parts of another identity are thrown away.

        Parameters
        ----------
        people
            How many there are.
        identity
            Plain data: all that the lists depend on.
        lists
            Makes the frame of a slice of people.
        progress
            Called before each part and at the end.

        Raises
        ------
        StorageError
            `<path>.parts` exists and holds something else.
        """
        folder = self.path.with_name(f"{self.path.name}.parts")
        _open_parts(folder, {**identity, "n": people, "chunk": self.chunk})
        starts = range(0, max(people, 1), self.chunk)
        files = [folder / f"part-{place:06d}.parquet" for place in range(len(starts))]
        for start, file in zip(starts, files, strict=True):
            if progress:
                progress(start, people)
            if not file.is_file():
                frame = lists(slice(start, min(start + self.chunk, people)))
                with atomic_file(file) as temporary:
                    frame.write_parquet(temporary)
        with atomic_file(self.path) as temporary:
            _join(files, temporary, self.path.suffix)
        shutil.rmtree(folder)
        if progress:
            progress(people, people)
        return self.path


def write_lists(
    target: Export,
    scorer: Scorer,
    source: HistorySource,
    people: People,
    rules: Rules,
    shares: Scores,
    as_of: Moment | None,
    progress: Progress | None,
) -> Path:
    """Write the best lists for people to a file.

    Parameters
    ----------
    target
        The file.
    scorer, source
        Who answers, and the raw ids of the items.
    people, rules, shares
        As for `best_lists`.
    as_of
        The moment that the histories end at, if they were cut.
    progress
        Called with the number of people done and of all.
    """

    listed = np.zeros(scorer.n_items + 1, dtype=np.bool_)

    def lists(part: slice) -> pl.DataFrame:
        some = people.select(part)
        codes, scores = best_lists(scorer, some, rules, shares)
        listed[codes] = True
        return list_frame(scorer, some, source.catalogue, codes, scores)

    until = None if as_of is None else moment(source, as_of)
    path = target.write(len(people), identify(scorer, source, people, rules, until), lists, progress)
    warn_unrated(scorer, source.catalogue, np.flatnonzero(listed))
    return path


def identify(scorer: Scorer, source: HistorySource, people: People, rules: Rules, as_of: int | None) -> dict[str, Any]:
    """All that lists depend on, as plain data: a part may be kept only for the same."""
    return {
        "model": fingerprint(scorer.model),
        "dataset": source.fingerprint,
        "people": digest(people.ids.hash(seed=0).to_numpy()),
        "k": rules.k,
        "exclude_seen": rules.exclude_seen,
        "allowed": None if rules.allowed is None else digest(rules.allowed),
        "as_of": as_of,
    }


def fingerprint(model: Model) -> str:
    """A hash of a model's config and weights."""
    total = hashlib.sha256(repr(model.config.to_dict()).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def digest(array: npt.NDArray[Any]) -> str:
    """A hash of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _open_parts(folder: Path, identity: dict[str, Any]) -> None:
    """Make `folder` hold only parts of `identity`."""
    note = folder / _NOTE
    if folder.exists() and not note.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} exists and was not written by segue: remove it, or choose another place.")
    if note.is_file() and read_json(note) != identity:
        shutil.rmtree(folder)
    write_json(note, identity)


def _join(files: list[Path], target: Path, suffix: str) -> None:
    frame = pl.scan_parquet(files)
    if suffix == ".parquet":
        frame.sink_parquet(target)
    elif suffix == ".csv":
        frame.sink_csv(target)
    else:
        frame.sink_ndjson(target)
