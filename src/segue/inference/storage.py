"""A Recommender on disk: a folder of JSON, safetensors and Parquet files. Loading it cannot run code.

::

    recommender.json      kind, format version, the model's config, sizes, metadata, checksums of all files
    weights.safetensors   the model's tensors
    extra.safetensors     if needed: the popularity of the items, and the items that the model knows
    data/                 the Dataset: histories and vocabularies
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor
from torch.overrides import TorchFunctionMode

from segue.data.dataset import Dataset, open_within
from segue.errors import ConfigError, StorageError
from segue.files import atomic_folder, read_json, read_manifest, whole_number, write_manifest
from segue.models.base import Model, ModelConfig
from segue.models.registry import config_from_dict

FORMAT_VERSION = 1
_KIND = "recommender"
MANIFEST = "recommender.json"
WEIGHTS = "weights.safetensors"
"""File of a Recommender with the tensors of its model."""
_EXTRA = "extra.safetensors"
_DATA = "data"
_PICKLES = (b"\x80", b"PK\x03\x04")
"""First bytes of pickles and of the archives of torch.save."""

_ENTRIES: Mapping[str, tuple[type, ...]] = {
    "split": (dict, type(None)),
    "options": (dict, type(None)),
    "training": (dict, type(None)),
    "refit": (bool, type(None)),
}
"""Entries of the metadata that segue reads, and their types; all others are the user's."""

_FACTORIES = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, Tensor.new_empty, Tensor.new_zeros}
)
_SLACK = 8
"""Multiple of the tensors in a file that building its model may make."""
_SMALL = 1 << 24
"""Number of elements that any model may have."""


class _TooLarge(Exception):
    """Raised while a model is built that is many times as large as its file. Never leaves `build_for`."""


class _Measured(TorchFunctionMode):
    """Within, tensors are counted before they are made; too many or too large ones are a `_TooLarge`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._calls = _SLACK * (len(tensors) + _SLACK)
        self._elements = _SLACK * sum(tensor.numel() for tensor in tensors.values()) + _SMALL

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _FACTORIES:
            given = [
                *(args[:1] if function is torch.full else args),
                *([(kwargs or {})["size"]] if "size" in (kwargs or {}) else []),
            ]
            sizes = [one for one in given if isinstance(one, int)]
            sizes += [size for one in given if isinstance(one, tuple | list) for size in one if isinstance(size, int)]
            self._calls -= 1
            self._elements -= math.prod(sizes)
            if min(self._calls, self._elements) < 0:
                raise _TooLarge
        return function(*args, **(kwargs or {}))


def save_recommender(
    path: Path,
    model: Model,
    dataset: Dataset,
    metadata: Mapping[str, Any],
    overwrite: bool | None = None,
    extra: Mapping[str, Tensor] | None = None,
    write_weights: Callable[[Path], None] | None = None,
) -> None:
    """Write the folder atomically; the folder of a Recommender saved before is replaced, unless `overwrite` is False.

    Parameters
    ----------
    path, model, dataset, metadata, overwrite
        As of `Recommender` and its `save`.
    extra
        Tensors to store beside the model.
    write_weights
        Function that writes the safetensors file of the model, if its tensors are not all in this process.

    Raises
    ------
    StorageError
        `path` holds something that may not be replaced, or the metadata cannot be stored.
    """
    _check_metadata(metadata, "the metadata")
    with atomic_folder(path, _KIND, overwrite) as folder:
        if write_weights is None:
            save_model(model, str(folder / WEIGHTS))
        else:
            write_weights(folder / WEIGHTS)
        dataset.save(folder / _DATA)
        if extra:
            save_file(dict(extra), folder / _EXTRA)
        content = {
            "model": model.config.to_dict(),
            "users": model.n_users,
            "items": model.n_items,
            "metadata": dict(metadata),
        }
        try:
            write_manifest(folder, MANIFEST, _KIND, FORMAT_VERSION, content)
        except TypeError as error:
            raise StorageError(f"the metadata is not plain data, so it cannot be saved as JSON: {error}.") from None


def load_recommender(path: Path, *, verify: bool = True) -> tuple[Model, Dataset, dict[str, Any]]:
    """Read the model, the Dataset and the metadata that `save_recommender` wrote.

    Parameters
    ----------
    path
        The folder, or the folder of a run that contains it as `recommender/`.
    verify
        Compare checksums first.

    Raises
    ------
    StorageError
        The folder is not a Recommender or has a newer format; a file is missing, truncated, altered or of another
        format (a pickle); or the weights do not fit the model or the Dataset.
    """
    folder = _find(path)
    _refuse_pickle(folder / WEIGHTS)
    manifest = read_manifest(folder, MANIFEST, _KIND, FORMAT_VERSION, verify=verify)
    place = folder / MANIFEST
    if WEIGHTS not in manifest["files"]:
        raise StorageError(f"{place} does not list {WEIGHTS}: it was damaged or edited.")
    config = _config_of(manifest, place)
    n_users, n_items = whole_number(manifest, "users", place), whole_number(manifest, "items", place)
    _check_metadata(manifest.get("metadata"), str(place))
    # The manifest was compared with every file already, including those of the Dataset.
    dataset = open_within(folder / _DATA, values=verify)
    if (dataset.n_users, dataset.n_items) != (n_users, n_items):
        raise StorageError(
            f"{folder} holds a model of {n_users:,} users and {n_items:,} items with a Dataset of "
            f"{dataset.n_users:,} and {dataset.n_items:,}: the two do not belong together."
        )
    tensors = _read_weights(folder / WEIGHTS)
    model = build_for(config, n_users, n_items, tensors, folder / WEIGHTS)
    load_weights(model, tensors, folder / WEIGHTS)
    return model.eval(), dataset, dict(manifest["metadata"])


def load_extra(path: Path, n_items: int) -> dict[str, Tensor]:
    """Read what is stored beside the model: `shares` (n_items + 1,) float32 and `known` (n_items + 1,) bool.

    Parameters
    ----------
    path
        A folder that `load_recommender` has opened, so that its checksums were compared.
    n_items
        Number of items of the model.

    Raises
    ------
    StorageError
        The file does not fit the model.
    """
    folder = _find(path)
    file = folder / _EXTRA
    if not file.is_file():
        return {}
    if _EXTRA not in read_json(folder / MANIFEST).get("files", {}):
        raise StorageError(f"{folder / MANIFEST} does not list {_EXTRA}: it was damaged or edited.")
    tensors = _read_weights(file)
    types = {"shares": torch.float32, "known": torch.bool}
    for name, tensor in tensors.items():
        if name not in types or tensor.dtype != types[name] or tensor.shape != (n_items + 1,):
            raise StorageError(f"{file} holds {name} that does not fit {n_items:,} items: it was damaged or edited.")
    return tensors


def build_for(config: ModelConfig, n_users: int, n_items: int, tensors: Mapping[str, Tensor], file: Path) -> Model:
    """Build a module for the tensors of a file.

    It is given up as soon as it asks for many times as much memory as the file holds: a folder that describes an
    immense model is refused before any work.

    Parameters
    ----------
    config, n_users, n_items
        The model, and its numbers of users and items.
    tensors
        The tensors that will be loaded.
    file
        The file that they are from, for errors.

    Raises
    ------
    StorageError
        The model is much larger than the file, or cannot be built.
    """
    try:
        with torch.random.fork_rng(devices=[]), _Measured(tensors):
            return config.build(n_users, n_items)
    except _TooLarge:
        raise StorageError(
            f"{file} does not fit the model {config.name!r}: its settings ask for many times as many weights."
        ) from None
    except (RuntimeError, ValueError, MemoryError, OverflowError) as error:
        raise StorageError(f"the model {config.name!r} of {file} cannot be built: {error}") from None


def load_weights(model: Model, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Load tensors into a model that they must fit: in their names, shapes, types and ranges.

    Raises
    ------
    StorageError
        They do not. The message names the file.
    """
    name = model.config.name
    own = model.state_dict()
    for key, tensor in tensors.items():
        both_float = key in own and tensor.is_floating_point() and own[key].is_floating_point()
        if key in own and tensor.dtype != own[key].dtype and not both_float:
            raise StorageError(
                f"{file} does not fit the model {name!r}: {key} has the type {tensor.dtype}, expected {own[key].dtype}."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise StorageError(f"{file} holds numbers in {key} that are not finite: it was damaged or edited.")
    try:
        # load_model of safetensors would refuse buffers of another size before the model can resize them.
        missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise StorageError(f"{file} does not fit the model {name!r}: {reason}") from None
    shared = {key for key in missing if _is_shared(model, key)}
    if unexpected or set(missing) - shared:
        raise StorageError(
            f"{file} does not fit the model {name!r}: "
            f"missing {sorted(set(missing) - shared)}, unexpected {sorted(unexpected)}."
        )
    fault = model.fault()
    if fault is not None:
        raise StorageError(f"{file} does not fit the model {name!r}: {fault}. It was damaged or edited.")


def _find(path: Path) -> Path:
    """The folder with the manifest: `path` or its `recommender/`."""
    if path.is_file():
        raise StorageError(
            f"{path} is a file: expected the folder that Recommender.save or `segue train` wrote. segue opens no "
            "pickles or .pt files, because they can run code."
        )
    inner = path / _KIND
    return inner if not (path / MANIFEST).is_file() and (inner / MANIFEST).is_file() else path


def _refuse_pickle(file: Path) -> None:
    """Raise a StorageError if the file begins like a pickle."""
    if file.is_file():
        with file.open("rb") as stream:
            start = stream.read(9)
        # A safetensors file begins with a length of eight bytes, which may have any value, and then has JSON.
        if start.startswith(_PICKLES) and not start.endswith(b"{"):
            raise StorageError(
                f"{file} is a pickle or a file of torch.save, not safetensors: it was not written by segue, and segue "
                "does not open it, because it can run code."
            )


def _config_of(manifest: Mapping[str, Any], place: Path) -> ModelConfig:
    """The settings that a manifest states, as strictly as in Python."""
    settings = manifest.get("model")
    if not isinstance(settings, dict):
        raise StorageError(f"{place} does not describe a model: it was damaged or edited.")
    try:
        return config_from_dict(settings)
    except (ConfigError, TypeError, ValueError) as error:
        raise StorageError(f"{place} does not describe a model that segue knows here: {error}") from None


def _check_metadata(metadata: Any, place: str) -> None:
    """Raise a StorageError unless the entries of the metadata that segue reads have their types."""
    if not isinstance(metadata, Mapping):
        raise StorageError(f"{place} has metadata that is no object: it was damaged or edited.")
    for key, types in _ENTRIES.items():
        if not isinstance(metadata.get(key), types):
            expected = "true or false" if bool in types else "an object of named values"
            raise StorageError(f"{place} has {key}={metadata[key]!r}: expected {expected}.")


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"{file} is not a readable safetensors file: {error}") from None


def _is_shared(model: Model, name: str) -> bool:
    """True if another tensor of the state shares the memory of this one, so that one copy was written for both."""
    state = model.state_dict()
    pointer = state[name].data_ptr()  # 0 for an empty tensor
    return pointer != 0 and any(other != name and tensor.data_ptr() == pointer for other, tensor in state.items())
