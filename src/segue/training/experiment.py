"""`segue.experiment`: models × data sets × settings × seeds, each cell an ordinary run, and one table at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from segue.arguments import checked_except
from segue.data.dataset import Dataset
from segue.data.splits.registry import split_by
from segue.engines.engine import Engine
from segue.engines.workers import workers
from segue.errors import StorageError
from segue.evaluation.results import Results
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, measure, task_of
from segue.files import exclusive, read_json, write_json
from segue.inference.loading import load
from segue.locks import locked, waiting
from segue.training.fit import fit
from segue.training.plan import Cell, EvaluationSettings, Plan, content_of

_WAIT = 0.2
"""Seconds between looks at cells that other processes work on."""


@checked_except("plan")
def experiment(
    plan: Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    engine: Engine | None = None,
    quiet: bool = True,
    on_cell: Callable[[Cell, Evaluation, int, int], None] | None = None,
) -> Results:
    """Train and evaluate all models of a plan on all data sets with all seeds, and write one table.

    Each cell is an ordinary run in `out/DATA/MODEL/seed-N`, with its evaluation beside it. Cells that are done are
    skipped, and a run that was killed goes on at its last epoch. So the same call finishes an experiment that was
    stopped, and the table is that of an undisturbed one. Several processes may work in one folder at once.

    Workers of an engine train one cell each at a time. A worker that dies costs no more than the epoch in flight:
    another one goes on with its cell.

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
    engine
        Workers that train and evaluate the cells, such as `segue.Engine(processes=4)`; this process when None. Those of
        a Ray cluster must see the Datasets and `out` at the same paths. The table is the same.
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
    EngineError
        The cluster does not answer, or a cell cost three workers.

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
    whole = Plan.of(content_of(plan))
    place = Path(out)
    cells = {cell.place(place): cell for cell in whole.cells}
    evaluations: dict[tuple[str, str, int], Evaluation] = {}
    finish = partial(_finish, options=whole.evaluation, quiet=quiet)
    with workers(engine or Engine(), partial(_enter, Path.cwd(), cells)) as crew:
        runs = list(cells)
        while runs:
            left = []
            for number, is_new in crew.run(finish, runs):
                run = runs[number]
                if is_new is None:
                    left.append(run)
                    continue
                cell, evaluation = cells[run], Evaluation.load(_files(run)[0])
                evaluations[cell.data, cell.model, cell.seed] = evaluation
                if is_new and on_cell is not None:
                    on_cell(cell, evaluation, len(evaluations), len(cells))
            if len(left) == len(runs):
                time.sleep(_WAIT)  # other programs work on all that is left
            runs = left
    ordered = {key: evaluations[key] for cell in whole.cells for key in [(cell.data, cell.model, cell.seed)]}
    results = Results(ordered, metrics=whole.metrics, baseline=whole.baseline)
    with waiting(lambda: exclusive(place / "results")):  # other processes write the same table
        results.write(place)
    return results


def _enter(folder: Path, cells: Mapping[Path, Cell]) -> Mapping[Path, Cell]:
    """State of a worker: the cells by the folder of their run. Relative paths start where the experiment began."""
    if folder.is_dir():
        os.chdir(folder)
    return cells


def _files(run: Path) -> tuple[Path, Path]:
    """File of the evaluation of a cell, and that of the note on its settings."""
    return run.with_name(f"{run.name}.json"), run.with_name(f"{run.name}.cell.json")


def _finish(cells: Mapping[Path, Cell], run: Path, *, options: EvaluationSettings, quiet: bool) -> bool | None:
    """Train and evaluate a cell in a worker.

    Returns
    -------
    is_new
        True if the evaluation was made now, False if it was there, and None if another program works on the cell.
    """
    file, note = _files(run)
    run.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(run.with_name(f".{run.name}.in-flight"), run)
    try:
        lock.__enter__()
    except StorageError:
        return None
    try:
        _check_same(cells[run], note, options)
        if file.is_file():
            return False
        _evaluated(cells[run], run, options, quiet).save(file)
        return True
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
