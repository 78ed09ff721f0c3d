"""Divided tables made whole again, on disk: the saved model is the same as that of an undivided training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from segue.data.dataset import Dataset
from segue.inference.recommender import Recommender
from segue.inference.storage import WEIGHTS, save_recommender
from segue.models.base import Model
from segue.nn.divided import DividedTable

_BYTES_SENT = 16 << 20
"""Size of the rows that travel at once."""
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in safetensors files."""


def save_whole(folder: Path, model: Model, dataset: Dataset, metadata: dict[str, Any], is_main: bool) -> Recommender:
    """Save a model with divided tables as one Recommender, and return it with its tables on disk, in all processes.

    The main process writes the file; the others send their rows in pieces. No process ever holds a whole table.

    Parameters
    ----------
    folder
        Folder of the Recommender, which all processes see.
    model
        Model whose divided tables are replaced by whole ones, memory-mapped from the file.
    dataset, metadata
        As of the Recommender.
    is_main
        True in the process that writes.
    """
    if is_main:
        save_recommender(folder, model, dataset, metadata, write_weights=lambda file: _write(model, file))
    else:
        for table in _tables(model).values():
            _send(table)
    torch.distributed.barrier()
    stored = load_file(folder / WEIGHTS)  # memory-mapped
    for name, table in _tables(model).items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, table.whole(stored[f"{name}.weight"]))
    model.on_disk = True
    return Recommender(model, dataset, metadata)


def _tables(model: Model) -> dict[str, DividedTable]:
    """The divided tables of a model, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, DividedTable)}


def _write(model: Model, file: Path) -> None:
    """Write the safetensors file of a whole model, table after table, as the rows arrive."""
    tables = {f"{name}.weight": table for name, table in _tables(model).items()}
    state = model.state_dict()
    names = [*tables, *(name for name in state if name not in tables)]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor, start = state[name], end
        shape = [tables[name].num_embeddings, *tensor.shape[1:]] if name in tables else list(tensor.shape)
        end += tensor.element_size() * torch.Size(shape).numel()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            if name in tables:
                for rows in _received(tables[name]):
                    stream.write(_bytes(rows))
            else:
                stream.write(_bytes(state[name]))


def _pieces(table: DividedTable, rank: int) -> list[slice]:
    """Ranges of the own rows of a process, as they travel."""
    length = len(table.division.rows(table.num_embeddings, rank))
    size = max(1, _BYTES_SENT // max(table.weight[:1].nbytes, 1))
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def _received(table: DividedTable) -> Iterator[Tensor]:
    """Rows of a table, in their order, from one process after the other."""
    division, weight = table.division, table.weight.detach()
    for rank in range(division.world):
        for piece in _pieces(table, rank):
            if rank == division.rank:
                yield weight[piece]
            else:
                yield division.receive(weight.new_empty(piece.stop - piece.start, weight.shape[1]), rank)


def _send(table: DividedTable) -> None:
    """Send the own rows of a table to the process that writes."""
    for piece in _pieces(table, table.division.rank):
        table.division.send(table.weight.detach()[piece].contiguous(), 0)


def _bytes(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return flat.numpy().data
