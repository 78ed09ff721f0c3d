"""Size of a model, before it is built: too large a model is refused before the work begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from segue.data.dataset import Dataset
from segue.errors import ConfigError, TrainingError
from segue.memory import require_memory, total_memory
from segue.models.base import ModelConfig
from segue.nn.divided import Division, dividing

_COPIES = 3
"""Copies of the weights that training holds at least: the weights, and two moments of Adam."""
_MOST_TENSORS = 5_000
"""Tensors of weights of a model; more are a slip of the pen, and would take minutes to build."""
_WAY_OUT = "choose smaller sizes (width, blocks, max_length, …), or keep fewer users or items (segue prepare --k-core)"


class _TooLarge(Exception):
    """Raised while a model is built without memory, once it is known to be too large."""


class _Count:
    """Number and bytes of the tensors of a model."""

    def __init__(self) -> None:
        self.tensors = 0
        self.bytes = 0


def check_size(config: ModelConfig, dataset: Dataset, division: Division | None = None) -> None:
    """Check that the model fits in memory, by building it on the device "meta", which holds shapes alone.

    Parameters
    ----------
    config
        Config of the model, resolved for the Dataset.
    dataset
        Data to fit; its numbers of users and items give the sizes of the tables.
    division
        Division of the tables over processes, if they are divided.

    Raises
    ------
    ConfigError
        The weights with the state of the optimizer do not fit, or there are too many of them to build.
    """
    size = _Count()
    try:
        with torch.random.fork_rng(devices=[]), _counted(size), torch.device("meta"), dividing(division):
            config.build(dataset.n_users, dataset.n_items)
    except _TooLarge:
        pass
    except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
        if "overflow" not in str(error).lower() and "memory" not in str(error).lower():
            return  # a model of one's own that cannot be built without memory
        raise ConfigError(f"the model {config.name} is larger than any memory: {_WAY_OUT}.") from None
    if size.tensors > _MOST_TENSORS:
        raise ConfigError(f"the model {config.name} has more than {_MOST_TENSORS:,} tensors of weights: {_WAY_OUT}.")
    require_memory(size.bytes * _COPIES, f"training the model {config.name}", _WAY_OUT)


@contextmanager
def _counted(size: _Count) -> Iterator[None]:
    """Count the parameters and buffers that this thread registers, and stop beyond the limit."""
    thread, limit = threading.get_ident(), total_memory()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or threading.get_ident() != thread:
            return
        size.tensors += 1
        size.bytes += tensor.numel() * tensor.element_size()
        if size.tensors > _MOST_TENSORS or size.bytes * _COPIES > limit:
            raise _TooLarge

    hooks = (
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within, a full memory of the machine or the device is a TrainingError with the way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not full:
            raise
        reason = str(error).strip().splitlines()[:1]
        raise TrainingError(
            f"the memory is full{''.join(f' ({line})' for line in reason)}: choose a smaller batch_size or fewer "
            "negatives, or a smaller model."
        ) from error
