"""Batches and inputs, which are named tuples of tensors, and of further ones, on a device."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

Parts = TypeVar("Parts", bound=tuple[Any, ...])


def moved(parts: Parts, device: torch.device, non_blocking: bool = False) -> Parts:
    """Return a named tuple with all its tensors on a device.

    Parameters
    ----------
    parts
        Named tuple of tensors, of named tuples of these, or of what has the method `to` of a tensor.
    device
        Where the tensors are wanted.
    non_blocking
        As in `torch.Tensor.to`.
    """
    return type(parts)(
        *(
            moved(part, device, non_blocking) if isinstance(part, tuple) else part.to(device, non_blocking=non_blocking)
            for part in parts
        )
    )
