"""Training loop for any `TrainableModel`; no model is known by name.

All randomness of a step is a function of (seed, epoch, step, process). So a run that was killed and resumed takes the
same steps as an uninterrupted run.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from segue.errors import StorageError, TrainingError
from segue.evaluation.tasks.registry import lower_is_better
from segue.inference.checkpoint import (
    BEST,
    LAST,
    NEXT_BEST,
    PARTS,
    confirm_best,
    kept_epoch,
    kept_state,
    load_best,
    load_epoch,
)
from segue.inference.storage import load_weights
from segue.models.base import Examples, TrainableModel
from segue.nn.divided import DividedTable
from segue.nn.moving import moved
from segue.settings import MISFIT, fit
from segue.training.averaging import Average
from segue.training.batches import n_batches, plan_epoch
from segue.training.checkpoint import (
    drop_parts,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    save_part,
)
from segue.training.config import FORMERLY, MAY_CHANGE_ON_RESUME, Training
from segue.training.optimizers import check_processes, clip_gradients, make_optimizer, sparse_tables
from segue.training.progress import Progress
from segue.training.tracking import Tracking
from segue.training.validation import Validate


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training: the state was saved after the step in flight."""


@dataclass
class State:
    """Progress of a run: all that is needed to continue it, besides weights and optimizer state."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps completed within the epoch in progress."""
    loss_sum: float = 0.0
    """Sum of the losses of the epoch in progress."""
    seconds: float = 0.0
    """Seconds spent on the epoch in progress."""
    best_epoch: int = 0
    """Epoch with the best validation so far; 0 = none yet."""
    best_metric: float = -math.inf
    """Metric of the best epoch, if there is one."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row per completed epoch."""


class Trainer:
    """Training of one model on one set of examples.

    Parameters
    ----------
    model
        Module to train; its weights change in place.
    examples
        Result of `model.examples(dataset)`.
    settings
        Options of the training.
    validate
        Function that the main process calls after an epoch. It returns metrics, and `settings.metric` chooses the best
        epoch. With None the last epoch is the best.
    folder
        Folder of `last.safetensors`, `best.safetensors` and kept epochs; None keeps the best weights in memory only.
    identity
        Plain data that identifies the run (model config, Dataset fingerprint). A checkpoint of another run is refused.
    accelerator
        Devices and processes.
    until
        Epoch after which training stops, on the schedule of `settings.epochs`; the same as that when not given.
    """

    def __init__(
        self,
        model: TrainableModel,
        examples: Examples,
        settings: Training,
        validate: Validate | None,
        folder: Path | None,
        identity: dict[str, Any],
        accelerator: Accelerator,
        until: int | None = None,
    ) -> None:
        self.examples = examples
        self.batch_size = settings.batch_size or examples.usual_batch
        averaging = examples.usual_averaging if settings.averaging is None else settings.averaging
        self.settings = replace(settings, batch_size=self.batch_size, averaging=averaging)
        self.validate = validate
        self.chooses = validate is not None
        """True if a metric of `validate` chooses the best epoch; else the last one is the best."""
        self.folder = folder
        self.tracking: Tracking | None = None
        # In the form that JSON reads back: a tuple becomes a list.
        self.identity: dict[str, Any] = json.loads(json.dumps({**identity, "training": self.settings.to_dict()}))
        self.accelerator = accelerator
        self.until = settings.epochs if until is None else until
        self.model = model.to(accelerator.device)
        self.optimizer = make_optimizer(self.model, settings)
        deferred, gathered = sparse_tables(model, examples, settings, accelerator)
        for table in deferred:
            self.optimizer.defer(table)
        for table in gathered:
            self.optimizer.gather(table)
        check_processes(model, accelerator)
        self.divided = divided_tables(self.model)
        if self.divided:  # their gradients are complete where the rows are
            ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
            ignore(self.model, list(self.divided))  # type: ignore[no-untyped-call]
        self.wrapped = accelerator.prepare_model(self.model)  # after it is settled which gradients are sparse
        self.average = Average(self.model, averaging)
        self._divisions = {one.weight: one.division for one in self.model.modules() if isinstance(one, DividedTable)}
        self._divided_places = {
            place: self.divided[name]
            for place, (name, _) in enumerate(self.model.named_parameters())
            if name in self.divided
        }
        self.state = State()
        self.best: dict[str, Tensor] = {}
        self._best_saved = True
        self._stop = threading.Event()

    # ---- the loop -----------------------------------------------------------------------------------------------

    def run(self, progress: Progress, on_epoch: Callable[[list[dict[str, float]]], bool] | None = None) -> State:
        """Train from the current state to the end, and load the best weights into the model.

        The training also ends after an epoch for which `on_epoch` returns True.
        """
        with self._interruptible():
            ended = False
            while self.state.epoch < self.until and not self._out_of_patience() and not ended:
                self._epoch(progress)
                ended = self._any(
                    on_epoch is not None and self.accelerator.is_main_process and on_epoch(self.state.history)
                )
            if ended:
                self._save_last()
        self.optimizer.release()
        if self.best:
            self.model.load_state_dict(self.best)
        return self.state

    def _epoch(self, progress: Progress) -> None:
        state, seed = self.state, self.settings.seed
        batches = plan_epoch(
            self.examples.lengths, self.examples.weights, self.batch_size, _generator(seed, state.epoch)
        )
        progress.start_epoch(state.epoch + 1, self.until, len(batches), state.step)
        started = time.perf_counter() - state.seconds
        self.wrapped.train()
        for step in range(state.step, len(batches)):
            state.loss_sum += self._step(batches[step], step)
            state.step = step + 1
            state.seconds = time.perf_counter() - started
            progress.step(state.loss_sum / state.step)
            every, stop = self.settings.save_every_steps, self._stopping()
            if stop or (every and state.step % every == 0 and state.step < len(batches)):
                self._save_last()
            if stop:
                raise Interrupted
        self.optimizer.settle()
        state.seconds = time.perf_counter() - started
        row = {"epoch": state.epoch + 1.0, "loss": state.loss_sum / len(batches), "seconds": state.seconds}
        state.epoch, state.step, state.loss_sum, state.seconds = state.epoch + 1, 0, 0.0, 0.0
        self._end_epoch(row)
        progress.end_epoch(row, best=self.chooses and state.best_epoch == state.epoch)

    def _step(self, index: np.ndarray[Any, np.dtype[np.int64]], step: int) -> float:
        """Take one optimizer step; return the mean loss per term of this process's part of the batch."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        shards = [index[part::world] if len(index) >= world else index for part in range(world)]
        weight = float(sum(self.examples.weights[shard].sum() for shard in shards))
        generator = _generator(self.settings.seed, self.state.epoch, step, rank)
        _seed(self.accelerator.device, int(generator.integers(2**62)))
        batch = self.examples.batch(shards[rank], generator)
        batch = moved(batch, self.accelerator.device, non_blocking=True)
        with self.accelerator.autocast():
            loss = self.wrapped(batch) * (world / weight)  # the mean over the terms of all processes
        value = float(loss.detach())
        if not math.isfinite(value):
            self._not_finite(value, step)
        self.accelerator.backward(loss)
        if self.settings.clip_norm:
            clip_gradients(self.model.parameters(), self.settings.clip_norm, self._divisions)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _learning_rate(self) -> float:
        """Learning rate of the step in progress: rising over the warm-up, then according to the schedule."""
        settings = self.settings
        per_epoch = n_batches(len(self.examples.lengths), self.batch_size)
        done, warm = self.state.epoch * per_epoch + self.state.step, settings.warmup_steps
        if done < warm:
            return settings.learning_rate * (done + 1) / warm
        if settings.schedule == "constant":
            return settings.learning_rate
        left = settings.epochs * per_epoch - done
        return settings.learning_rate * max(left, 1) / max(settings.epochs * per_epoch - warm, 1)

    def _end_epoch(self, row: dict[str, float]) -> None:
        state, last = self.state, self.state.epoch == self.until
        metrics: dict[str, float] = {}
        self.average.add(state.epoch)
        with self.average.applied():
            if self.validate and (last or state.epoch % self.settings.validate_every == 0):
                metrics = self._validated()
                row.update(metrics)
            state.history.append(row)
            if self._is_best(metrics):
                state.best_epoch, state.best_metric = state.epoch, metrics.get(self.settings.metric or "", -math.inf)
                self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
                self._best_saved = False
            if self.settings.keep_every and state.epoch % self.settings.keep_every == 0:
                self._save(kept_epoch(state.epoch), self.model.state_dict())
        if self.settings.keep_every and state.epoch % self.settings.keep_every == 0:
            self._keep_state()
        if last or state.epoch % self.settings.save_every == 0 or self._out_of_patience():
            self._save_last()
        if self.tracking is not None:
            self.tracking.log(row)

    def _is_best(self, metrics: dict[str, float]) -> bool:
        """Check that no earlier epoch was as good; without validation the last epoch is the best."""
        if not self.chooses:
            return True
        metric, best = self.settings.metric or "", self.state.best_metric
        if metric not in metrics:
            return False
        if not self.state.best_epoch:
            return True
        return metrics[metric] < best if lower_is_better(metric) else metrics[metric] > best

    def _validated(self) -> dict[str, float]:
        """Measure the metrics in the main process, and return them in all processes.

        With divided tables all processes measure together: each scores its own items.
        """
        assert self.validate is not None
        measures = self.accelerator.is_main_process or bool(self.divided)
        shared: list[Any] = [self.validate() if measures else None]
        if self.accelerator.num_processes > 1:
            torch.distributed.broadcast_object_list(shared, src=0)
        return dict(shared[0])

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        if patience is None or not self.chooses or not self.state.best_epoch:
            return False
        return (self.state.epoch - self.state.best_epoch) // self.settings.validate_every >= patience

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def resume(self, epoch: int | None = None) -> None:
        """Continue from `last.safetensors`, or from the state after a kept epoch, which becomes the last state.

        Raises
        ------
        StorageError
            The file is missing, or belongs to a run with other settings or another Dataset.
        """
        assert self.folder is not None
        if self.accelerator.is_main_process:
            confirm_best(self.folder)
        self.accelerator.wait_for_everyone()
        file = self.folder / LAST if epoch is None else self._state_file(epoch)
        tensors, note = load_checkpoint(file, self._rows)
        self._check_same_run(_part(note, "identity", file))
        state = _state(_part(note, "state", file), file)
        if epoch is not None and (state.epoch, state.step) != (epoch, 0):
            raise StorageError(f"{file} holds the state of epoch {state.epoch}, not of epoch {epoch}: it was replaced.")
        load_weights(self.model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, file)
        restore_optimizer(self.optimizer, tensors, file)
        self.average.restore(tensors)
        self.state = state
        if state.best_epoch:
            best = self._best_of(state, tensors, epoch)
            self._check_best(best)
            self.best = best
        if epoch is not None:
            self._best_saved = not state.best_epoch
            self._save_last()

    def _state_file(self, epoch: int) -> Path:
        """File with the state after a kept epoch."""
        assert self.folder is not None
        file = self.folder / kept_state(epoch)
        if not file.is_file():
            files = sorted(file.parent.glob("state-[0-9]*.safetensors"))
            kept = ", ".join(one.stem.removeprefix("state-").lstrip("0") for one in files) or "none"
            raise StorageError(
                f"{self.folder} did not keep its state after epoch {epoch}; kept: {kept}."
                " Train with keep_every=N to keep the state of every N-th epoch."
            )
        return file

    def _best_of(self, state: State, tensors: Mapping[str, Tensor], epoch: int | None) -> dict[str, Tensor]:
        """Best weights of a state: those of the run or, after a kept epoch, of that time."""
        assert self.folder is not None
        if epoch is None:
            return load_best(self.folder, self._rows)[0]
        inner = {name.removeprefix("best."): one for name, one in tensors.items() if name.startswith("best.")}
        return inner or load_epoch(self.folder, state.best_epoch, self._rows)[0]

    def _keep_state(self) -> None:
        """Keep the whole state; with the best weights, unless they are those of a kept epoch."""
        state, every = self.state, self.settings.keep_every or 1
        apart = state.best_epoch and state.best_epoch % every
        best = {f"best.{name}": tensor for name, tensor in self.best.items()} if apart else {}
        self._save(kept_state(state.epoch), {**self._tensors(), **best})

    def _tensors(self) -> dict[str, Tensor]:
        """Weights, their mean over epochs, and the state of the optimizer."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return {**weights, **self.average.tensors(), **optimizer_tensors(self.optimizer)}

    def _check_best(self, best: Mapping[str, Tensor]) -> None:
        """Raise a StorageError unless tensors are weights of this model."""
        assert self.folder is not None
        own = self.model.state_dict()
        for name in sorted(own.keys() | best.keys()):
            if name not in own or name not in best or own[name].shape != best[name].shape:
                raise StorageError(
                    f"{self.folder / BEST} does not fit this model: {name} is missing or of another shape."
                )

    def _check_same_run(self, other: dict[str, Any]) -> None:
        config = self.model.config
        defaults = {one.name: one.default for one in fields(config) if one.default is not MISSING}
        formerly = {"model": {**defaults, **config.formerly}, "training": FORMERLY}
        mine, theirs = _flat(self.identity), _flat(formerly) | _flat(other)
        for key in sorted(mine.keys() | theirs.keys()):
            if key.removeprefix("training.") not in MAY_CHANGE_ON_RESUME and mine.get(key) != theirs.get(key):
                values = "" if key == "dataset" else f": {theirs.get(key)!r} there, {mine.get(key)!r} here"
                raise StorageError(
                    f"{self.folder} holds a run with another {key}{values}. Resume with the same settings and Dataset, "
                    "or train into a new folder."
                )

    def _save_last(self) -> None:
        """Save the best weights, if they are new, and then the state, which refers to them.

        A process that is killed anywhere in between leaves two files that belong together (see `confirm_best`).
        """
        if not self._best_saved:
            self._save(NEXT_BEST, self.best)  # the best weights with the state that names their epoch
        self._save(LAST, self._tensors())
        if self.folder is not None and self.accelerator.is_main_process:
            if not self._best_saved:
                confirm_best(self.folder)
            if self.divided:
                drop_parts(self.folder)
        self._best_saved = True

    def _save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint; of divided tables each process writes its own part before."""
        if self.folder is None:
            return
        note, path = self._note(), self.folder / name
        if self.divided:
            own: dict[str, Tensor] = {}
            common: dict[str, Tensor] = {}
            for key, tensor in tensors.items():
                (own if self._is_divided(key) else common)[key] = tensor
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
            moment = f"{path.stem}-e{self.state.epoch}s{self.state.step}".replace(".", "-")
            part = f"{rank + 1}of{world}/{moment}.safetensors"
            rows = {key: codes for key in own if (codes := self._rows(key)) is not None}
            entries: list[Any] = [None] * world
            torch.distributed.all_gather_object(entries, save_part(path, part, own, rows))
            note, tensors = {**note, PARTS: entries}, common
        if self.accelerator.is_main_process:
            save_checkpoint(path, tensors, note)
        if self.divided:  # nobody goes on, and drops parts, before the file that names them is there
            self.accelerator.wait_for_everyone()

    def _is_divided(self, key: str) -> bool:
        """Check that a tensor of a checkpoint belongs to a divided table: its weights, their mean, or their state."""
        kind, _, name = key.partition(".")
        if kind == "optimizer":
            return int(name.partition(".")[0]) in self._divided_places
        return key in self.divided or name in self.divided

    def _rows(self, key: str) -> range | None:
        """Rows of this process in a tensor of a checkpoint; None if it is not by rows of a divided table."""
        kind, _, name = key.partition(".")
        if kind == "optimizer":
            place, _, part = name.partition(".")
            return None if part in ("step", "waits") else self._divided_places.get(int(place))
        return self.divided.get(key, self.divided.get(name))

    def _note(self) -> dict[str, Any]:
        return {"state": asdict(self.state), "identity": self.identity}

    # ---- failures and interruptions -----------------------------------------------------------------------------

    def _not_finite(self, value: float, step: int) -> None:
        last_state = f" The last good state is in {self.folder}." if self.folder else ""
        raise TrainingError(
            f"the loss became {value} at epoch {self.state.epoch + 1}, step {step + 1}: training stopped.{last_state} "
            "A lower learning_rate, clip_norm=1 or some warmup_steps usually help."
        )

    def _stopping(self) -> bool:
        """Check that Ctrl-C or SIGTERM reached any process. All stop after the same step: none waits forever."""
        return self._any(self._stop.is_set())

    def _any(self, mine: bool) -> bool:
        """Return whether the condition holds in any process."""
        if self.accelerator.num_processes == 1:
            return mine
        total = torch.tensor(float(mine), device=self.accelerator.device)
        return bool(self.accelerator.reduce(total, reduction="sum"))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Make the first Ctrl-C or SIGTERM finish the step in flight and save; a second Ctrl-C acts at once.

        With several processes each may receive the signal twice: from the terminal and from the launching process. So
        only the launching process ends them early.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set() and self.accelerator.num_processes == 1 and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._stop.set()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def divided_tables(model: TrainableModel) -> dict[str, range]:
    """Rows of this process in the divided tables of a model, by the names of their weights."""
    return {f"{name}.weight": part.codes for name, part in model.named_modules() if isinstance(part, DividedTable)}


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(list(key))


def _seed(device: torch.device, seed: int) -> None:
    """Seed the generators that a step draws from.

    `torch.manual_seed` also notes a stack trace for every other kind of device, which takes longer than a small step.
    """
    (torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed)(seed)


def _part(note: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """A part of the note of a checkpoint, or a StorageError if it is not there."""
    part = note.get(name)
    if not isinstance(part, dict):
        raise StorageError(f"{file} does not tell its {name}: it was damaged or edited.")
    return part


def _state(content: dict[str, Any], file: Path) -> State:
    """The state that a checkpoint tells, if it is a possible one."""
    counts = [fit(content.get(name), int) for name in ("epoch", "step", "best_epoch")]
    whole = all(count is not MISFIT and count >= 0 for count in counts)
    numbers = all(fit(content.get(name), float) is not MISFIT for name in ("loss_sum", "seconds"))
    history = content.get("history")
    rows = isinstance(history, list) and all(
        isinstance(row, dict) and "epoch" in row and all(fit(value, float) is not MISFIT for value in row.values())
        for row in history
    )
    metric = content.get("best_metric")
    if not (whole and numbers and rows and isinstance(metric, int | float) and content.keys() == _STATE):
        raise StorageError(f"{file} tells an impossible state of the run: it was damaged or edited.")
    if len(history or ()) != content["epoch"] or content["best_epoch"] > content["epoch"]:
        raise StorageError(f"{file} tells of {content['epoch']} epochs and lists others: it was damaged or edited.")
    return State(**content)


_STATE = {field.name for field in fields(State)}


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
