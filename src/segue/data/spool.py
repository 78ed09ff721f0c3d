"""Columns in flat files, which may be larger than memory: written piece by piece, read by memory map."""

from __future__ import annotations

import mmap
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
    final_rows
        Number of rows once all are appended. The files are then NumPy files, which need not be written again.

    Attributes
    ----------
    rows
        Number of rows so far.
    paths
        File of each column.
    """

    def __init__(self, folder: Path, dtypes: Mapping[str, np.dtype[Any]], final_rows: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.dtypes = dict(dtypes)
        self.paths = {name: folder / f"{name}.{'bin' if final_rows is None else 'npy'}" for name in self.dtypes}
        self._header = dict.fromkeys(self.dtypes, 0)  # bytes
        for name, dtype in self.dtypes.items() if final_rows is not None else ():
            with self.paths[name].open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (final_rows,)}
                np.lib.format.write_array_header_1_0(file, header)
                self._header[name] = file.tell()

    @classmethod
    def reopened(cls, folder: Path, dtypes: Mapping[str, np.dtype[Any]], rows: int) -> Spool:
        """The spool that another process filled with so many rows."""
        spool = cls(folder, dtypes)
        spool.rows = rows
        return spool

    def append(self, columns: Columns) -> None:
        """Add rows: name → (n,), for every column. No file stays open, so any number of spools may exist."""
        sizes = {len(columns[name]) for name in self.dtypes}
        (size,) = sizes
        for name, dtype in self.dtypes.items():
            with self.paths[name].open("ab") as file:
                file.write(np.ascontiguousarray(columns[name], dtype=dtype).data)
        self.rows += size

    def map(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, memory-mapped (read-only)."""
        return {name: self._mapped(name) for name in self.dtypes}

    def load(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, in memory."""
        return {name: self._read(name, slice(0, self.rows)) for name in self.dtypes}

    def pieces(self, size: int | None = None) -> Iterator[tuple[slice, dict[str, npt.NDArray[Any]]]]:
        """All columns, so many rows at a time, read into memory: (slice of rows, name → values)."""
        for part in chunks(self.rows) if size is None else chunks(self.rows, size):
            yield part, {name: self._read(name, part) for name in self.dtypes}

    def column(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """One column, piece by piece."""
        return (self._read(name, part) for part in chunks(self.rows))

    def remove(self) -> None:
        """Delete the files."""
        for path in self.paths.values():
            path.unlink(missing_ok=True)

    def _read(self, name: str, part: slice) -> npt.NDArray[Any]:
        dtype, count = self.dtypes[name], part.stop - part.start
        if not count:
            return np.empty(0, dtype=dtype)
        offset = self._header[name] + part.start * dtype.itemsize
        return np.fromfile(self.paths[name], dtype=dtype, count=count, offset=offset)

    def _mapped(self, name: str) -> npt.NDArray[Any]:
        if not self.rows:
            return np.empty(0, dtype=self.dtypes[name])
        return np.asarray(np.memmap(self.paths[name], dtype=self.dtypes[name], mode="r", offset=self._header[name]))


def chunks(rows: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices that cover `rows` rows, `size` at a time.

    >>> list(chunks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def release(array: npt.NDArray[Any]) -> None:
    """Let go of the pages that were read of a memory-mapped file: they no longer count as memory of this process.

    Does nothing with arrays in memory, and with systems that have no such advice.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


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
