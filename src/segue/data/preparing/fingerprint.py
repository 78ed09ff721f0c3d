"""Fingerprints of logs: a log that was prepared or appended before is recognised by its content, not by its name."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.preparing.partitions import OLDEST, Encoded


class LogFingerprint:
    """Hash of the interactions of a log, in their order within each user, whatever its file format.

    Parameters
    ----------
    encoded
        The log with codes. Its partitions are added one by one, in their order.
    """

    def __init__(self, encoded: Encoded) -> None:
        self._digest = hashlib.sha256()
        for vocabulary in (encoded.users, encoded.catalogue):
            self._digest.update(str(vocabulary.ids.dtype).encode() + vocabulary.to_bytes())
        self.rows = 0
        self.newest: int | None = None

    def add(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Add the columns (n,) of the next partition."""
        self.rows += len(columns["user"])
        for name in sorted(columns.keys() - {OLDEST}):
            self._digest.update(name.encode() + np.ascontiguousarray(columns[name]).data)
        if "time" in columns and len(columns["time"]):
            newest = int(columns["time"].max())
            self.newest = newest if self.newest is None else max(self.newest, newest)

    def entry(self, source: str) -> dict[str, Any]:
        """The entry for `metadata["logs"]`: source, rows, newest time in the log's unit, and fingerprint."""
        entry = {"source": source, "rows": self.rows, "newest": self.newest, "fingerprint": self._digest.hexdigest()}
        return entry


def newest_time(encoded: Encoded) -> int:
    """The newest time of a log."""
    return max(int(part.max()) for partition in encoded.partitions for part in partition.column("time") if len(part))
