"""The mean of the weights over the latest epochs: what is validated, kept and handed over in place of the newest.

With a constant learning rate each epoch ends somewhere around the place that training is heading for, and the mean of
several ends lies nearer to it than any of them (Polyak & Juditsky 1992; of networks, Izmailov et al., UAI 2018). Here
the mean is an exponential one, as in Tarvainen & Valpola (NeurIPS 2017), over the ends of epochs: it costs a copy of
the weights, and one pass over them per epoch. Training goes on with the newest weights, as if there were no mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_PREFIX = "average."
_SLOWNESS = 9
"""After n epochs the mean before keeps at most n / (n + 9): early weights, far off, are soon forgotten."""


class Average:
    """An exponential mean of a module's parameters.

    Parameters
    ----------
    model
        Whose weights.
    share
        What the mean before keeps of itself when an epoch is added, in the long run; 0: the mean is the newest weights.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self._model = model
        self._share = share
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Take in the weights as they are after so many epochs."""
        if not self._share:
            return
        kept = min(self._share, epoch / (epoch + _SLOWNESS))
        for name, weight in self._model.named_parameters():
            if name in self._mean:
                self._mean[name].lerp_(weight, 1 - kept)
            else:
                self._mean[name] = weight.detach().clone()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within, the model's weights are the mean."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """The mean, as it is saved; nothing where the newest weights are the mean."""
        return {_PREFIX + name: tensor for name, tensor in self._mean.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors()`, found among others."""
        self._mean = {
            name: tensors[_PREFIX + name].to(weight.device)
            for name, weight in self._model.named_parameters()
            if _PREFIX + name in tensors
        }

    def _swap(self) -> None:
        for name, weight in self._model.named_parameters():
            if name in self._mean:
                weight.data, self._mean[name] = self._mean[name], weight.data
