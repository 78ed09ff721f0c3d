"""Checkpoints of training: weights and the state of the optimizer, as named tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from segue.errors import StorageError
from segue.inference.checkpoint import drop_parts, load_checkpoint, save_checkpoint, save_part
from segue.training import deferred

__all__ = [
    "drop_parts",
    "load_checkpoint",
    "optimizer_tensors",
    "restore_optimizer",
    "save_checkpoint",
    "save_part",
]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of the optimizer as named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], file: Path = Path("the checkpoint")
) -> None:
    """Restore the state of the optimizer from the result of `optimizer_tensors`.

    Parameters
    ----------
    optimizer
        The optimizer.
    tensors
        Tensors of a checkpoint; others may be among them.
    file
        The checkpoint, for errors.

    Raises
    ------
    StorageError
        The state is not one of these parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not key.startswith("optimizer."):
            continue
        index, _, name = key.removeprefix("optimizer.").partition(".")
        number = int(index) if _NUMBER.fullmatch(index) else len(parameters)
        if number >= len(parameters) or not _fits(tensor, name, parameters[number]):
            raise StorageError(f"{file} holds {key} of shape {list(tensor.shape)}, which does not fit this model.")
        state.setdefault(number, {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


_NUMBER = re.compile("[0-9]{1,9}")


def _fits(tensor: Tensor, name: str, parameter: Tensor) -> bool:
    """Return whether a part of the state is a number, or one per weight or per row of its parameter."""
    if name == "waits":
        return tensor.shape == (deferred.PERIOD + 1,)
    if tensor.ndim == 0:
        return True
    sizes = zip(tensor.shape[1:], parameter.shape[1:], strict=False)
    return tensor.shape[:1] == parameter.shape[:1] and all(own in (1, whole) for own, whole in sizes)
