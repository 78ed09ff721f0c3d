"""Columns in flat files, which may be larger than memory: written piece by piece, read by memory map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import offsets_of

Columns = Mapping[str, npt.NDArray[Any]]
CHUNK = 1 << 22  # rows at a time


class Spool:
    """Equally long columns, one file each in `folder`.

    Parameters
    ----------
    folder
        Folder of the files; made if needed.
    dtypes
        Name → type of each column.
    """

    def __init__(self, folder: Path, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.dtypes = dict(dtypes)
        self._paths = {name: folder / f"{name}.bin" for name in self.dtypes}

    def append(self, columns: Columns) -> None:
        """Add rows: name → (n,), for every column. No file stays open, so any number of spools may exist."""
        sizes = {len(columns[name]) for name in self.dtypes}
        (size,) = sizes
        for name, dtype in self.dtypes.items():
            with self._paths[name].open("ab") as file:
                file.write(np.ascontiguousarray(columns[name], dtype=dtype).data)
        self.rows += size

    def map(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, memory-mapped (read-only)."""
        return {name: self._mapped(name) for name in self.dtypes}

    def load(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, in memory."""
        return {name: self._read(name, slice(0, self.rows)) for name in self.dtypes}

    def pieces(self) -> Iterator[tuple[slice, dict[str, npt.NDArray[Any]]]]:
        """All columns, piece by piece, each read into memory: (slice of rows, name → values)."""
        for part in chunks(self.rows):
            yield part, {name: self._read(name, part) for name in self.dtypes}

    def column(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """One column, piece by piece."""
        return (self._read(name, part) for part in chunks(self.rows))

    def remove(self) -> None:
        """Delete the files."""
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def _read(self, name: str, part: slice) -> npt.NDArray[Any]:
        dtype, count = self.dtypes[name], part.stop - part.start
        if not count:
            return np.empty(0, dtype=dtype)
        return np.fromfile(self._paths[name], dtype=dtype, count=count, offset=part.start * dtype.itemsize)

    def _mapped(self, name: str) -> npt.NDArray[Any]:
        if not self.rows:
            return np.empty(0, dtype=self.dtypes[name])
        return np.asarray(np.memmap(self._paths[name], dtype=self.dtypes[name], mode="r"))


def chunks(rows: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices that cover `rows` rows, `size` at a time.

    >>> list(chunks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def scatter(columns: Columns, target: npt.NDArray[np.integer[Any]], spools: Sequence[Spool]) -> None:
    """Append each row (n,) to the spool with its number in `target` (n,); the order of the rows stays."""
    if len(spools) == 1:
        spools[0].append(columns)
        return
    order = np.argsort(target, kind="stable")
    bounds = offsets_of(np.bincount(target, minlength=len(spools)))
    for number, spool in enumerate(spools):
        chosen = order[bounds[number] : bounds[number + 1]]
        if len(chosen):
            spool.append({name: values[chosen] for name, values in columns.items()})
