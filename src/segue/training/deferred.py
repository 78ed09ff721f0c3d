"""Adam for a table of which a step reads a few rows: what it would have done to the others is done when they are read.

Under Adam a row goes on moving after a step that read it, for as long as its first moment lasts: with β1 = 0.9 some ten
times as far as that step alone moved it. To move rows only when they are read ("lazy" Adam, `torch.optim.SparseAdam`)
therefore makes rare items learn several times slower. Here nothing of the kind is left out. Between two reads a row has
no gradient, so its moments only shrink, by β1 and β2 per step, and all that Adam would have moved it by is one multiple
of first moment / √second moment, which depends on nothing but when the row was last read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PERIOD = 256
"""After so many steps all rows are brought up to date: the multiples of longer waits need not be kept."""
_SETTLED_AT_ONCE = 16_384
"""Rows that are copied when all are brought up to date."""


class DeferredTable:
    """The steps of `torch.optim.Adam`, without weight decay, on one table with sparse gradients.

    Up to rounding the weights are Adam's, with one exception: its `eps` is added to √second moment as it was when the
    row was last read. Wherever a row is read in training, by calling the table, it is up to date; whoever reads the
    weights otherwise calls `settle` first.

    Parameters
    ----------
    weight
        The table (rows, width), of an embedding with `sparse=True`, whose hook before a call is `before_reading`.
    optimizer
        Holds the state of these weights, which is saved and restored as that of other parameters: step (), exp_avg and
        exp_avg_sq (rows, width); weights_at and moments_at (rows,), the step up to which those of each row have gone;
        waits (PERIOD + 1,), by how many first moment / √second moment a row has fallen behind that was last read so
        many steps ago.
    group
        Which of its groups has their options: lr, betas, eps.
    """

    def __init__(self, weight: Tensor, optimizer: torch.optim.Optimizer, group: int) -> None:
        self.weight = weight
        self._optimizer = optimizer
        self._group = group
        self._read: _Read | None = None

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """One step with a sparse gradient (rows, width)."""
        state, (beta1, beta2) = self._begun(), self.group["betas"]
        rows, values = self._with_gradient(gradient)
        codes = rows.codes
        state["step"] += 1
        step = float(state["step"])
        gap = step - rows.moments_at
        rows.first.mul_(beta1**gap).add_(values, alpha=1 - beta1)
        rows.second.mul_(beta2**gap).addcmul_(values, values, value=1 - beta2)
        _put(state["exp_avg"], codes, rows.first)
        _put(state["exp_avg_sq"], codes, rows.second)
        rows.move(self._rate(step), self._eps(step))
        _put(self.weight, codes, rows.weights)
        state["weights_at"][codes] = step
        state["moments_at"][codes] = step
        ages = torch.arange(1, PERIOD + 1, device=self.weight.device)
        state["waits"][1:] = state["waits"][:-1] + self._rate(step) * self._shrinking**ages
        self._read = None
        if step % PERIOD == 0:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows, weights and moments, up to date."""
        state, (beta1, beta2) = self._begun(), self.group["betas"]
        if bool((state["moments_at"] == state["step"]).all()):
            return
        for first in range(0, len(self.weight), _SETTLED_AT_ONCE):
            part = slice(first, min(first + _SETTLED_AT_ONCE, len(self.weight)))
            self._caught_up(torch.arange(part.start, part.stop, device=self.weight.device))
            gap = float(state["step"]) - state["moments_at"][part, None]
            state["exp_avg"][part].mul_(beta1**gap)
            state["exp_avg_sq"][part].mul_(beta2**gap)
        state["moments_at"].copy_(state["weights_at"])

    def before_reading(self, table: nn.Module, read: tuple[Tensor, ...]) -> None:
        """Bring the rows up to date that the embedding is about to look up."""
        if table.training and torch.is_grad_enabled():
            with torch.no_grad():
                codes, places = torch.unique(read[0], return_inverse=True)
                self._read = _Read(self._caught_up(codes), places.flatten())

    def _with_gradient(self, gradient: Tensor) -> tuple[_Rows, Tensor]:
        """The rows that have a gradient, brought up to date, and the gradient of each (n, width)."""
        read = self._read
        if read is not None and read.is_of(gradient):  # what goes where is known, and need not be sorted again
            values = torch.zeros_like(read.rows.first).index_add_(0, read.places, gradient._values())
            return read.rows, values
        gradient = gradient.coalesce()
        codes = gradient.indices()[0]
        if read is not None and torch.equal(read.rows.codes, codes):
            return read.rows, gradient.values()
        return self._caught_up(codes), gradient.values()  # of several processes each has read its own rows only

    def _caught_up(self, codes: Tensor) -> _Rows:
        """The rows with these codes (n,), none of them twice, after their weights were brought up to date."""
        state = self._begun()
        step = float(state["step"])
        rows = _Rows(
            codes,
            self.weight.index_select(0, codes),
            state["exp_avg"].index_select(0, codes),
            state["exp_avg_sq"].index_select(0, codes),
            state["moments_at"].index_select(0, codes)[:, None],
        )
        at = state["weights_at"].index_select(0, codes)[:, None]
        factors = state["waits"][(step - at).long()] * self._shrinking ** (at - rows.moments_at)
        rows.move(factors, self._eps(step))
        _put(self.weight, codes, rows.weights)
        state["weights_at"][codes] = step
        return rows

    @property
    def group(self) -> dict[str, Any]:
        """The options; a state that is restored brings others."""
        found: dict[str, Any] = self._optimizer.param_groups[self._group]
        return found

    @property
    def _shrinking(self) -> float:
        """What first moment / √second moment becomes in a step without a gradient."""
        beta1, beta2 = self.group["betas"]
        return float(beta1 / beta2**0.5)

    def _rate(self, step: float) -> float:
        """By how many first moment / √second moment a row moves at this step."""
        beta1, beta2 = self.group["betas"]
        return float(self.group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step))

    def _eps(self, step: float) -> float:
        """What is added to √second moment, whose correction is part of the rate."""
        return float(self.group["eps"] * (1 - self.group["betas"][1] ** max(step, 1.0)) ** 0.5)

    def _begun(self) -> dict[str, Any]:
        """The state, made where there is none; that of an Adam that moved all rows at once is up to date."""
        weight = self.weight
        state: dict[str, Any] = self._optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        if "waits" not in state:
            at = torch.full((len(weight),), float(state["step"]), dtype=weight.dtype, device=weight.device)
            state["weights_at"], state["moments_at"] = at, at.clone()
            state["waits"] = weight.new_zeros(PERIOD + 1)
        return state


@dataclass(frozen=True)
class _Rows:
    """Copies of some rows: codes (n,), weights and moments (n, width), and the step moments_at (n, 1)."""

    codes: Tensor
    weights: Tensor
    first: Tensor
    second: Tensor
    moments_at: Tensor

    def move(self, factor: Tensor | float, eps: float) -> None:
        """Take `factor` times first moment / √second moment from the weights."""
        self.weights.sub_(self.second.sqrt().add_(eps).reciprocal_().mul_(self.first).mul_(factor))


@dataclass(frozen=True)
class _Read:
    """A lookup: the rows it read, and which of them (m,) each of its m places got."""

    rows: _Rows
    places: Tensor

    def is_of(self, gradient: Tensor) -> bool:
        """Whether the sparse gradient has one row for each place of this lookup, in its order."""
        codes = gradient._indices()[0]
        return len(codes) == len(self.places) and torch.equal(self.rows.codes[self.places], codes)


def _put(table: Tensor, codes: Tensor, rows: Tensor) -> None:
    """Write the rows into the table; NumPy does it in half of torch's time."""
    if table.device.type == "cpu":
        table.detach().numpy()[codes.numpy()] = rows.numpy()
    else:
        table.detach().index_copy_(0, codes, rows)
