"""Checkpoints: one safetensors file each, with a JSON note inside, replaced in one step. They cannot run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segue.errors import StorageError
from segue.files import atomic_file

FORMAT_VERSION = 1
EPOCHS = "epochs"
"""Folder in a run with the kept weights of single epochs."""


def kept_epoch(epoch: int) -> str:
    """Path, relative to the folder of a run, of the kept weights of an epoch."""
    return f"{EPOCHS}/{epoch:04}.safetensors"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    """Write tensors and a note of plain data to `path`. An existing file stays until the new one is complete."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"kind": "segue-checkpoint", "format_version": str(FORMAT_VERSION), "note": json.dumps(note)}
    with atomic_file(path) as temporary:
        save_file(stored, temporary, metadata={**header, "sha256": _digest(stored, header)})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the note that `save_checkpoint` wrote.

    Raises
    ------
    StorageError
        The file is missing, not a safetensors file (a pickle, for example), of a future version, or altered.
    """
    if not path.is_file():
        raise StorageError(f"{path} is missing.")
    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StorageError(
            f"{path} is not a readable safetensors file ({error}). segue opens no other format: pickles can run code."
        ) from None
    if header.get("kind") != "segue-checkpoint":
        raise StorageError(f"{path} is a safetensors file, but not a checkpoint written by segue.")
    version = header.get("format_version", "")
    if not version.isdecimal() or int(version) > FORMAT_VERSION:
        raise StorageError(
            f"{path} has format version {version or 'none'}; this segue reads up to {FORMAT_VERSION}. "
            "Upgrade segue to open it."
        )
    if header.pop("sha256", None) != _digest(tensors, header):
        raise StorageError(f"{path} does not match its checksum: it was altered after it was written.")
    return tensors, json.loads(header["note"])


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of the header and the tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
