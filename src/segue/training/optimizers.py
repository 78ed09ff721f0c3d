"""The optimizer: torch's Adam, which for tables of which a step reads a few rows touches only those rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from segue.errors import ConfigError
from segue.models.base import TrainableModel
from segue.training.config import Training


class RowAdam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015), or AdamW (Loshchilov & Hutter 2019), that takes sparse gradients as well.

    Parameters with a dense gradient are updated by torch's fused Adam. Of those with a sparse one, as
    `embedding(…, sparse=True)` leaves it, only the rows of the gradient are touched: their weights, their first
    moments, and one second moment per row, the mean over the row's squares. Rows that no step reads keep what they
    have, without decay. So a table costs a step what it reads, and its state a little more than its own size.
    """

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; sparse gradients are used up."""
        rows: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    rows.append((group, parameter, parameter.grad.coalesce()))
                    parameter.grad = None
        loss: float | None = super().step(closure)
        for group, parameter, gradient in rows:
            self._step_rows(group, parameter, gradient)
        return loss

    def _step_rows(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = parameter.new_zeros(len(parameter), 1)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        rows, values = gradient.indices()[0], gradient.values()
        weights = parameter[rows]
        if group["weight_decay"]:
            if group["decoupled_weight_decay"]:
                weights.mul_(1 - group["lr"] * group["weight_decay"])
            else:
                values = values.add(weights, alpha=group["weight_decay"])
        first = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"][rows].lerp_(values.square().mean(dim=1, keepdim=True), 1 - beta2)
        state["exp_avg"][rows] = first
        state["exp_avg_sq"][rows] = second
        scale = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter[rows] = weights.addcdiv_(first, scale, value=-group["lr"] / (1 - beta1**step))


def clip_gradients(parameters: Iterable[nn.Parameter], norm: float) -> None:
    """Scale gradients down to this norm, if theirs, taken together, is larger; sparse ones as well."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad.values())
        elif parameter.grad is not None:
            gradients.append(parameter.grad)
    total = torch.nn.utils.get_total_norm(gradients)
    share = (norm / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(share)


def make_optimizer(model: TrainableModel, settings: Training) -> torch.optim.Optimizer:
    """Adam or AdamW for all parameters of a model."""
    return RowAdam(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        decoupled_weight_decay=settings.optimizer == "adamw",
        fused=True,
    )


def check_processes(model: TrainableModel, accelerator: Accelerator) -> None:
    """Refuse what several GPUs cannot do: their way of adding up gradients, NCCL's, has none for sparse ones."""
    sparse = any(isinstance(part, nn.Embedding) and part.sparse for part in model.modules())
    if sparse and accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        raise ConfigError(
            f"processes={accelerator.num_processes}: {model.config.name} learns with sparse gradients, which several "
            "GPUs cannot add up. Train in one process, or on the CPU (cpu=True)."
        )
