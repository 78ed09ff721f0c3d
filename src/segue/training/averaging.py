"""Mean of the weights over the latest epochs. It is validated, kept and returned in place of the newest weights.

With a constant learning rate the weights wander around an optimum. The mean of several epochs lies nearer to it than
any single epoch (Polyak & Juditsky 1992; for networks, Izmailov et al., UAI 2018). The mean here is exponential, as in
Tarvainen & Valpola (NeurIPS 2017), with one term per epoch. It costs a copy of the weights and one pass over them per
epoch. Training itself continues with the newest weights, as if there were no mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segue.errors import StorageError

_PREFIX = "average."
_WARM_UP = 9
"""Epochs of warm-up: in epoch n the decay is at most n / (n + 9), so the mean soon forgets the first weights."""


class Average:
    """Exponential mean of a module's parameters.

    Parameters
    ----------
    model
        The module.
    decay
        Share of the previous mean that is kept when an epoch is added, after the warm-up. With 0 the mean is the
        newest weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Add the weights of the model after `epoch` epochs to the mean."""
        if not self._decay:
            return
        decay = min(self._decay, epoch / (epoch + _WARM_UP))
        for name, weight in self._model.named_parameters():
            if name in self._mean:
                self._mean[name].lerp_(weight, 1 - decay)
            else:
                self._mean[name] = weight.detach().clone()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the mean as its weights for the duration of the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """Return the mean in the form that is saved; empty if the newest weights are the mean."""
        return {_PREFIX + name: tensor for name, tensor in self._mean.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the mean from the result of `tensors()`; other tensors may be among them.

        Raises
        ------
        StorageError
            A mean has another shape than its parameter.
        """
        for name, weight in self._model.named_parameters():
            mean = tensors.get(_PREFIX + name, weight)
            if mean.shape != weight.shape or mean.dtype != weight.dtype:
                raise StorageError(f"the mean of {name} has the shape {list(mean.shape)}: it is of another model.")
        self._mean = {
            name: tensors[_PREFIX + name].to(weight.device)
            for name, weight in self._model.named_parameters()
            if _PREFIX + name in tensors
        }

    def _swap(self) -> None:
        for name, weight in self._model.named_parameters():
            if name in self._mean:
                weight.data, self._mean[name] = self._mean[name], weight.data
