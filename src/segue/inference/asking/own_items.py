"""`allow` and `deny` for single users: lists of items by user id, matched with the users of a question."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.ragged import Int64, positions, rows_of
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.asking.ids import encode_lists, requested_ids, warn_unknown

_CONSEQUENCES = {"allow": "left out of allow", "deny": "ignored in deny"}


@dataclass(frozen=True, eq=False)
class OwnItems:
    """Items that are listed for each of n users.

    Attributes
    ----------
    items
        (any,) int32 item codes.
    starts, ends
        (n,) int64: the items of row r are `items[starts[r]:ends[r]]`.
    named
        (n,) bool: False for users without a list. Their lists are empty, but no rule applies to them.
    """

    items: npt.NDArray[np.int32]
    starts: Int64
    ends: Int64
    named: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, lists: Mapping[Any, Any], argument: str, users: pl.Series, known: Vocabulary, items: Vocabulary
    ) -> OwnItems:
        """Match lists by user id with the users of a question.

        Parameters
        ----------
        lists
            Raw item ids by raw user id. Users outside the question do not count.
        argument
            "allow" or "deny".
        users
            (n,) raw ids of the users of the question.
        known
            All known users; a warning names users of `lists` who are in neither.
        items
            The catalogue; unknown items are left out, with a warning.

        Raises
        ------
        ConfigError
            The mapping is empty, and it is that of `allow`.
        DataError
            A list is not a list of items, or a user is named twice.
        """
        if not lists and argument == "allow":
            raise ConfigError(
                "allow={} allows no user anything in particular: leave allow out to allow all items, or give [] to "
                "allow none."
            )
        ids = requested_ids(list(lists), f"the users of {argument}")
        codes, offsets, unknown = encode_lists(items, list(lists.values()), argument)
        warn_unknown("items", unknown, _CONSEQUENCES[argument])
        rows = Vocabulary.in_order(users).encode(ids) - 1
        strange = pl.Series((rows < 0) & (known.encode(ids) == 0), dtype=pl.Boolean)
        warn_unknown("users", ids.filter(strange), f"ignored in {argument}")
        asked = rows >= 0
        starts, ends = np.zeros((2, len(users)), dtype=np.int64)
        named = np.zeros(len(users), dtype=np.bool_)
        starts[rows[asked]], ends[rows[asked]] = offsets[:-1][asked], offsets[1:][asked]
        named[rows[asked]] = True
        return cls(codes, starts, ends, named)

    @property
    def fingerprint(self) -> str:
        """Hash of the rows and their items."""
        digest = hashlib.sha256()
        for array in (*self.pairs(), self.named):
            digest.update(len(array).to_bytes(8, "little") + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def select(self, index: Int64 | slice) -> OwnItems:
        """The rows at `index`, in its order."""
        return OwnItems(self.items, self.starts[index], self.ends[index], self.named[index])

    def pairs(self) -> tuple[Int64, Int64]:
        """Rows (m,) and item codes (m,) of all listed items, row by row."""
        return rows_of(self.starts, self.ends), self.items[positions(self.starts, self.ends)].astype(np.int64)
