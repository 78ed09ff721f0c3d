"""`segue.experiment`: models × data sets × settings × seeds, each cell an ordinary run, and one table at the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segue.arguments import checked_except
from segue.data.dataset import Dataset
from segue.data.splits.registry import split_by
from segue.errors import ConfigError, StorageError, nearest
from segue.evaluation.results import Results
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, measure, task_of
from segue.files import exclusive, read_json, write_json
from segue.inference.loading import load
from segue.locks import locked, waiting
from segue.models.base import ModelConfig
from segue.models.registry import config_class
from segue.settings import Count, Seed, Settings, Word
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.tuning import is_trained

_WAIT = 0.2
"""Seconds between looks at cells that other processes work on."""
_FOLDER = re.compile(r"[^\s./\\][^/\\\0]*")
_PARTS = ("data", "models", "settings", "seeds", "split", "training", "evaluation", "metrics", "baseline")


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """The evaluation of a plan, the same for all cells."""

    on: str = "test"
    """Part of the split: "test" or "validation"."""

    k: tuple[Count, ...] | None = None
    """Lengths of the lists; 10 when not given."""

    candidates: Count | None = None
    """Number of sampled items to rank each target among; all items when not given."""

    by: Word = "uniform"
    """Law of the sampled candidates: "uniform" or "popularity"."""

    users: Count | None = None
    """Number of users to evaluate; all when not given."""

    exclude_seen: bool | None = None
    """Leave the items of the history out of the ranking; when not given, as suits the models and the data."""

    seed: Seed = 0
    """Seed of users, candidates and intervals."""

    def check(self) -> None:
        """Raise a ConfigError if a word is not one of those that are known."""
        for name, known in (("on", ("test", "validation")), ("by", ("uniform", "popularity"))):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"{name}={value!r}: expected {' or '.join(known)}.")


@dataclass(frozen=True)
class Cell:
    """One training of a plan, and its evaluation.

    Attributes
    ----------
    data, model, seed
        Names of the data set and of the model with its setting, and the seed of the training.
    dataset
        Folder of the Dataset.
    split
        The split as plain data; None for the one that suits the model.
    config, training
        Settings of the model and of its training.
    """

    data: str
    model: str
    seed: int
    dataset: str
    split: Mapping[str, Any] | None
    config: ModelConfig
    training: Training

    def place(self, out: Path) -> Path:
        """Folder of the run; its evaluation and its note stand beside it."""
        return out / self.data / self.model / f"seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The cells of an experiment, and how they are evaluated and shown."""

    cells: tuple[Cell, ...]
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    metrics: tuple[str, ...] | None = None
    baseline: str | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Plan:
        """The plan that a YAML file describes; see `segue.experiment`.

        Raises
        ------
        ConfigError
            A part is missing, unknown or impossible; the message names it.
        """
        for name in content:
            if name not in _PARTS:
                raise ConfigError(f"plan: there is no part {name!r}; {nearest(str(name), _PARTS)}")
        for name in ("data", "models"):
            if not isinstance(content.get(name), Mapping) or not content[name]:
                raise ConfigError(f"plan: expected {name} as names with their settings, found {content.get(name)!r}.")
        seeds = content.get("seeds", 1)
        seeds = list(range(seeds)) if type(seeds) is int else seeds
        if not isinstance(seeds, list) or not seeds or any(type(one) is not int or one < 0 for one in seeds):
            raise ConfigError(f"plan: seeds={content.get('seeds')!r}: expected a number of seeds, or a list of them.")
        cells = [
            Cell(data, model, seed, folder, split, config, replace(training, seed=seed))
            for data, (folder, split) in _data(content).items()
            for model, (config, training) in _models(content).items()
            for seed in (dict.fromkeys(seeds) if is_trained(config) else seeds[:1])
        ]
        metrics, baseline = content.get("metrics"), content.get("baseline")
        metrics = [metrics] if isinstance(metrics, str) else metrics
        if metrics is not None and not (isinstance(metrics, list) and all(isinstance(one, str) for one in metrics)):
            raise ConfigError(f"plan: metrics={metrics!r}: expected names of metrics, such as ndcg@10.")
        names = dict.fromkeys(cell.model for cell in cells)
        if baseline is not None and baseline not in names:
            raise ConfigError(f"plan: baseline={baseline!r} is none of the models; {nearest(str(baseline), names)}")
        options = EvaluationSettings.from_dict(_mapping(content.get("evaluation") or {}, "evaluation"))
        return cls(tuple(cells), options, None if metrics is None else tuple(metrics), baseline)


def _mapping(value: Any, part: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"plan: expected {part} as `name: value`, found {value!r}.")
    return {str(name).replace("-", "_"): one for name, one in value.items()}


def _name(name: Any, part: str) -> str:
    """A name that can be a folder."""
    if not isinstance(name, str | int) or not _FOLDER.fullmatch(str(name)):
        raise ConfigError(f"plan: {part}: {name!r} cannot be the name of a folder: leave out / and leading dots.")
    return str(name)


def _split(value: Any, part: str) -> Mapping[str, Any] | None:
    if value is None or (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
        return value
    if isinstance(value, str):
        return {"name": value}
    raise ConfigError(f"plan: {part}: split={value!r}: expected the name of a split, or its settings with a name.")


def _data(content: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any] | None]]:
    """Folder and split of each data set."""
    usual, found = _split(content.get("split"), "split"), {}
    for name, value in content["data"].items():
        part = f"data.{name}"
        if isinstance(value, str):
            value = {"dataset": value}
        options = _mapping(value, part)
        unknown = options.keys() - {"dataset", "split"}
        if unknown or not isinstance(options.get("dataset"), str):
            raise ConfigError(f"plan: {part}: expected the folder of a Dataset as dataset, and perhaps a split.")
        found[_name(name, "data")] = options["dataset"], _split(options.get("split", usual), part)
    return found


def _models(content: Mapping[str, Any]) -> dict[str, tuple[ModelConfig, Training]]:
    """Settings of each model and its training, for each of the settings of the plan."""
    shared = _mapping(content.get("training") or {}, "training")
    common = _mapping(content.get("settings") or {}, "settings")
    found: dict[str, tuple[ModelConfig, Training]] = {}
    for name, value in content["models"].items():
        part = f"models.{name}"
        options = {"model": value} if isinstance(value, str) else _mapping(value, part)
        if not isinstance(options.get("model", name), str):
            raise ConfigError(f"plan: {part}: model={options['model']!r}: expected the name of a model.")
        kind = config_class(options.pop("model", name))
        training = {**shared, **_mapping(options.pop("training", None) or {}, f"{part}.training")}
        own = options.pop("settings", None)
        variants = common if own is None else _mapping(own, f"{part}.settings")
        for variant, changes in variants.items() or [("", {})]:
            where = f"{part}.settings.{variant}" if variant else part
            changed = _mapping(changes, where)
            more = _mapping(changed.pop("training", None) or {}, f"{where}.training")
            full = _name(f"{name}-{variant}" if variant else name, "models")
            try:
                found[full] = kind.from_dict({**options, **changed}), Training.from_dict({**training, **more})
            except (ConfigError, TypeError) as error:
                raise ConfigError(f"plan: {where}: {error}") from None
    return found


@checked_except("plan")
def experiment(
    plan: Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    quiet: bool = True,
    on_cell: Callable[[Cell, Evaluation, int, int], None] | None = None,
) -> Results:
    """Train and evaluate all models of a plan on all data sets with all seeds, and write one table.

    Each cell is an ordinary run in `out/DATA/MODEL/seed-N`, with its evaluation beside it. Cells that are done are
    skipped, and a run that was killed goes on at its last epoch. So the same call finishes an experiment that was
    stopped, and the table is that of an undisturbed one. Several processes may work in one folder at once.

    Parameters
    ----------
    plan
        A YAML file, or its content as a dict:

        - `data`: names with folders of Datasets, or with `dataset` and a `split` of their own;
        - `models`: names with the name of a model, or with `model`, its settings, and `training`;
        - `settings`: further settings by name, each tried with every model; a model may have `settings` of its own;
        - `seeds`: a number or a list. Models without gradient steps have no seed, and are trained once;
        - `split`, `training`, `evaluation` (on, k, candidates, by, users, exclude_seen, seed): the same for all;
        - `metrics` and `baseline`, as of `segue.Results`.
    out
        Folder of the experiment.
    quiet
        Show no progress of the trainings.
    on_cell
        Function that is called after each cell of this call: cell, evaluation, number of cells that are done, and of
        all cells.

    Returns
    -------
    results
        The table, which is also written to `out` as Markdown, LaTeX, CSV, HTML and PNG.

    Raises
    ------
    ConfigError
        The plan is impossible; the message names the part.
    StorageError
        A cell in `out` was made with other settings or data.

    Examples
    --------
    >>> import polars as pl
    >>> rows = range(80)
    >>> log = pl.DataFrame({"user": [n // 4 for n in rows], "item": [n // 4 + n % 4 for n in rows], "time": rows})
    >>> folder = segue.prepare(log, out="shop")
    >>> plan = {"data": {"shop": "shop"}, "models": {"Markov": "markov", "Popularity": "popularity"}}
    >>> results = segue.experiment(plan, "paper")
    >>> results.data, results.models
    (['shop'], ['Markov', 'Popularity'])
    """
    whole = Plan.of(_content(plan))
    place, cells = Path(out), list(whole.cells)
    evaluations: dict[tuple[str, str, int], Evaluation] = {}
    while cells:
        left = []
        for cell in cells:
            evaluation, is_new = _ended(cell, place, whole.evaluation, quiet)
            if evaluation is None:
                left.append(cell)
                continue
            evaluations[cell.data, cell.model, cell.seed] = evaluation
            if is_new and on_cell is not None:
                on_cell(cell, evaluation, len(evaluations), len(whole.cells))
        if len(left) == len(cells):
            time.sleep(_WAIT)  # other processes work on all that is left
        cells = left
    ordered = {key: evaluations[key] for cell in whole.cells for key in [(cell.data, cell.model, cell.seed)]}
    results = Results(ordered, metrics=whole.metrics, baseline=whole.baseline)
    with waiting(lambda: exclusive(place / "results")):  # other processes write the same table
        results.write(place)
    return results


def _content(plan: Any) -> Mapping[str, Any]:
    """The plan as plain data."""
    if isinstance(plan, Mapping):
        return plan
    if not isinstance(plan, str | Path):
        raise ConfigError(f"plan={plan!r}: expected a YAML file, or its content as a dict.")
    import yaml

    try:
        content = yaml.safe_load(Path(plan).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{plan}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{plan}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{plan}: expected the parts of a plan as `name: value`: {', '.join(_PARTS)}.")
    return content


def _ended(cell: Cell, out: Path, options: EvaluationSettings, quiet: bool) -> tuple[Evaluation | None, bool]:
    """The evaluation of a cell, and True if it was made now; None if another process works on the cell."""
    run = cell.place(out)
    file, note = run.with_name(f"{run.name}.json"), run.with_name(f"{run.name}.cell.json")
    run.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(run.with_name(f".{run.name}.in-flight"), run)
    try:
        lock.__enter__()
    except StorageError:
        return None, False
    try:
        _check_same(cell, note, options)
        if file.is_file():
            return Evaluation.load(file), False
        evaluation = _evaluated(cell, run, options, quiet)
        evaluation.save(file)
        return Evaluation.load(file), True  # as a later call reads it
    finally:
        lock.__exit__(None, None, None)


def _check_same(cell: Cell, note: Path, options: EvaluationSettings) -> None:
    """Write down the settings of a cell before it begins, or compare them with what is written there."""
    own = {
        "dataset": cell.dataset,
        "split": cell.split,
        "model": cell.config.to_dict(),
        "training": {name: one for name, one in cell.training.to_dict().items() if not name.startswith("tracker")},
        "evaluation": options.to_dict(),
    }
    own = json.loads(json.dumps(own))
    if not note.is_file():
        write_json(note, own)
        return
    there = read_json(note)
    for name, value in own.items():
        other = there.get(name) if isinstance(there, dict) else None
        if other != value:
            raise StorageError(
                f"{note} tells of a cell with another {name}: {other!r} there, {value!r} in the plan. Remove the "
                "folder of that model, give the model another name, or choose another folder (out=)."
            )


def _evaluated(cell: Cell, run: Path, options: EvaluationSettings, quiet: bool) -> Evaluation:
    """Train the cell, or go on with its training, and evaluate it."""
    dataset = Dataset.open(cell.dataset)
    spec = cell.split or task_of(cell.config).suitable_split(dataset)
    split = split_by(dataset, spec)
    if not (run / "recommender").is_dir():
        training = cell.training
        if training.trackers and training.tracker_run is None:
            training = replace(training, tracker_run=f"{cell.data} {cell.model} {cell.seed}")
        fit(cell.config, split, training=training, out=run, resume=True, quiet=quiet)
    recommender = load(run)
    holdout = split.test if options.on == "test" else split.validation
    return measure(
        recommender,
        holdout,
        EvaluationOptions(
            k=options.k,
            candidates=options.candidates,
            by="popularity" if options.by == "popularity" else "uniform",
            exclude_seen=options.exclude_seen,
            users=options.users,
            seed=options.seed,
            split=str(spec["name"]),
        ),
    )


def summary_of(cell: Cell, evaluation: Evaluation, metrics: Sequence[str] | None = None) -> Iterator[str]:
    """Figures of a cell in words, the first ones that the task shows."""
    names = list(metrics or evaluation.metrics)[:2]
    yield from (f"{name} {evaluation.metrics[name]:.4f}" for name in names if name in evaluation.metrics)
