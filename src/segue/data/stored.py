"""The arrays of a Dataset's folder: mapped if their files are what they should be, and checked against each other.

Checksums find damage. They do not find a folder whose files were edited and summed up again, or put together from two
others. So opening also compares every size, type, range and order that the rest of segue relies on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from segue.data.item_histories import position_type
from segue.data.ragged import Int64
from segue.data.sessions import UNITS_PER_SECOND
from segue.errors import StorageError
from segue.files import whole_number

Array = npt.NDArray[Any]

DTYPES: Mapping[str, tuple[np.dtype[Any], ...]] = {
    "items": (np.dtype(np.int32),),
    "offsets": (np.dtype(np.int64),),
    "times": (np.dtype(np.int64),),
    "ratings": (np.dtype(np.float32),),
    "session_offsets": (np.dtype(np.int64),),
    "by_item": (np.dtype(np.int32), np.dtype(np.int64)),
    "parts": (np.dtype(np.int8),),
}
"""Name of each array, and the types that its file may have."""

N_PARTS = 5
"""Number of parts that `Dataset.parts` tells apart."""
_LATEST = 1 << 62
"""Times beyond this cannot be subtracted from each other."""
_CHUNK = 1 << 20
_SMALL = 128


def map_array(path: Path, dtypes: tuple[np.dtype[Any], ...]) -> Array:
    """Memory-map an array file as a plain array. An empty one cannot be mapped and is read.

    Raises
    ------
    StorageError
        The file is no array of one dimension of these types, or does not hold as many values as it says.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            start = stream.tell()
    except Exception as error:  # the header is a text in Python's syntax, which fails in many ways
        raise StorageError(f"{path} is not a readable array file: {error}") from None
    if dtype not in dtypes or len(shape) != 1:
        expected = " or ".join(map(str, dtypes))
        raise StorageError(f"{path} holds {dtype} of shape {shape}, expected one dimension of {expected}.")
    if shape[0] < 0 or start + shape[0] * dtype.itemsize != size:
        raise StorageError(f"{path} says that it holds {shape[0]} values, and has room for others: it was edited.")
    if size <= _SMALL or not shape[0]:
        return np.fromfile(path, dtype=dtype, count=shape[0], offset=start)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape))


def check_manifest(manifest: dict[str, Any], place: Path) -> None:
    """Raise a StorageError if a setting in the manifest of a Dataset is impossible."""
    for key in ("users", "items", "interactions"):
        whole_number(manifest, key, place)
    if manifest.get("sessions") is not None:
        whole_number(manifest, "sessions", place)
    unit = manifest["time_unit"]
    if unit is not None and not (isinstance(unit, str) and unit in UNITS_PER_SECOND):
        raise StorageError(f"{place} has time_unit={unit!r}: expected {', '.join(UNITS_PER_SECOND)} or null.")
    if not isinstance(manifest["metadata"], dict):
        raise StorageError(f"{place} has metadata that is no object: it was damaged or edited.")
    if not isinstance(manifest.get("in_order", True), bool):
        raise StorageError(f"{place} has in_order={manifest['in_order']!r}: expected true or false.")


def check_sizes(folder: Path, arrays: Mapping[str, Array | None], manifest: dict[str, Any]) -> None:
    """Raise a StorageError unless the arrays have the sizes that the manifest states.

    Parameters
    ----------
    folder
        Folder of the Dataset, for errors.
    arrays
        Array by name; None for those that are not there.
    manifest
        Manifest after `check_manifest`.
    """
    n, sessions = manifest["interactions"], arrays["session_offsets"]
    sizes = {"items": n, "times": n, "ratings": n, "by_item": n, "parts": n, "offsets": manifest["users"] + 2}
    for name, size in sizes.items():
        array = arrays[name]
        if array is not None and len(array) != size:
            _refuse(folder, name, f"has {len(array):,} values, expected {size:,}")
    stated = manifest.get("sessions")
    if sessions is not None and (stated is None or len(sessions) != stated + 1):
        _refuse(folder, "session_offsets", f"has {len(sessions):,} values, and the manifest tells of {stated} sessions")
    if sessions is None and stated is not None:
        raise StorageError(f"{folder} has no session_offsets.npy, and its manifest tells of {stated} sessions.")
    if arrays["by_item"] is not None and arrays["by_item"].dtype != position_type(n):
        _refuse(folder, "by_item", f"has the type {arrays['by_item'].dtype}, expected {position_type(n)}")


def check_offsets(folder: Path, arrays: Mapping[str, Array | None], n: int) -> None:
    """Raise a StorageError unless the offsets of users and sessions divide n interactions."""
    offsets, sessions = arrays["offsets"], arrays["session_offsets"]
    assert offsets is not None
    if offsets[0] != 0 or offsets[1] != 0 or offsets[-1] != n or (np.diff(offsets) < 0).any():
        _refuse(folder, "offsets", f"does not rise from 0, 0 to {n:,}")
    if sessions is None:
        return
    if sessions[0] != 0 or sessions[-1] != n or (np.diff(sessions) <= 0).any():
        _refuse(folder, "session_offsets", f"does not rise from 0 to {n:,}, with a session in every step")
    if (sessions[np.searchsorted(sessions, offsets)] != offsets).any():
        _refuse(folder, "session_offsets", "holds a session of two users")


def check_values(folder: Path, arrays: Mapping[str, Array | None], n_items: int) -> None:
    """Raise a StorageError if a value is out of its range.

    The order of the items' histories is compared when it is first read (`Dataset.item_histories`): that takes longer
    than everything else together.

    Parameters
    ----------
    folder
        Folder of the Dataset, for errors.
    arrays
        Array by name, after `check_sizes`.
    n_items
        Number of items.
    """
    items, times, ratings, order = (arrays[name] for name in ("items", "times", "ratings", "by_item"))
    offsets, parts = arrays["offsets"], arrays["parts"]
    assert items is not None and offsets is not None
    if not len(items):
        return
    if items.min() < 1 or items.max() > n_items:
        _refuse(folder, "items", f"holds codes from {items.min():,} to {items.max():,} for {n_items:,} items")
    if times is not None and (times.min() <= -_LATEST or times.max() >= _LATEST):
        _refuse(folder, "times", "holds a time beyond 2⁶²")
    if ratings is not None and not np.isfinite([ratings.min(), ratings.max()]).all():
        _refuse(folder, "ratings", "holds a rating that is not a finite number")
    if order is not None and (order.min() < 0 or order.max() >= len(items)):
        _refuse(folder, "by_item", f"holds positions from {order.min():,} to {order.max():,} of {len(items):,}")
    if parts is not None and (parts.min() < 0 or parts.max() >= N_PARTS or not is_in_order(parts, offsets)):
        _refuse(folder, "parts", f"holds parts beyond {N_PARTS - 1}, or in another order than theirs")


def is_in_order(times: npt.NDArray[Any] | None, offsets: Int64) -> bool:
    """True if the times (or parts) of each user never fall.

    >>> is_in_order(np.array([5, 6, 1]), np.array([0, 0, 2, 3])), is_in_order(np.array([6, 5]), np.array([0, 0, 2]))
    (True, False)
    """
    if times is None:
        return True
    falls = [
        np.flatnonzero(times[start + 1 : start + _CHUNK + 1] < times[start : start + _CHUNK][: len(times) - start - 1])
        + start
        + 1
        for start in range(0, max(len(times) - 1, 0), _CHUNK)
    ]
    begins = np.concatenate(falls) if falls else np.zeros(0, dtype=np.int64)
    return bool((offsets[np.searchsorted(offsets, begins)] == begins).all())


def _refuse(folder: Path, name: str, reason: str) -> NoReturn:
    raise StorageError(
        f"{folder / name}.npy {reason}: the parts of this folder do not fit each other, so it was damaged or edited."
    )
