"""`segue.fit`: makes a Recommender from a config and a split."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from segue.arguments import checked
from segue.cores import limit_threads
from segue.data.dataset import Dataset
from segue.data.splits.by_user import Holdout, Split
from segue.errors import ConfigError
from segue.evaluation.tasks.registry import lower_is_better
from segue.files import write_json
from segue.inference.checkpoint import LAST, read_note
from segue.inference.recommender import Recommender
from segue.inference.unfinished import drop_dataset, keep_dataset
from segue.memory import keep_buffers
from segue.models.base import CountingModel, Model, ModelConfig, TrainableModel
from segue.models.registry import config_class
from segue.nn.divided import Division, dividing
from segue.settings import Count
from segue.training.card import write_card
from segue.training.checkpoint import restore_optimizer
from segue.training.config import Training
from segue.training.curves import NOT_METRICS, TEST, draw_curves, write_metrics
from segue.training.progress import Progress
from segue.training.run_manifest import (
    RUN,
    begin_run,
    chosen_of,
    left_to_data,
    read_run,
    run_folder,
    run_manifest,
    with_choices_of,
)
from segue.training.size import check_size, memory_errors
from segue.training.start import Start, start_of
from segue.training.tracking import Tracking, check_trackers
from segue.training.trainer import State, Trainer
from segue.training.validation import check_validation, validation_of, with_task_defaults
from segue.training.whole import save_whole

_SECONDS_BETWEEN_CURVES = 30.0

OnEpoch = Callable[[list[dict[str, float]]], bool | None]
"""Function that is called with the rows of all epochs so far, and ends the training by returning True."""


@checked
def fit(
    config: ModelConfig | type[ModelConfig] | str,
    data: Split | Dataset,
    validation: Holdout | None = None,
    *,
    training: Training | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    from_epoch: Count | None = None,
    refit: bool = False,
    start: Recommender | str | Path | None = None,
    overwrite: bool | None = None,
    quiet: bool = False,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit a model and return it as a Recommender, with the weights of the best epoch.

    Parameters
    ----------
    config
        Config of the model: `SASRec()`, `SSEPT()`, `Popularity()`, …. A config class, or the name of a model, stands
        for the config with default settings.
    data
        A split: the model is fitted to its training part, and its validation part chooses the epoch. Its test part is
        not read, unless `Training.watch_test` asks for its curves. Or a Dataset, which is fitted as a whole.
    validation
        The Holdout that chooses the epoch, if `data` is a Dataset.
    training
        Options of the training; counting models need none.
    out
        Folder of the run: checkpoints, `metrics.csv`, `curves.png`, `run.json` and, at the end, the `recommender`.
    resume
        Continue the run in `out`, exactly as if it had never stopped. `segue.resume(run)` does it with the settings and
        the Dataset of the run.
    from_epoch
        With `resume`: go back to the state after this epoch, if `Training.keep_every` kept it.
    refit
        After the fit, train again from the start on everything but the test part, for as many epochs as validation
        chose. Figures of refitted models are higher than those of most papers, which do not refit.
    start
        A Recommender, or the folder of one or of a run, with the same model. The training starts from its weights:
        those of users and items by raw id, those of new ids from the mean of the others. The optimizer is new, unless
        `Training.start_optimizer` continues it. Models that count are fitted as ever; matrix factorization starts from
        the item factors.
    overwrite
        True replaces a run in `out` when the training begins, so a notebook cell can be run again. Everything else in
        `out` is refused, and nothing foreign is deleted.
    quiet
        Show no progress.
    on_epoch
        Function that is called after each epoch with one row per epoch so far: epoch, loss, seconds, and the metrics
        of validation. If it returns True, the training ends, and the best weights so far are kept. A training again
        (`refit`) does not call it. Counting models have no epochs.

    Returns
    -------
    recommender
        Its `metadata["training"]` has the best epoch, the validation metrics of that epoch, the best epoch by each
        metric (`best_epochs`) and the seconds that the fit took. After a training with `divide_tables` in several
        processes its tables are in the folder, and are read as they are needed.

    Raises
    ------
    TrainingError
        The loss is not finite, or the data have nothing to learn from.
    StorageError
        `out` holds a run and neither `resume` nor `overwrite` is set; or `resume` is set and `out` holds a different
        run; or `out` holds something else, or is in use by another process.
    ConfigError
        An argument has a wrong type, or the model is larger than the memory. `start` is another model, or has other
        settings; the message names them. `resume` without `out`, or with
        `overwrite`; `refit` without a split; or a metric that validation cannot measure.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> training = segue.Training(epochs=2, validation_exclude_seen=False, cpu=True)
    >>> recommender = segue.fit(segue.SASRec(width=8, blocks=1), split, training=training, out="runs/first", quiet=True)
    >>> recommender.metadata["training"]["best_epoch"] in (1, 2)
    True
    """
    config = as_config(config)
    settings = training or Training()
    train, validation, whole, spec = _parts(data, validation)
    watched = data.test if settings.watch_test and isinstance(data, Split) else None
    if refit and not isinstance(data, Split):
        raise ConfigError("refit=True needs a split: it trains again on everything but the test part.")
    folder = None if out is None else Path(out)
    if folder is None and resume:
        raise ConfigError("resume=True needs the folder of the run: pass out=.")
    if from_epoch is not None and not resume:
        raise ConfigError(f"from_epoch={from_epoch} goes with resume=True.")
    with run_folder(folder if _is_main() else None, resume, overwrite), ExitStack() as closing:
        return _fitted(
            config,
            data,
            train,
            validation,
            whole,
            spec,
            watched,
            settings,
            folder,
            resume,
            from_epoch,
            refit,
            start_of(start, folder if resume else None, refit),
            quiet,
            on_epoch,
            closing,
        )


def _fitted(
    config: ModelConfig,
    data: Split | Dataset,
    train: Dataset,
    validation: Holdout | None,
    whole: Dataset,
    spec: dict[str, object] | None,
    watched: Holdout | None,
    settings: Training,
    folder: Path | None,
    resume: bool,
    from_epoch: int | None,
    refit: bool,
    start: Start | None,
    quiet: bool,
    on_epoch: OnEpoch | None,
    closing: ExitStack,
) -> Recommender:
    """Fit after the folder is checked and locked; the arguments are those of `fit`, and the parts of the data."""
    keep_buffers()
    limit_threads()
    started = time.perf_counter()
    part = watched if validation is None else validation
    chosen = left_open = left_to_data(config, config.resolved(train))
    if resume and folder is not None:
        resumed = read_run(folder)
        config = with_choices_of(resumed.get("model") or {}, config, left_open)
        chosen = chosen_of(resumed) or chosen
    if start is not None and start.recommender is not None:
        former = start.recommender.model.config.to_dict()
        config = with_choices_of(former, config, left_open - config.may_change_on_start)
    settings = with_task_defaults(settings, config, part, folder if resume else None)
    config = config.for_division() if settings.divide_tables else config
    resolved = config.resolved(train)
    division = _division(resolved, settings, folder, start)
    check_size(resolved, train, division)
    if start is not None:
        start.check(resolved)
        start.check_optimizer(settings)
    elif settings.start_optimizer != "new":
        raise ConfigError("start_optimizer='continued' goes with a start: nothing is there to continue.")
    with torch.random.fork_rng(devices=[]), memory_errors(), dividing(division):
        model = _new(config, train, settings.seed)
        run: _Run | None = None
        notes: dict[str, Any] = {}
        if isinstance(model, TrainableModel):
            check_validation(model, settings, validation, watched)
        facts = run_manifest(resolved, chosen, whole, spec, refit) if folder or settings.trackers else {}
        manifest = {} if folder is None else dict(facts)
        manifest |= {} if folder is None or start is None else {"start": start.to_dict()}
        if folder is not None and _is_main():
            begin_run(folder, resume)
            keep_dataset(folder, whole)
        if isinstance(model, TrainableModel):
            check_trackers(settings.trackers)
            run = _Run(settings, folder, Progress(quiet), manifest, start=start, on_epoch=on_epoch)
            run.facts = facts
            closing.callback(run.close)
            notes = run.fit(model, train, validation, resume, watched, from_epoch)
            settings = run.settings
            if refit and isinstance(data, Split):
                refitted = _new(config, data.refit, settings.seed)
                assert isinstance(refitted, TrainableModel)
                notes["refit"] = run.refit(notes["best_epoch"]).fit(refitted, data.refit, None, resume)
                model = refitted
        elif isinstance(model, CountingModel):
            if folder is not None and _is_main():
                write_json(folder / RUN, manifest)
            if start is not None:
                start.give(model, train)
            model.count(data.refit if refit and isinstance(data, Split) else train)
    metadata: dict[str, Any] = {
        "split": spec,
        "refit": refit,
        "options": settings.to_dict(),
        "training": {**notes, "seconds": time.perf_counter() - started},
    }
    if division is not None and folder is not None:
        recommender = save_whole(folder / "recommender", model, whole, metadata, _is_main())
        _leave_together()
    else:
        _leave_together()
        recommender = Recommender(model, whole, metadata)
        if folder is not None and _is_main():
            recommender.save(folder / "recommender")
    if folder is not None and _is_main():
        write_card(folder, recommender)
        drop_dataset(folder)
    if run is not None:
        run.end(notes)
    return recommender


class _Run:
    """One training in one folder."""

    def __init__(
        self,
        settings: Training,
        folder: Path | None,
        progress: Progress,
        manifest: dict[str, Any],
        until: int | None = None,
        start: Start | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.settings, self.folder, self.progress = settings, folder, progress
        self.manifest, self.until, self.start, self.on_epoch = manifest, until, start, on_epoch
        self.facts: Mapping[str, Any] = {}
        self.tracking: Tracking | None = None
        self.curves_drawn = time.perf_counter()

    def end(self, notes: dict[str, Any]) -> None:
        """Tell the trackers what came out, once the run is whole."""
        if self.tracking is not None:
            self.tracking.end(notes)

    def close(self) -> None:
        """Close the trackers, if they are open: the training failed or was interrupted."""
        if self.tracking is not None:
            self.tracking.close()

    def refit(self, epochs: int) -> _Run:
        """Return a run with the same settings for a fixed number of epochs, in its own folder."""
        self.progress.console.print(f"training again on everything but the test part, {epochs} epochs")
        folder = None if self.folder is None else self.folder / "refit"
        return _Run(replace(self.settings, patience=None), folder, self.progress, self.manifest, epochs, self.start)

    def fit(
        self,
        model: TrainableModel,
        train: Dataset,
        validation: Holdout | None,
        resume: bool,
        watched: Holdout | None = None,
        from_epoch: int | None = None,
    ) -> dict[str, Any]:
        """Train the model, and return the notes on its training for the metadata."""
        settings, config = self.settings, model.config.to_dict()
        model.prepare(train)
        examples = model.examples(train)
        state_of_start: dict[str, Tensor] = {}
        if self.start is not None:
            self.start.give(model, train)
            state_of_start = self.start.optimizer_for(model, train, settings)
        begun = self.folder is not None and (from_epoch is not None or (self.folder / LAST).is_file())
        resume = resume and begun and not self._is_beyond()
        if self.until is not None and self.folder is not None and _is_main():
            begin_run(self.folder, resume)
        accelerator = _accelerator(self.settings)
        identity = {"model": config, "dataset": train.fingerprint}
        identity |= {} if self.start is None else {"start": self.start.fingerprint}
        measured = validation is not None or watched is not None
        validate = validation_of(model, settings, validation, watched) if measured else None
        trainer = Trainer(model, examples, settings, validate, self.folder, identity, accelerator, self.until)
        trainer.chooses = validation is not None
        self.settings = trainer.settings
        if state_of_start:
            restore_optimizer(trainer.optimizer, state_of_start)
        if resume:
            trainer.resume(from_epoch)
            if from_epoch and self.folder is not None and accelerator.is_main_process:
                # Its training again begins anew: it may be for another number of epochs now.
                begin_run(self.folder / "refit", resume=False)
        if self.folder is not None and accelerator.is_main_process:
            write_json(self.folder / RUN, {**self.manifest, "training": self.settings.to_dict()})
        if self.settings.trackers and self.until is None and accelerator.is_main_process:
            self.tracking = Tracking(self.settings, self.folder, self.facts, resume)
            trainer.tracking = self.tracking
        try:
            state = trainer.run(self.progress, self._record(trainer))
        finally:
            self.progress.close()
        if accelerator.is_main_process:
            if self.folder is not None and state.history:  # also after a kill between the last state and its table
                write_metrics(self.folder / "metrics.csv", state.history)
            self._draw(state)
        return _notes(state)

    def _is_beyond(self) -> bool:
        """Return whether a refit has taken more epochs than it should now, so that it must begin anew."""
        assert self.folder is not None
        state = read_note(self.folder / LAST).get("state")
        done = state.get("epoch") if isinstance(state, dict) else None
        return self.until is not None and isinstance(done, int) and done > self.until

    def _record(self, trainer: Trainer) -> Callable[[list[dict[str, float]]], bool]:
        """Return the function to call after each epoch: it writes the table always, and the curves now and then.

        It returns True if the training shall end.
        """

        def record(history: list[dict[str, float]]) -> bool:
            if self.folder is not None:
                write_metrics(self.folder / "metrics.csv", history)
                if time.perf_counter() - self.curves_drawn > _SECONDS_BETWEEN_CURVES:
                    self._draw(trainer.state)
            return self.on_epoch is not None and bool(self.on_epoch(history))

        return record

    def _draw(self, state: State) -> None:
        if self.folder is not None and state.history:
            draw_curves(self.folder / "curves.png", state.history, self.settings.metric or "", state.best_epoch)
            self.curves_drawn = time.perf_counter()


def _accelerator(settings: Training) -> Accelerator:
    """Devices and processes of the settings."""
    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)  # so that a second fit can choose another
    # Without being told, accelerate joins processes only on a GPU: those on a CPU would train beside each other.
    cpu = settings.cpu or not torch.accelerator.is_available()
    return Accelerator(cpu=cpu, mixed_precision=settings.precision)


def _division(config: ModelConfig, settings: Training, folder: Path | None, start: Start | None) -> Division | None:
    """Division of the tables over the processes; None if they are whole.

    Parameters
    ----------
    config
        Config of the model, resolved for its data.
    settings, folder, start
        As of `fit`.

    Raises
    ------
    ConfigError
        The model cannot divide its tables, or there is no folder.
    """
    if not settings.divide_tables:
        return None
    reason = config.why_whole()
    if reason is not None:
        raise ConfigError(f"divide_tables=True: {reason}. Train without it, or another model.")
    if folder is None:
        raise ConfigError("divide_tables=True needs the folder of the run, where the whole model is made: pass out=.")
    if start is not None and start.recommender is not None:
        raise ConfigError("divide_tables=True begins from new weights: leave the start out, or train undivided.")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None  # one process has all rows
    _accelerator(settings)  # it joins the processes
    return Division.of_processes()


def as_config(config: ModelConfig | type[ModelConfig] | str) -> ModelConfig:
    """Config of a model; of a class or a name the one with default settings."""
    if isinstance(config, str):
        config = config_class(config)
    if isinstance(config, ModelConfig):
        return config
    needed = [field.name for field in fields(config) if field.default is MISSING and field.default_factory is MISSING]
    if inspect.isabstract(config) or needed:
        raise ConfigError(
            f"{config.__name__} has no default settings: expected {config.__name__}({', '.join(needed)})."
        )
    return config()


def _new(config: ModelConfig, dataset: Dataset, seed: int) -> Model:
    """Build a module whose settings are resolved for the Dataset and whose weights follow from the seed."""
    torch.manual_seed(seed)
    model = config.resolved(dataset).build(dataset.n_users, dataset.n_items)
    model.meet(dataset)
    return model


def _parts(
    data: Split | Dataset, validation: Holdout | None
) -> tuple[Dataset, Holdout | None, Dataset, dict[str, object] | None]:
    """Training view, validation Holdout, whole Dataset, and the split as plain data."""
    if isinstance(data, Split):
        if validation is not None:
            raise ConfigError(
                "a split has its own validation part: pass either a split, or a Dataset with validation=."
            )
        return data.train, data.validation if len(data.validation) else None, data.dataset, data.spec
    return data, validation, data if validation is None else validation.dataset, None


def _notes(state: State) -> dict[str, Any]:
    best = next((row for row in state.history if row["epoch"] == state.best_epoch), {})
    metrics = {name: value for name, value in best.items() if name not in NOT_METRICS and not name.startswith(TEST)}
    return {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "validation": metrics,
        "best_epochs": {name: _best_epoch(state.history, name) for name in metrics},
        "seconds_per_epoch": sum(row["seconds"] for row in state.history) / max(len(state.history), 1),
    }


def _best_epoch(history: list[dict[str, float]], metric: str) -> int:
    """First of the epochs with the best value of the metric."""
    measured = [row for row in history if metric in row]
    choose = min if lower_is_better(metric) else max
    return int(choose(measured, key=lambda row: row[metric])["epoch"])


def _leave_together() -> None:
    """Leave the process group once all processes are done: one that left early and joined again might wait forever."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _is_main() -> bool:
    """Check that this process writes the files. Counting models never set up torch.distributed, so RANK decides."""
    return os.environ.get("RANK", "0") == "0"
