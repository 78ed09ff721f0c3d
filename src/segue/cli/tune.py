"""`segue tune`: search for better settings of a model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segue.cli.main import import_module
from segue.cli.option_types import as_typed
from segue.cli.options import POSITIONAL, OptionParser, peek
from segue.cli.output import console, note, write_json
from segue.cli.splitting import split_options
from segue.cli.workers import run_workers
from segue.errors import ConfigError
from segue.settings import Count, PathText, Positive, Range, Seed, Settings, Word

if TYPE_CHECKING:
    from segue.models.base import ModelConfig
    from segue.training.config import Training

_ALIASES = {"model": "model.name"}
_NOTES = """\
  segue tune data/mine --model ease --trials 30 --storage study.db
  segue tune data/mine --trials 20 --minutes 60 --out searches/wide --search model.width=64,128 model.dropout=0.1:0.5

The first trial has the settings as they are. Settings that are given on the command line stay as given; others are
searched in the usual ranges of the model, or only those of --search. Only validation is looked at. Trials that fall
behind are stopped. The same command goes on where a search was stopped or killed, and several may work at once on one
storage. The folder --out then holds the best run, in `best`, and the picture `tuning.png`."""


@dataclass(frozen=True)
class TuneOptions(Settings):
    """The data, and the search."""

    dataset: PathText = field(metadata=POSITIONAL)
    """Folder of the Dataset that `segue prepare` wrote."""

    out: PathText | None = None
    """Folder of the search and its best run; the name of --storage without its ending when not given."""

    trials: Count = 40
    """Number of trials, over all calls and workers."""

    minutes: Positive | None = None
    """Minutes after which no further trial begins; no limit when not given."""

    storage: PathText | None = None
    """File of an SQLite database with the trials, or address of a database; study.db in --out when not given."""

    study: Word = "segue"
    """Name of the search in the storage."""

    search: tuple[Word, ...] | None = None
    """Settings to search, in place of the usual ones: model.width=32,64 or training.learning_rate=1e-4:1e-2:log."""

    sampler: Literal["tpe", "random"] = "tpe"
    """Choice of the next trial: by the earlier ones (tpe), or at random."""

    prune: bool = True
    """Stop trials that are worse than half of the earlier ones after as many epochs."""

    search_seed: Seed = 0
    """Seed of the search; that of the trainings is --training.seed."""

    processes: Annotated[int, Range(1, 1024)] = 1
    """Number of workers on this machine; each trains one trial at a time with its part of the cores."""

    quiet: bool = False
    """Do not print each trial."""

    json: bool = False
    """Write the summary as JSON."""


@dataclass(frozen=True)
class ModelOptions(Settings):
    """The model."""

    name: Word = "sasrec"
    """Name of the model, or package.module:Class of your own."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    from segue.models.registry import config_class, model_names
    from segue.training.config import Training

    name = peek(argv, "model.name", ModelOptions.name, _ALIASES)
    if ":" in name:
        import_module(name.partition(":")[0])
    config = config_class(name)
    splitting = split_options()
    parser = OptionParser("tune", _NOTES, _ALIASES)
    parser.add_options(TuneOptions)
    parser.add_options(splitting)
    parser.add_options(ModelOptions, under="model", texts={"name": f"Name of the model; {model_names()}."})
    parser.add_options(config, under="model", title=f"Settings of {config.name}")
    parser.add_options(Training, under="training", title="Training")
    parser.read(argv)
    options = parser.get(TuneOptions)
    model, training = parser.get(config), parser.get(Training)
    out = _folder(options)
    if options.processes > 1:
        return run_workers("tune", argv, options.processes, silent="--quiet")

    from segue.data.dataset import Dataset
    from segue.data.splits.registry import split_by
    from segue.evaluation.tasks.task import task_named
    from segue.training.search_space import parsed_space
    from segue.training.tuning import tune

    dataset = Dataset.open(options.dataset)
    chosen = parser.get(splitting)
    usual = {} if chosen.split is not None else task_named(config.task).suitable_split(dataset)
    spec = chosen.spec(usual)
    if chosen.split is None and not options.quiet:
        note(f"split: {spec['name']} (--split names another)")
    with parser.errors_as_typed():
        space: Any = None if options.search is None else parsed_space(options.search)
        space = _usual_space(model, training) if space is None else space
        tuning = tune(
            model,
            split_by(dataset, spec),
            trials=options.trials,
            minutes=options.minutes,
            training=training,
            space=space,
            out=out,
            storage=options.storage,
            study=options.study,
            sampler=options.sampler,
            prune=options.prune,
            seed=options.search_seed,
            on_trial=None if options.quiet else _say,
        )
    if options.json:
        write_json(tuning.to_dict())
        return 0
    console().print(tuning.table(), highlight=False)
    best = shlex.quote(str(tuning.run))
    note(f"wrote {best} and {shlex.quote(str(Path(out) / 'tuning.png'))}\nNext: segue evaluate {best}")
    return 0


def _folder(options: TuneOptions) -> str:
    """Folder of the search.

    Raises
    ------
    ConfigError
        Neither a folder nor a file for the trials is given.
    """
    if options.out is not None:
        return options.out
    if options.storage is None or "://" in options.storage:
        raise ConfigError("segue tune needs --out, the folder of the search, or --storage, a file such as study.db.")
    return str(Path(options.storage).with_suffix("")) + ("-search" if not Path(options.storage).suffix else "")


def _usual_space(config: ModelConfig, training: Training) -> dict[str, Any] | None:
    """The usual settings to search, without those that differ from their defaults; None for all."""
    from segue.training.config import Training
    from segue.training.search_space import space_of, value_of
    from segue.training.tuning import is_trained

    usual = space_of(type(config), is_trained(config))
    defaults = {
        f"{part}.{one.name}": one.default
        for part, owner in (("model", type(config)), ("training", Training))
        for one in fields(owner)
    }
    given = [name for name in usual if value_of(config, training, name) != defaults[name]]
    left = {name: one for name, one in usual.items() if name not in given}
    if given and not left:
        raise ConfigError(f"all settings of {config.name} that are searched are given: name others with --search.")
    return left if given else None


def _say(trial: dict[str, Any]) -> None:
    """Print a line about a trial that has ended."""
    number, state, seconds, settings = (trial.pop(name) for name in ("trial", "state", "seconds", "settings"))
    (metric, value), *_ = trial.items()
    figure = "" if value is None else f"  {metric} {value:.4f}"
    listed = " ".join(
        f"{name.partition('.')[2]}={as_typed(one) if one is not None else 'null'}" for name, one in settings.items()
    )
    note(f"trial {number}  {state}{figure}  {seconds:.1f} s  {listed}")
