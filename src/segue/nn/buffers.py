"""Buffers whose size depends on the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def take_saved_sizes(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *names: str) -> None:
    """Give buffers the sizes of the saved ones, so that these can be loaded.

    If one is missing, or if their lengths differ, nothing changes, and loading fails.

    Parameters
    ----------
    module
        Module of the buffers.
    state_dict, prefix
        As in `nn.Module._load_from_state_dict`.
    names
        Buffers of one length.
    """
    saved = [state_dict.get(prefix + name) for name in names]
    own = [module.get_buffer(name) for name in names]
    if all(one is not None and one.ndim == mine.ndim for one, mine in zip(saved, own, strict=True)):
        shapes = [one.shape for one in saved if one is not None]
        if len({shape[0] for shape in shapes}) == 1:
            for name, mine, shape in zip(names, own, shapes, strict=True):
                setattr(module, name, mine.new_empty(shape))
