"""`segue.refresh`: a Dataset and its run take in a new log, in steps that can be killed and repeated.

The steps write to a folder beside the run, `<run>.refresh/`, until the last one puts the results in their places:

1. the log is appended to a copy of the Dataset (`data/`);
2. the model is trained on it, from the weights of the run (`run/`);
3. the new run and the old one are compared on the test part of the new data (`refresh.json`);
4. the new Dataset takes the place of the old one, and so does the new run, unless it is worse.

Each step leaves its result whole, or not at all. The same command goes on after a kill, and ends with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.arguments import checked_except
from segue.data.dataset import Dataset
from segue.data.reading.read import ReadOptions
from segue.data.splits.holdouts import Split
from segue.data.splits.registry import split_by
from segue.errors import ConfigError, SegueError, StorageError
from segue.evaluation.compare import Comparison, Difference, compare
from segue.evaluation.tasks.task import EvaluationOptions, measure, task_of
from segue.files import check_folder, exclusive, read_json, real, sha256, write_json
from segue.inference.loading import load
from segue.inference.recommender import Recommender
from segue.locks import flush_folder, put, temporary_folder
from segue.models.growth import check_start
from segue.training.fit import fit
from segue.training.resuming import FormerRun, former_run
from segue.training.run_manifest import check_run
from segue.training.start import start_of

STATE = "refresh.json"
_DATASET, _RECOMMENDER = "dataset.json", "recommender/recommender.json"
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Refreshed:
    """Result of `segue.refresh`.

    Attributes
    ----------
    replaced
        True if the new run took the place of the old one.
    dataset, run
        Where the Dataset and the run are now. The run is the target of a link, if one was named.
    metric
        Name of the metric that decided; None with `always`.
    old, new
        Values of the metric of the old and the new model on the newest part; None with `always`.
    low, high
        95 % interval of the difference, new minus old; None with `always`.
    """

    replaced: bool
    dataset: str
    run: str
    metric: str | None
    old: float | None
    new: float | None
    low: float | None
    high: float | None


@checked_except("source")
def refresh(
    dataset: str | Path,
    run: str | Path,
    source: Any,
    *,
    reading: ReadOptions | None = None,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    newest_days: float | None = None,
    always: bool = False,
    quiet: bool = False,
) -> Refreshed:
    """Take a new log into a Dataset and its run: append it, train from the run's weights, compare, and replace.

    The settings, the split and the options of the training are those of the run. Both models are measured on the test
    part of the new data, which neither was trained on: the old one through `Recommender.with_data`. The new run takes
    the place of the old one unless it is worse, that is, unless the 95 % interval of the difference lies on the wrong
    side of zero. The Dataset is replaced in any case.

    Parameters
    ----------
    dataset
        Folder of the Dataset; it is replaced in one step.
    run
        Folder of the run, or a link to one. A folder is replaced in one step. A link is switched to a new folder
        beside its target, and the target stays.
    source
        A log, as `segue.read` takes it. After a kill, the same one.
    reading
        Options of `segue.read` for the log.
    model
        Other values for settings of the model that a start leaves open, by name: `{"windows": "newest"}` trains on the
        newest window of each user alone, which costs the less the longer the histories are. The new run keeps them.
    training
        Other values for options of the training, by name: `{"epochs": 5}`.
    newest_days
        As in `Dataset.append`.
    always
        Replace the run without a comparison.
    quiet
        Show no progress.

    Raises
    ------
    DataError
        The log cannot be read, or is part of the Dataset already.
    StorageError
        The run holds foreign files, another refresh is at work, or an unfinished one is of another log.
    ConfigError
        A setting or an option is unknown or impossible, or a start must keep it. The run was trained without a split,
        so there is no newest part to compare on: set `always`.

    Examples
    --------
    >>> log = segue.simulate(40, 6).log()
    >>> data = segue.prepare(log.filter(log["time"] < 5), out="data/shop")
    >>> recommender = segue.fit(segue.Markov(), segue.last_session_out(data), out="runs/current")
    >>> result = segue.refresh("data/shop", "runs/current", log.filter(log["time"] == 5), quiet=True)
    >>> segue.Dataset.open("data/shop").n_interactions == len(log)
    True
    """
    place, data = Path(run), Path(dataset)
    work = place.with_name(f"{place.name}.refresh")
    with exclusive(work):
        steps = _Steps(data, place, work, always, model or {}, training or {})
        steps.begin(source)
        steps.append(source, reading or ReadOptions(), newest_days)
        steps.train(quiet)
        steps.compare()
        return steps.finish()


class _Steps:
    """The steps of a refresh; each returns at once if its result is there."""

    def __init__(
        self,
        data: Path,
        run: Path,
        work: Path,
        always: bool,
        of_model: Mapping[str, Any],
        of_training: Mapping[str, Any],
    ) -> None:
        self.data, self.run, self.work, self.always = data, run, work, always
        self.of_model, self.of_training = of_model, of_training
        self.state: dict[str, Any] = {}

    def begin(self, source: Any) -> None:
        """Read the state of an unfinished refresh of this log, or begin one."""
        about = {"log": str(source) if isinstance(source, str | Path) else None, "content": _content_of(source)}
        if (self.work / STATE).is_file():
            self.state = read_json(self.work / STATE)
            if self.state.get("about") != about:
                told = (self.state.get("about") or {}).get("log") or "a frame"
                raise StorageError(
                    f"{self.work} holds an unfinished refresh with another log, {told}: finish it with that one, or "
                    "remove the folder."
                )
            return
        check_run(self.run, False, True)
        check_folder(self.data, "dataset")
        if not (self.run / _RECOMMENDER).is_file():
            raise StorageError(f"{self.run} is not a finished run: train it to its end first.")
        former = former_run(self.run)
        settings = former.training.with_values(self.of_training)
        start = start_of(self.run, None, former.refit) if settings.start_optimizer == "continued" else None
        if start is not None:
            start.check_optimizer(settings)
        changed = former.config.with_values(self.of_model)
        check_start(former.config.to_dict(), changed.to_dict(), changed.may_change_on_start)
        if former.split is None and not self.always:
            raise ConfigError(
                f"{self.run} was trained without a split, so nothing is held out to compare on: --always."
            )
        self.work.mkdir(parents=True, exist_ok=True)
        self._save(about=about)

    def append(self, source: Any, reading: ReadOptions, newest_days: float | None) -> None:
        """Step 1: the Dataset with the log."""
        if "data" in self.state:
            return
        folder = self.work / "data"
        if not (folder / _DATASET).is_file():
            options = {name: getattr(reading, name) for name in reading.given}
            try:
                Dataset.open(self.data).append(source, newest_days=newest_days, out=folder, **options)
            except SegueError:  # such as a log that is part of the Dataset already: nothing has begun
                self._remove()
                raise
        self._save(data=sha256(folder / _DATASET))

    def train(self, quiet: bool) -> None:
        """Step 2: the new run."""
        if "run" in self.state:
            return
        former, folder = former_run(self.run), self.work / "run"
        fit(
            former.given.with_values(self.of_model),
            _parts(Dataset.open(self.work / "data"), former),
            training=former.training.with_values(self.of_training),
            out=folder,
            resume=(folder / "run.json").is_file(),
            refit=former.refit,
            start=self.run,
            quiet=quiet,
        )
        self._save(run=sha256(folder / _RECOMMENDER))

    def compare(self) -> None:
        """Step 3: the decision."""
        if "decision" in self.state:
            return
        former = former_run(self.run)
        if self.always:
            figures: dict[str, Any] = {"metric": None, "old": None, "new": None, "low": None, "high": None}
            self._save(decision={"replace": True, **figures}, target=self._target())
            return
        metric = former.training.metric or task_of(former.config).usual_metric
        row = newest_difference(load(self.run), load(self.work / "run"), metric, former.split or {})
        figures = {"metric": row.metric, "old": row.a, "new": row.b, "low": row.low, "high": row.high}
        self._save(decision={"replace": row.better != "a", **figures}, target=self._target())

    def finish(self) -> Refreshed:
        """Step 4: the results in their places."""
        decision = self.state["decision"]
        if _sum(self.data / _DATASET) != self.state["data"]:
            put(self.work / "data", real(self.data))
        target = Path(self.state["target"])
        if decision["replace"]:
            if _sum(target / _RECOMMENDER) != self.state["run"]:
                put(self.work / "run", target)
            if self.run.is_symlink() and real(self.run) != real(target):
                _switch(self.run, target)
        self._remove()
        figures = {name: decision[name] for name in ("metric", "old", "new", "low", "high")}
        return Refreshed(decision["replace"], str(self.data), str(real(self.run)), **figures)

    def _remove(self) -> None:
        """Remove the folder of the steps, in one step."""
        with temporary_folder(self.work.parent, self.work.name) as empty:
            self.work.replace(empty)

    def _target(self) -> str:
        """Folder of the new run: that of the old one or, beside the target of a link, one that is free."""
        if not self.run.is_symlink():
            return str(real(self.run))
        parent, number = real(self.run).parent, 1
        while (parent / f"{self.run.name}-{number:04}").exists():
            number += 1
        return str(parent / f"{self.run.name}-{number:04}")

    def _save(self, **entries: Any) -> None:
        self.state |= entries
        write_json(self.work / STATE, self.state)


def newest_difference(old: Recommender, new: Recommender, metric: str, split: Mapping[str, Any]) -> Difference:
    """Compare two models on the test part of the Dataset of the newer one.

    Parameters
    ----------
    old, new
        The models. The old one answers with the new histories, and was not trained on them.
    metric
        Full name of the metric, such as "ndcg@10".
    split
        The split as plain data.
    """
    parts = split_by(new.dataset, split)
    options = EvaluationOptions(split=str(split["name"]))
    live = old.with_data(parts.train)
    evaluations = [measure(one, parts.test, options) for one in (live, new)]
    return _row(compare(*evaluations, names=("old", "new"), resamples=_RESAMPLES), metric)


def _row(comparison: Comparison, metric: str) -> Difference:
    """The difference in a metric, of all items or of sessions; in the first metric if it was not measured."""
    rows = [row for part in (comparison, *comparison.sessions.values()) for row in part.differences]
    return next((row for row in rows if row.metric == metric), rows[0])


def _parts(dataset: Dataset, former: FormerRun) -> Split | Dataset:
    return dataset if former.split is None else split_by(dataset, former.split)


def _content_of(source: Any) -> str | None:
    """SHA-256 of a file; None for other sources."""
    path = Path(source) if isinstance(source, str | Path) else None
    return sha256(path) if path is not None and path.is_file() else None


def _sum(file: Path) -> str | None:
    return sha256(file) if file.is_file() else None


def _switch(link: Path, target: Path) -> None:
    """Point a link to another folder, in one step; a relative link stays relative."""
    relative = not link.readlink().is_absolute()
    text = os.path.relpath(target, real(link.parent)) if relative else str(target)
    with temporary_folder(link.parent, link.name) as folder:
        made = folder / "link"
        made.symlink_to(text)
        made.replace(link)
    flush_folder(link.parent)
