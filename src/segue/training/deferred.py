"""Adam for large embedding tables: rows that a step does not read are updated later, when next read.

Under Adam a row continues to move after a step that read it, for as long as its first moment lasts. With β1 = 0.9 it
moves about ten times as far as in that step alone. "Lazy" Adam (`torch.optim.SparseAdam`) moves rows only when they are
read, so rare items learn several times more slowly. This optimizer leaves no movement out. Between two reads a row has
no gradient, so its moments only shrink, by β1 and β2 per step. Adam's total movement of the row in this time is one
multiple of first moment / √second moment. The multiple depends only on the step at which the row was last read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PERIOD = 256
"""Steps after which all rows are updated, so that the multiples of longer waits need not be kept."""
_ROWS_AT_ONCE = 16_384
"""Number of rows that are copied at a time when all rows are updated."""


class DeferredTable:
    """Steps of `torch.optim.Adam`, without weight decay, on one table with sparse gradients.

    Up to rounding the weights are those of Adam, with one exception: `eps` is added to √second moment as it was when
    the row was last read. A row is up to date whenever training reads it by calling the table. Call `settle` before any
    other access to the weights.

    Parameters
    ----------
    weight
        Table (rows, width) of an embedding with `sparse=True` and the forward pre-hook `before_reading`.
    optimizer
        Holder of the state of these weights, which is saved and restored like that of other parameters: step ();
        exp_avg and exp_avg_sq (rows, width); weights_at and moments_at (rows,), the step up to which the weights and
        the moments of each row are updated; waits (PERIOD + 1,), the pending multiple of first moment / √second moment
        of a row that was last read 0, 1, 2, … steps ago.
    group
        Index of the parameter group with the options lr, betas and eps.
    """

    def __init__(self, weight: Tensor, optimizer: torch.optim.Optimizer, group: int) -> None:
        self.weight = weight
        self._optimizer = optimizer
        self._group = group
        self._lookup: _Lookup | None = None

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Take one step with a sparse gradient (rows, width)."""
        state, (beta1, beta2) = self._ready_state(), self.group["betas"]
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
        state["waits"][1:] = state["waits"][:-1] + self._rate(step) * self._shrinkage**ages
        self._lookup = None
        if step % PERIOD == 0:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the weights and the moments of all rows up to date."""
        state, (beta1, beta2) = self._ready_state(), self.group["betas"]
        if bool((state["moments_at"] == state["step"]).all()):
            return
        for first in range(0, len(self.weight), _ROWS_AT_ONCE):
            part = slice(first, min(first + _ROWS_AT_ONCE, len(self.weight)))
            self._updated(torch.arange(part.start, part.stop, device=self.weight.device))
            gap = float(state["step"]) - state["moments_at"][part, None]
            state["exp_avg"][part].mul_(beta1**gap)
            state["exp_avg_sq"][part].mul_(beta2**gap)
        state["moments_at"].copy_(state["weights_at"])

    def before_reading(self, table: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Bring the rows up to date before the embedding looks them up."""
        if table.training and torch.is_grad_enabled():
            with torch.no_grad():
                codes, inverse = torch.unique(inputs[0], return_inverse=True)
                self._lookup = _Lookup(self._updated(codes), inverse.flatten())

    def _with_gradient(self, gradient: Tensor) -> tuple[_Rows, Tensor]:
        """Return the rows that have a gradient, brought up to date, and their gradients (n, width)."""
        lookup = self._lookup
        if lookup is not None and lookup.matches(gradient):  # its order is known, so no sorting is needed
            values = torch.zeros_like(lookup.rows.first).index_add_(0, lookup.inverse, gradient._values())
            return lookup.rows, values
        gradient = gradient.coalesce()
        codes = gradient.indices()[0]
        if lookup is not None and torch.equal(lookup.rows.codes, codes):
            return lookup.rows, gradient.values()
        # With several processes the gradient also has rows that other processes read.
        return self._updated(codes), gradient.values()

    def _updated(self, codes: Tensor) -> _Rows:
        """Bring the weights of the rows with these distinct codes (n,) up to date, and return the rows."""
        state = self._ready_state()
        step = float(state["step"])
        rows = _Rows(
            codes,
            self.weight.index_select(0, codes),
            state["exp_avg"].index_select(0, codes),
            state["exp_avg_sq"].index_select(0, codes),
            state["moments_at"].index_select(0, codes)[:, None],
        )
        at = state["weights_at"].index_select(0, codes)[:, None]
        factors = state["waits"][(step - at).long()] * self._shrinkage ** (at - rows.moments_at)
        rows.move(factors, self._eps(step))
        _put(self.weight, codes, rows.weights)
        state["weights_at"][codes] = step
        return rows

    @property
    def group(self) -> dict[str, Any]:
        """Options of the parameter group; restoring a state replaces them."""
        group: dict[str, Any] = self._optimizer.param_groups[self._group]
        return group

    @property
    def _shrinkage(self) -> float:
        """Factor by which first moment / √second moment changes in a step without a gradient."""
        beta1, beta2 = self.group["betas"]
        return float(beta1 / beta2**0.5)

    def _rate(self, step: float) -> float:
        """Multiple of first moment / √second moment by which a row moves at this step."""
        beta1, beta2 = self.group["betas"]
        return float(self.group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step))

    def _eps(self, step: float) -> float:
        """Term that is added to √second moment; the bias correction of the second moment is part of `_rate`."""
        return float(self.group["eps"] * (1 - self.group["betas"][1] ** max(step, 1.0)) ** 0.5)

    def _ready_state(self) -> dict[str, Any]:
        """Return the state, and create its missing parts. A state of plain Adam counts as up to date."""
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
    """Copies of some rows: codes (n,), weights and moments (n, width), and the step (n, 1) of the moments."""

    codes: Tensor
    weights: Tensor
    first: Tensor
    second: Tensor
    moments_at: Tensor

    def move(self, factor: Tensor | float, eps: float) -> None:
        """Subtract `factor` times first moment / √second moment from the weights."""
        self.weights.sub_(self.second.sqrt().add_(eps).reciprocal_().mul_(self.first).mul_(factor))


@dataclass(frozen=True)
class _Lookup:
    """Lookup of m codes in the table: the distinct rows, and `inverse` (m,), the index of the row of each code."""

    rows: _Rows
    inverse: Tensor

    def matches(self, gradient: Tensor) -> bool:
        """Check that the sparse gradient has one row for each code of this lookup, in its order."""
        codes = gradient._indices()[0]
        return len(codes) == len(self.inverse) and torch.equal(self.rows.codes[self.inverse], codes)


def _put(table: Tensor, codes: Tensor, rows: Tensor) -> None:
    """Write the rows into the table. On a CPU NumPy needs half the time of torch."""
    if table.device.type == "cpu":
        table.detach().numpy()[codes.numpy()] = rows.numpy()
    else:
        table.detach().index_copy_(0, codes, rows)
