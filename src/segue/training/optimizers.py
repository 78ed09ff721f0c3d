"""Optimizers of training: Adam that touches only the rows of an embedding table that a step reads, and torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, overload

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from segue.errors import ConfigError
from segue.models.base import Examples, TrainableModel
from segue.nn.divided import DividedTable, Division
from segue.training.batches import n_batches
from segue.training.config import Training
from segue.training.deferred import DeferredTable

_RMSPROP_DECAY = 0.9
"""Decay of the mean of squared gradients, as in Keras."""
_WORTH_DEFERRING = 9
"""Rows of a table per row read in a step, above which deferred updates are faster."""
_WORTH_GATHERING = 4
"""Rows of a table per row read in a step, above which gathering sparse gradients beats dense gradients."""


class RowAdam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019) for dense and sparse gradients.

    Torch's fused Adam updates parameters with a dense gradient. A sparse gradient, as `embedding(…, sparse=True)`
    makes it, changes only its own rows: their weights, their first moments, and one second moment per row, the mean of
    its squares. Rows that no step reads stay as they are, without decay. So the cost of a step grows with the rows that
    it reads, and the state takes little more memory than the table.

    A table given to `defer` costs as little, and moves as a dense gradient would move it: see `deferred.py`. A table
    given to `gather` moves as a whole, by the same fused Adam.
    """

    def defer(self, table: nn.Embedding) -> None:
        """Give the table sparse gradients, and update its rows only when they are read.

        Raises
        ------
        ConfigError
            There is weight decay, which cannot be deferred.
        """
        table.sparse = True
        for number, group in enumerate(self.param_groups):
            if any(table.weight is parameter for parameter in group["params"]):
                if group["weight_decay"]:
                    raise ConfigError(
                        f"weight_decay={group['weight_decay']}: rows that a step does not read decay too. Train with "
                        'row_updates="never", or without weight decay.'
                    )
                self._deferred[table.weight] = DeferredTable(table.weight, self, number)
                reader = table.reader if isinstance(table, DividedTable) else table
                self._hooks.append(reader.register_forward_pre_hook(self._deferred[table.weight].before_reading))
                self._sparse.append(table)

    def gather(self, table: nn.Embedding) -> None:
        """Give the table sparse gradients, and gather them in one buffer of the size of the table.

        Dense gradients make and zero such a buffer at every step. That is memory traffic of the whole table for the few
        rows that a step reads.
        """
        table.sparse = True
        self._buffers[table.weight] = torch.zeros_like(table.weight)
        self._sparse.append(table)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state; tables that were deferred in it and are no longer are brought up to date."""
        super().load_state_dict(state_dict)
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if "waits" in self.state[parameter] and parameter not in self._deferred:
                    with torch.no_grad():
                        DeferredTable(parameter, self, number).settle()
                    for name in ("waits", "weights_at", "moments_at"):
                        del self.state[parameter][name]

    def settle(self) -> None:
        """Bring all deferred tables up to date, so that their weights can be read directly."""
        for table in self._deferred.values():
            table.settle()

    def release(self) -> None:
        """Bring all deferred tables up to date, and remove everything that the optimizer added to the model."""
        self.settle()
        for hook in self._hooks:
            hook.remove()
        for table in self._sparse:
            table.sparse = False
        for kept in (self._hooks, self._sparse, self._deferred, self._buffers):
            kept.clear()

    @cached_property
    def _deferred(self) -> dict[Tensor, DeferredTable]:
        return {}

    @cached_property
    def _buffers(self) -> dict[Tensor, Tensor]:
        """Gradient buffer of each gathered table; zero between steps."""
        return {}

    @cached_property
    def _sparse(self) -> list[nn.Embedding]:
        """Tables whose gradients were made sparse here."""
        return []

    @cached_property
    def _hooks(self) -> list[RemovableHandle]:
        return []

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; it consumes sparse gradients."""
        rows: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        gathered: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None or not gradient.is_sparse:
                    continue
                if parameter in self._buffers:
                    codes = gradient._indices()[0]
                    parameter.grad = self._buffers[parameter].index_add_(0, codes, gradient._values())
                    gathered.append((parameter, codes))
                else:
                    rows.append((group, parameter, gradient))
                    parameter.grad = None
        loss: float | None = super().step(closure)
        for parameter, codes in gathered:
            self._buffers[parameter].index_fill_(0, codes, 0.0)
            parameter.grad = None
        for group, parameter, gradient in rows:
            if parameter in self._deferred:
                self._deferred[parameter].step(gradient)
            else:
                self._step_rows(group, parameter, gradient.coalesce())
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


def clip_gradients(
    parameters: Iterable[nn.Parameter], norm: float, divided: Mapping[Tensor, Division] | None = None
) -> None:
    """Scale all gradients, dense and sparse, down to a common norm of `norm` if it is larger.

    Parameters
    ----------
    parameters
        Parameters with gradients.
    norm
        Largest norm.
    divided
        Parameters whose rows are divided over processes: each process has the gradients of its rows.
    """
    divided = divided or {}
    gradients: list[Tensor] = []
    of_parts: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradient = parameter.grad.values()
        elif parameter.grad is not None:
            gradient = parameter.grad
        else:
            continue
        (of_parts if parameter in divided else gradients).append(gradient)
    total = torch.nn.utils.get_total_norm(gradients)
    for division in list(divided.values())[:1]:  # a process has a part of these gradients
        squares = division.total(torch.nn.utils.get_total_norm(of_parts).to(total.device).square())
        total = (total.square() + squares).sqrt()
    factor = (norm / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients + of_parts:
        gradient.mul_(factor)


class WholeTables(torch.optim.Optimizer):
    """Optimizer of torch that moves tables as a whole; it has the methods of `RowAdam` that training calls."""

    def defer(self, table: nn.Embedding) -> None:
        """Refuse: only Adam defers updates."""
        raise ConfigError(f"{type(self).__name__} does not defer updates of rows: train with optimizer='adam'.")

    gather = defer

    def settle(self) -> None:
        """Do nothing: weights are always up to date."""

    def release(self) -> None:
        """Do nothing: nothing was added to the model."""

    def spread(self) -> None:
        """Make sparse gradients dense."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.to_dense()


class SGD(WholeTables, torch.optim.SGD):
    """Torch's SGD."""

    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        self.spread()
        return super().step(closure)


class RMSprop(WholeTables, torch.optim.RMSprop):
    """Torch's RMSprop."""

    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        self.spread()
        return super().step(closure)


class Adagrad(WholeTables, torch.optim.Adagrad):
    """Torch's Adagrad."""

    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        self.spread()
        return super().step(closure)


def make_optimizer(model: TrainableModel, settings: Training) -> RowAdam | WholeTables:
    """Return the optimizer of the settings for all parameters of a model."""
    weights, rate, decay = model.parameters(), settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return SGD(weights, lr=rate, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "rmsprop":
        return RMSprop(weights, lr=rate, alpha=_RMSPROP_DECAY, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "adagrad":
        return Adagrad(weights, lr=rate, weight_decay=decay)
    return RowAdam(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        decoupled_weight_decay=settings.optimizer == "adamw",
        fused=True,
    )


def sparse_tables(
    model: TrainableModel, examples: Examples, settings: Training, accelerator: Accelerator
) -> tuple[list[nn.Embedding], list[nn.Embedding]]:
    """Choose the tables to defer, as `row_updates` says, and the tables whose gradients to gather.

    A deferred update costs about ten times as much as Adam's update of one row of a whole table, and all rows are
    updated at the end of each epoch.
    """
    if settings.row_updates == "never" or settings.optimizer not in ("adam", "adamw"):
        return [], []
    steps = n_batches(len(examples.lengths), settings.batch_size or examples.usual_batch)
    read = model.rows_read(-(-len(examples.lengths) // steps), -(-int(examples.weights.sum()) // steps))
    if settings.row_updates == "always":
        return list(read), []
    if accelerator.device.type != "cpu":
        return [], []
    deferred, gathered = [], []
    for table, rows in read.items():
        size = table.num_embeddings
        if not settings.weight_decay and _WORTH_DEFERRING * (rows * steps + size) < size * steps:
            deferred.append(table)
        elif _WORTH_GATHERING * rows < size:  # also with several processes: gloo sends the rows of such gradients
            gathered.append(table)
    return deferred, gathered


def check_processes(model: TrainableModel, accelerator: Accelerator) -> None:
    """Refuse sparse gradients of whole tables on several GPUs, because NCCL cannot add them up."""
    sparse = any(
        isinstance(part, nn.Embedding) and not isinstance(part, DividedTable) and part.sparse
        for part in model.modules()
    )
    if sparse and accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        raise ConfigError(
            f"processes={accelerator.num_processes}: {model.config.name} learns with sparse gradients, which several "
            "GPUs cannot add up. Train in one process, or on the CPU (cpu=True)."
        )
