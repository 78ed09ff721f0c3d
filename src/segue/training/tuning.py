"""`segue.tune`: a search for better settings, on Optuna, that looks at the validation part alone."""

from __future__ import annotations

import json
import shutil
import time
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segue.arguments import checked_except
from segue.data.dataset import Dataset
from segue.data.splits.holdouts import Holdout, Split
from segue.errors import ConfigError, SegueError, StorageError
from segue.evaluation.tasks.registry import lower_is_better
from segue.files import exclusive, read_json, write_json
from segue.inference.loading import load
from segue.inference.recommender import Recommender
from segue.locks import locked, put, waiting
from segue.models.base import CountingModel, ModelConfig
from segue.settings import Count, Positive, Seed, Word
from segue.training.config import Training
from segue.training.fit import as_config, fit
from segue.training.search_space import Choice, Dimension, applied, check_space, dimension_of, space_of, value_of
from segue.training.tuning_result import Tuning, frame_of, importance_of
from segue.training.validation import check_validation, validation_of, with_task_defaults

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

BEST, TRIALS, NOTE = "best", "trials", "tuning.json"
"""Names in the folder of a search: the best run, the runs in flight, and a note on the search."""

_STARTUP = 5
"""Number of whole trainings before others are compared with them and stopped early."""
_WARM_EPOCHS = 2
"""Number of epochs that every training may take."""


@checked_except("space")
def tune(
    config: ModelConfig | type[ModelConfig] | str,
    data: Split | Dataset,
    validation: Holdout | None = None,
    *,
    trials: Count = 40,
    minutes: Positive | None = None,
    training: Training | None = None,
    space: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    storage: str | Path | None = None,
    study: Word = "segue",
    sampler: Literal["tpe", "random"] = "tpe",
    prune: bool = True,
    seed: Seed = 0,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> Tuning:
    """Search for settings of a model that raise a metric of the validation part.

    The first trial has the settings as they are, so the result is never worse on validation. The test part is taken
    out of the split before the search begins: no trial can see it. Trials that are worse than half of the earlier ones
    after as many epochs are stopped (median pruning). The choice of trial n is a function of the seed, n and the
    earlier results.

    A search that was stopped or killed goes on with the same call. A training in flight continues at its last epoch.
    Several programs may work on one storage and one folder at once. Optuna is an extra: `pip install 'segue[tune]'`.

    Parameters
    ----------
    config
        Config of the model, its class or its name. Settings that are not searched stay as they are.
    data, validation
        As of `segue.fit`. There must be a validation part.
    trials
        Number of trials in all, over all calls and workers.
    minutes
        Minutes after which this call starts no further trial. One in flight ends after its epoch and counts.
    training
        Options of the trainings; `metric` is the metric to raise, or to lower if it is an error.
    space
        Settings to search by full name, in place of the usual ones (`segue.training.search_space`): `{"model.width":
        [32, 64], "model.dropout": (0.0, 0.6), "training.learning_rate": (1e-4, 1e-2, "log")}`. Pairs of whole numbers
        are ranges of whole numbers.
    out
        Folder of the search. It holds the best run so far, in `best`, and the runs in flight. None keeps the best
        Recommender in memory.
    storage
        File of an SQLite database with the trials, or the address of a database as Optuna takes it. When None,
        `study.db` in `out`, or memory.
    study
        Name of the search in the storage.
    sampler
        "tpe" learns from earlier trials (Bergstra et al., NeurIPS 2011); "random" does not.
    prune
        Stop trials that fall behind.
    seed
        Seed of the search; that of the trainings is `training.seed`.
    on_trial
        Function that is called after each trial with its number, state, value, settings and seconds.

    Returns
    -------
    Tuning
        The best config and its value, the run, all trials as a frame, the importance of each setting, and a picture.

    Raises
    ------
    ConfigError
        Optuna is missing, there is no validation part or nothing to tune, a setting of `space` is unknown or
        impossible, or `training` watches the test part.
    StorageError
        The study or the folder belongs to another search, or `out` holds something else.
    TrainingError
        All trials failed; the error is that of the last one.

    Examples
    --------
    >>> import polars as pl
    >>> rows = range(80)
    >>> log = pl.DataFrame({"user": [n // 4 for n in rows], "item": [n // 4 + n % 4 for n in rows], "time": rows})
    >>> split = segue.leave_last_out(segue.prepare(log))
    >>> tuning = segue.tune("item-knn", split, trials=2, seed=0)
    >>> tuning.config.name, len(tuning.trials)
    ('item-knn', 2)
    """
    config, settings = as_config(config), training or Training()
    folder = None if out is None else Path(out)
    if settings.watch_test:
        raise ConfigError("watch_test=True shows the test part, and a search looks at validation alone.")
    blind, held = _blind(data, validation)
    search = _Search(
        config=config,
        data=blind,
        held=held,
        training=with_task_defaults(settings, config, held),
        space=_space(config, space, blind),
        folder=folder,
        trials=trials,
        deadline=None if minutes is None else time.monotonic() + 60 * minutes,
        sampler=sampler,
        prune=prune,
        seed=seed,
        study=_study(storage, folder, study, settings, config, held),
        on_trial=on_trial or (lambda trial: None),
    )
    return search.run()


def _blind(data: Split | Dataset, validation: Holdout | None) -> tuple[Split | Dataset, Holdout]:
    """The data without the test part, and the validation part."""
    if isinstance(data, Split):
        if validation is not None:
            raise ConfigError("a split has its own validation part: pass either a split, or a Dataset with validation.")
        nobody = np.empty(0, dtype=np.int64)
        test = Holdout(data.train, nobody, nobody, nobody, "test")
        data, validation = replace(data, test=test), data.validation
    if validation is None or not len(validation):
        raise ConfigError("a search needs a validation part to choose by: pass a split that has one, or validation=.")
    return data, validation


def _train(data: Split | Dataset) -> Dataset:
    return data.train if isinstance(data, Split) else data


def _space(config: ModelConfig, given: Mapping[str, Any] | None, data: Split | Dataset) -> dict[str, Dimension]:
    """The settings to search, checked."""
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"space={given!r}: expected a dict of settings by full name, such as model.width.")
    if given is None:
        space = space_of(type(config), is_trained(config))
    else:
        space = {str(name): dimension_of(str(name), one) for name, one in given.items()}
    if not space:
        raise ConfigError(f"{config.name} has no setting that is worth a search: name some with space=.")
    check_space(space, type(config))
    return space


def is_trained(config: ModelConfig) -> bool:
    """True if the model of a config is trained by gradient steps, not counted."""
    try:
        kind = typing.get_type_hints(type(config).build).get("return")
    except NameError:  # a name that is imported for type checkers alone
        kind = None
    return not (isinstance(kind, type) and issubclass(kind, CountingModel))


def import_optuna() -> Any:
    """The package Optuna, which speaks only of errors then.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("a search needs Optuna: pip install 'segue[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(
    storage: str | Path | None,
    folder: Path | None,
    name: str,
    settings: Training,
    config: ModelConfig,
    held: Holdout,
) -> Study:
    """The study of this name in the storage, which is made if it is not there."""
    optuna = import_optuna()
    metric = with_task_defaults(settings, config, held).metric or ""
    place = storage if storage is not None else None if folder is None else folder / "study.db"
    file = Path(place) if place is not None and "://" not in str(place) else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        place = f"sqlite:///{file}"
    direction = "minimize" if lower_is_better(metric) else "maximize"
    try:
        # Two workers that begin at once would both make the tables.
        with nullcontext() if file is None else waiting(lambda: exclusive(file)):
            study: Study = optuna.create_study(
                storage=None if place is None else _database(optuna, str(place)),
                study_name=name,
                direction=direction,
                load_if_exists=True,
            )
        return study
    except SegueError:
        raise
    except Exception as error:  # each database has errors of its own
        reason = " ".join(str(error).split())[:300]
        raise StorageError(f"{place} cannot be used as the storage of a search: {reason}") from None


def _database(optuna: Any, address: str) -> Any:
    wait = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(address, engine_kwargs=wait)


@dataclass
class _Search:
    """One call of `tune`."""

    config: ModelConfig
    data: Split | Dataset
    held: Holdout
    training: Training
    space: Mapping[str, Dimension]
    folder: Path | None
    trials: int
    deadline: float | None
    sampler: str
    prune: bool
    seed: int
    study: Study
    on_trial: Callable[[dict[str, Any]], None]
    best: Recommender | None = None
    failure: SegueError | None = None
    distributions: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Tuning:
        """Run trials until there are enough, or until the time is over."""
        self.distributions = {name: _distribution(one) for name, one in self.space.items()}
        with self._turn():
            self._check_same()
            self._recover()
            self._tidy()
        while self.deadline is None or time.monotonic() < self.deadline:
            with self._turn():
                trial = self._next()
                if trial is None:
                    break
                lock = self._lock(trial.user_attrs["run"])
                lock.__enter__()
            try:
                self._train(trial)
            finally:
                lock.__exit__(None, None, None)
        return self._result()

    # ---- trials -----------------------------------------------------------------------------------------------------

    def _next(self) -> Trial | None:
        """Begin a trial; None if there are enough."""
        optuna = import_optuna()
        begun = [one for one in self.study.get_trials(deepcopy=False) if _counts(one)]
        if len(begun) >= self.trials:
            return None
        waiting = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        if not begun and not waiting:
            usual = {name: value_of(self.config, self.training, name) for name in self.space}
            self.study.enqueue_trial({name: one for name, one in usual.items() if one in self.space[name]})
        seed = int(np.random.default_rng([self.seed, len(begun)]).integers(2**31))
        samplers = optuna.samplers
        self.study.sampler = (
            samplers.TPESampler(seed=seed) if self.sampler == "tpe" else samplers.RandomSampler(seed=seed)
        )
        self.study.pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=_WARM_EPOCHS)
            if self.prune
            else optuna.pruners.NopPruner()
        )
        trial: Trial = self.study.ask(fixed_distributions=self.distributions)
        if "run" not in trial.user_attrs:
            trial.set_user_attr("run", f"{len(begun) + 1:04d}")
        return trial

    def _train(self, trial: Trial) -> None:
        """Train with the settings of a trial, and tell the study what came out."""
        optuna = import_optuna()
        states = optuna.trial.TrialState
        started, pruned, reported = time.perf_counter(), False, 0
        metric = self.training.metric or ""
        run = None if self.folder is None else self.folder / TRIALS / trial.user_attrs["run"]

        def on_epoch(history: list[dict[str, float]]) -> bool:
            nonlocal pruned, reported
            for row in history[reported:]:
                if metric in row:
                    trial.report(row[metric], int(row["epoch"]))
            reported = len(history)
            pruned = bool(trial.should_prune())
            return pruned or (self.deadline is not None and time.monotonic() >= self.deadline)

        value, recommender = None, None
        try:
            config, training = applied(self.config, self.training, trial.params)
            if training.trackers:
                name = f"{training.tracker_run or self.study.study_name} {trial.user_attrs['run']}"
                training = replace(training, tracker_run=name)
            given = (self.data,) if isinstance(self.data, Split) else (self.data, self.held)
            recommender = fit(
                config, *given, training=training, out=run, resume=run is not None, quiet=True, on_epoch=on_epoch
            )
            value = self._value(recommender, config, training)
        except StorageError:
            raise
        except SegueError as error:
            trial.set_user_attr("error", str(error)[:1000])
            self.failure = error
        with self._turn():
            state = states.FAIL if value is None else states.PRUNED if pruned else states.COMPLETE
            trial.set_user_attr("seconds", time.perf_counter() - started)
            trial.set_user_attr("value", value)
            self.study.tell(trial, None if state != states.COMPLETE else value, state=state)
            if state == states.COMPLETE and self.study.best_trial.number == trial.number:
                self.best = recommender
            self._tidy()
        words = {states.COMPLETE: "done", states.PRUNED: "stopped early", states.FAIL: "failed"}
        self.on_trial(
            {
                "trial": int(trial.user_attrs["run"]),
                "state": words[state],
                metric: value,
                "settings": dict(trial.params),
                "seconds": time.perf_counter() - started,
            }
        )

    def _value(self, recommender: Recommender, config: ModelConfig, training: Training) -> float:
        """The metric of the best epoch on validation; a counting model is measured now."""
        metric = training.metric or ""
        measured = recommender.metadata["training"].get("validation")
        if measured is None:
            settings = with_task_defaults(training, config, self.held)
            check_validation(recommender.model, settings, self.held, None)
            measured = validation_of(recommender.model, settings, self.held, None)()
        return float(measured[metric])

    # ---- what is on disk --------------------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other worker looks at the study, and keep them waiting."""
        if self.folder is None:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with waiting(lambda: exclusive(self._folder / NOTE)):
            yield

    @property
    def _folder(self) -> Path:
        assert self.folder is not None
        return self.folder

    @contextmanager
    def _lock(self, run: str) -> Iterator[None]:
        """Hold the lock of a trial, which ends with this process."""
        if self.folder is None:
            yield
            return
        place = self._folder / TRIALS / run
        with locked(place.with_name(f".{run}.in-flight"), place):
            yield

    def _check_same(self) -> None:
        """Note the search in the study and in the folder, or compare it with what is noted there."""
        own = json.loads(json.dumps(self._identity()))
        noted = self.study.user_attrs.get("search")
        if noted is None:
            self.study.set_user_attr("search", own)
        places = [(f"the study {self.study.study_name!r}", noted)]
        if self.folder is not None:
            there = [one.name for one in self.folder.iterdir() if not one.name.startswith((".", "study.db"))]
            if there and NOTE not in there:
                raise StorageError(f"{self.folder} holds {there[0]}, and no search: choose another folder.")
            note = read_json(self.folder / NOTE) if there else None
            places.append((str(self.folder), note.get("search") if isinstance(note, dict) else None))
            if there and places[-1][1] is None:
                raise StorageError(f"{self.folder / NOTE} does not describe a search: it was damaged or edited.")
            if not there:
                write_json(self.folder / NOTE, {"search": own, "study": self.study.study_name})
        for place, other in places:
            for name in own:
                if other is not None and other.get(name) != own[name]:
                    raise StorageError(
                        f"{place} belongs to a search with another {name}: {other.get(name)!r} there, {own[name]!r} "
                        "here. Give the study another name (study=) and another folder (out=)."
                    )

    def _identity(self) -> dict[str, Any]:
        """All that the results of the trials depend on, as plain data."""
        fixed = {f"model.{name}": value for name, value in self.config.to_dict().items()}
        fixed |= {
            f"training.{name}": value
            for name, value in self.training.to_dict().items()
            if not name.startswith("tracker")
        }
        searched = {name: repr(one) for name, one in sorted(self.space.items())}
        return {
            "data": _train(self.data).fingerprint,
            "space": searched,
            **fixed,
            "sampler": self.sampler,
            "prune": self.prune,
            "seed": self.seed,
        }

    def _recover(self) -> None:
        """Begin trials again whose process was killed: each goes on at the last epoch that was saved."""
        optuna = import_optuna()
        states = optuna.trial.TrialState
        for lost in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            run = lost.user_attrs.get("run")
            if self.folder is None:
                continue  # nobody can tell if the process that runs it is alive
            if run is not None:
                try:
                    with self._lock(run):
                        pass
                except StorageError:
                    continue  # another worker trains it
            self.study.tell(lost.number, state=states.FAIL)
            self.study.enqueue_trial(dict(lost.params), user_attrs={} if run is None else {"run": run})

    def _tidy(self) -> None:
        """Put the best run in its place, and remove those of other trials that have ended."""
        if self.folder is None:
            return
        optuna = import_optuna()
        states = optuna.trial.TrialState
        known = self.study.get_trials(deepcopy=False)
        flying = {one.user_attrs.get("run") for one in known if one.state in (states.RUNNING, states.WAITING)}
        done = [one for one in known if one.state == states.COMPLETE]
        if done:
            best = self.folder / TRIALS / str(self.study.best_trial.user_attrs["run"])
            if best.is_dir():
                put(best, self.folder / BEST)
        for one in known:
            run = one.user_attrs.get("run")
            if run is not None and run not in flying:
                shutil.rmtree(self.folder / TRIALS / run, ignore_errors=True)

    # ---- result -----------------------------------------------------------------------------------------------------

    def _result(self) -> Tuning:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importance = importance_of(self.study)
        frame = frame_of(self.study, list(self.space), self.training.metric or "")
        done = frame.filter(frame["state"] == "done")
        if not len(done):
            if self.failure is not None:
                raise self.failure
            raise ConfigError("no trial has ended: give the search more minutes.")
        trial = self.study.best_trial
        config, training = applied(self.config, self.training, trial.params)
        if self.best is None and self.folder is not None:
            with self._turn():  # another worker may put a better run in its place
                self.best = load(self.folder / BEST)
        result = Tuning(
            study=self.study.study_name,
            metric=self.training.metric or "",
            config=config,
            training=training,
            value=float(trial.value or 0.0),
            settings=dict(trial.params),
            trials=frame,
            importance=importance,
            run=None if self.folder is None else self.folder / BEST,
            recommender=self.best,
        )
        if self.folder is not None:
            with self._turn():
                write_json(
                    self.folder / NOTE,
                    {"search": self._identity(), "study": self.study.study_name, "result": result.to_dict()},
                )
                result.plot(self.folder / "tuning.png")
        return result


def _counts(trial: FrozenTrial) -> bool:
    """True for trials that were begun and were not lost with their process."""
    if trial.state.name == "FAIL":
        return "error" in trial.user_attrs
    return trial.state.name != "WAITING"


def _distribution(dimension: Dimension) -> Any:
    optuna = import_optuna()
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    if dimension.is_whole:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
