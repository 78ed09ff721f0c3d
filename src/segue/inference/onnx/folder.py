"""Files of an exported model, and the ids in it. Neither torch nor polars is imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64
from segue.errors import StorageError
from segue.files import read_json

KIND = "onnx"
MANIFEST = "onnx.json"
FORMAT_VERSION = 2
"""1 had no transitions."""

ENCODER = "encoder.onnx"
SCORES = "scores.onnx"
ITEMS = "items.npy"
COLD = "cold.npy"
TRANSITIONS = "transitions_{}.npy"
"""Arrays of the counted transitions, by name (`segue.data.transitions.TransitionCounts`)."""
ITEM_IDS = "item_ids.json"
USER_IDS = "user_ids.json"
INDEX = "index"
DATA = "data"
"""Dataset with the histories, if the export has it."""
README = "README.md"

INPUTS = ("users", "items", "lengths", "ages", "repeated", "features")
"""Possible inputs of the encoder, in this order (`segue.data.history_arrays`)."""
OUTPUT = "queries"


class Ids:
    """Raw ids and their codes: the id at position p has code p + 1, and 0 stands for unknown ids.

    Parameters
    ----------
    ids
        Integers, or texts.
    """

    def __init__(self, ids: Sequence[int | str]) -> None:
        self.ids = ids
        self._codes = {raw_id: code for code, raw_id in enumerate(ids, 1)}
        self._integers = bool(len(ids)) and isinstance(ids[0], int)

    def __len__(self) -> int:
        return len(self.ids)

    def code_of(self, raw_id: int | str) -> int:
        """Code of a raw id; 0 if it is unknown. An integer may be given as the text that segue writes for it."""
        code = self._codes.get(raw_id)
        if code is not None:
            return code
        text = str(raw_id)
        if not self._integers:
            return self._codes.get(text, 0)
        digits = text.removeprefix("-")
        plain = digits.isascii() and digits.isdigit() and len(digits) < 20
        return self._codes.get(int(text), 0) if plain and str(int(text)) == text else 0

    def encode(self, raw_ids: Sequence[int | str]) -> Int64:
        """Codes (n,) of raw ids; 0 for unknown ones."""
        return np.fromiter(map(self.code_of, raw_ids), np.int64, len(raw_ids))

    def decode(self, codes: npt.ArrayLike) -> list[int | str]:
        """Raw ids of codes from 1."""
        return [self.ids[code - 1] for code in np.asarray(codes).tolist()]


def write_ids(path: Path, ids: Sequence[int | str]) -> None:
    """Write raw ids as a JSON list, which every language reads."""
    path.write_text(json.dumps(list(ids), ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def read_ids(path: Path, size: int) -> Ids:
    """Read a file of `write_ids` with `size` ids, all integers or all texts.

    Raises
    ------
    StorageError
        The file holds something else.
    """
    ids = read_json(path)
    types = set(map(type, ids)) if isinstance(ids, list) else set()
    if not isinstance(ids, list) or len(ids) != size or len(types) > 1 or not types <= {int, str}:
        raise StorageError(f"{path} does not hold {size:,} ids: it was damaged or edited.")
    return Ids(ids)


def read_array(path: Path, dtype: Any, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Read an array of this type and shape; None stands for any size.

    Raises
    ------
    StorageError
        The file is no such array.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StorageError(f"{path} is no readable array: {error}") from None
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        raise StorageError(f"{path} has the shape {array.shape} of {array.dtype}: it belongs to another folder.")
    return array
