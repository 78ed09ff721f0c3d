"""A Recommender on disk: a folder of JSON, safetensors and Parquet files. Loading it cannot run code.

::

    recommender.json      kind, format version, the model's config, sizes, metadata, checksums of all files
    weights.safetensors   the model's tensors
    data/                 the Dataset: histories and vocabularies
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model

from segue.data.dataset import Dataset
from segue.errors import ConfigError, StorageError
from segue.files import atomic_folder, read_manifest, write_manifest
from segue.models.base import Model
from segue.models.registry import config_from_dict

FORMAT_VERSION = 1
_KIND = "recommender"
_MANIFEST = "recommender.json"
_WEIGHTS = "weights.safetensors"
_DATA = "data"
_PICKLES = (b"\x80", b"PK\x03\x04")
"""First bytes of pickles and of the archives of torch.save."""


def save_recommender(path: Path, model: Model, dataset: Dataset, metadata: Mapping[str, Any]) -> None:
    """Write the folder atomically; the folder of a Recommender saved before is replaced."""
    with atomic_folder(path) as folder:
        save_model(model, str(folder / _WEIGHTS))
        dataset.save(folder / _DATA)
        content = {
            "model": model.config.to_dict(),
            "users": model.n_users,
            "items": model.n_items,
            "metadata": dict(metadata),
        }
        try:
            write_manifest(folder, _MANIFEST, _KIND, FORMAT_VERSION, content)
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
    _refuse_pickle(folder / _WEIGHTS)
    manifest = read_manifest(folder, _MANIFEST, _KIND, FORMAT_VERSION, verify=verify)
    if _WEIGHTS not in manifest["files"]:
        raise StorageError(f"{folder / _MANIFEST} does not list {_WEIGHTS}: it was damaged or edited.")
    try:
        settings, n_users, n_items = dict(manifest["model"]), int(manifest["users"]), int(manifest["items"])
        metadata = dict(manifest["metadata"])
        config = config_from_dict(settings)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise StorageError(f"{folder / _MANIFEST} does not describe a model that segue knows here: {error}") from None
    # The manifest was compared with every file already, including those of the Dataset.
    dataset = Dataset.open(folder / _DATA, verify=False)
    if (dataset.n_users, dataset.n_items) != (n_users, n_items):
        raise StorageError(
            f"{folder} holds a model of {n_users:,} users and {n_items:,} items with a Dataset of "
            f"{dataset.n_users:,} and {dataset.n_items:,}: the two do not belong together."
        )
    with torch.random.fork_rng(devices=[]):
        model = config.build(n_users, n_items)
    _load_weights(model, folder / _WEIGHTS)
    return model.eval(), dataset, metadata


def _find(path: Path) -> Path:
    """The folder with the manifest: `path` or its `recommender/`."""
    if path.is_file():
        raise StorageError(
            f"{path} is a file: expected the folder that Recommender.save or `segue train` wrote. segue opens no "
            "pickles or .pt files, because they can run code."
        )
    inner = path / _KIND
    return inner if not (path / _MANIFEST).is_file() and (inner / _MANIFEST).is_file() else path


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


def _load_weights(model: Model, file: Path) -> None:
    """Load the tensors of a file into the model; they must fit it."""
    try:
        # load_model of safetensors would refuse buffers of another size before the model can resize them.
        missing, unexpected = model.load_state_dict(load_file(file), strict=False)
    except SafetensorError as error:
        raise StorageError(f"{file} is not a readable safetensors file: {error}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise StorageError(f"{file} does not fit the model {model.config.name!r}: {reason}") from None
    shared = {name for name in missing if _is_shared(model, name)}
    if unexpected or set(missing) - shared:
        raise StorageError(
            f"{file} does not fit the model {model.config.name!r}: "
            f"missing {sorted(set(missing) - shared)}, unexpected {sorted(unexpected)}."
        )


def _is_shared(model: Model, name: str) -> bool:
    """True if another tensor of the state shares the memory of this one, so that one copy was written for both."""
    state = model.state_dict()
    pointer = state[name].data_ptr()  # 0 for an empty tensor
    return pointer != 0 and any(other != name and tensor.data_ptr() == pointer for other, tensor in state.items())
