"""Columns in flat files, written piece by piece and read by memory map: arrays that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, npt.NDArray[Any]]
CHUNK = 1 << 22  # rows at a time


class Spool:
    """Equally long columns, one file each in `folder`.

    Parameters
    ----------
    folder
        Where the files go; made if need be.
    dtypes
        Name → type of each column.
    """

    def __init__(self, folder: Path, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.dtypes = dict(dtypes)
        self._paths = {name: folder / f"{name}.bin" for name in self.dtypes}
        self._files: dict[str, BinaryIO] = {name: path.open("wb") for name, path in self._paths.items()}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, columns: Columns) -> None:
        """Add rows: name → (n,), for every column."""
        sizes = set()
        for name, dtype in self.dtypes.items():
            values = np.ascontiguousarray(columns[name], dtype=dtype)
            sizes.add(len(values))
            self._files[name].write(values.data)
        (size,) = sizes
        self.rows += size

    def close(self) -> None:
        """Write out what is buffered; nothing can be added afterwards."""
        for file in self._files.values():
            file.close()

    def map(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, memory-mapped (read-only)."""
        self.close()
        return {name: self._mapped(name) for name in self.dtypes}

    def load(self) -> dict[str, npt.NDArray[Any]]:
        """The columns, in memory."""
        self.close()
        return {name: np.fromfile(self._paths[name], dtype=dtype) for name, dtype in self.dtypes.items()}

    def remove(self) -> None:
        """Delete the files."""
        self.close()
        for path in self._paths.values():
            path.unlink(missing_ok=True)

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
