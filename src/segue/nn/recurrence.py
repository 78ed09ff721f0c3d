"""Gated recurrent layer that exports with a free length, and the scan that such exports are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class GRU(nn.GRU):
    """One layer of gated recurrent units over (batch, length, width), from a state of zeros.

    `torch.export` unrolls torch's own layer to the length of the example; this one becomes a scan there.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__(width, hidden_width, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        """States (batch, length, hidden_width) after each input."""
        if torch.compiler.is_exporting():
            return self._scanned(inputs)
        states: Tensor = super().forward(inputs)[0]
        return states

    def settle(self) -> None:
        """Bind torch's list of weights to the parameters of this module, which may be a twin of another."""
        self._flat_weights = [getattr(self, name) for name in self._flat_weights_names]

    def _scanned(self, inputs: Tensor) -> Tensor:
        weight, bias = self.weight_hh_l0, self.bias_hh_l0

        def step(state: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
            reset, update, candidate = given.chunk(3, -1)
            kept_reset, kept_update, kept = F.linear(state, weight, bias).chunk(3, -1)
            update = (update + kept_update).sigmoid()
            candidate = (candidate + (reset + kept_reset).sigmoid() * kept).tanh()
            state = (1 - update) * candidate + update * state
            return state, state.clone()

        given = F.linear(inputs, self.weight_ih_l0, self.bias_ih_l0).transpose(0, 1)
        _, states = scan(step, inputs.new_zeros(inputs.shape[0], self.hidden_size), given)
        return states.transpose(0, 1)


def scan(step: Step, state: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Last state, and outputs (length, …) of a step repeated over inputs (length, …); one operation in an export."""
    from torch._higher_order_ops.scan import scan as operation  # loads much, and only exports need it

    last, outputs = operation(step, state, inputs, dim=0)
    return last, outputs
