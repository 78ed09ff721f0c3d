"""`segue train`: fit a model on a Dataset."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from segue.cli.main import INTERRUPTED, command_line, import_module
from segue.cli.options import POSITIONAL, OptionParser, peek
from segue.cli.output import note, write_json, write_pairs
from segue.cli.splitting import SplitOptions, split_options
from segue.settings import PathText, Range, Settings, Word

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.inference.recommender import Recommender
    from segue.models.base import ModelConfig

_ALIASES = {"model": "model.name"}
_NOTES = """\
Each model has its own options: `segue train --model ssept --help`.
A run is a folder. The other commands use its `recommender`; `metrics.csv` and `curves.png` show the course of the
training. Ctrl-C and SIGTERM save the state; the same command with --resume continues exactly there."""


@dataclass(frozen=True)
class TrainOptions(Settings):
    """The data, and the folder of the run."""

    dataset: PathText = field(metadata=POSITIONAL)
    """Folder of the Dataset that `segue prepare` wrote."""

    out: PathText
    """Folder of the run."""

    refit: bool = False
    """After validation has chosen the number of epochs, train again on everything but the test part."""

    resume: bool = False
    """Continue the run in --out, exactly as if it had never stopped."""

    overwrite: bool = False
    """Replace a run in --out. Anything else that is there is refused, and nothing foreign is deleted."""

    processes: Annotated[int, Range(1, 1024)] = 1
    """Number of processes that share the work: one per device or, on a CPU, each with a part of the cores."""

    quiet: bool = False
    """Show no progress."""

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
    split_group = split_options()
    parser = OptionParser("train", _NOTES, _ALIASES)
    parser.add_options(TrainOptions)
    parser.add_options(split_group)
    names = f"Name of the model; {model_names()}. Or a model of your own, as package.module:Class."
    parser.add_options(ModelOptions, under="model", texts={"name": names})
    parser.add_options(config, under="model", title=f"Settings of {config.name}")
    parser.add_options(Training, under="training", title="Training")
    parser.read(argv)
    options, splitting = parser.get(TrainOptions), parser.get(split_group)
    model, training = parser.get(config), parser.get(Training)
    if options.processes > 1 and "RANK" not in os.environ:
        from segue.training.launch import launch

        with _resume_hint(argv):
            return launch(command_line("train", argv), options.processes)

    from segue.data.dataset import Dataset
    from segue.data.splits.registry import split_by
    from segue.training.fit import fit

    is_main = int(os.environ.get("RANK", "0")) == 0
    dataset = Dataset.open(options.dataset)
    spec = splitting.spec(_usual_split(config, dataset, options, splitting))
    if is_main and splitting.split is None and not options.resume:
        note(f"split: {spec['name']} (--split names another)")
    split = split_by(dataset, spec)
    with _resume_hint(argv), parser.errors_as_typed():
        recommender = fit(
            model,
            split,
            training=training,
            out=options.out,
            resume=options.resume,
            refit=options.refit,
            overwrite=options.overwrite or None,
            quiet=options.quiet or not is_main,
        )
    if is_main:
        _report(recommender, options)
    return 0


def _usual_split(
    config: type[ModelConfig], dataset: Dataset, options: TrainOptions, splitting: SplitOptions
) -> Mapping[str, Any]:
    """The split to take if none is named: that of the run to resume, or the one that suits the model's task."""
    if splitting.split is not None:
        return {}
    from segue.evaluation.tasks.task import task_named
    from segue.training.run_manifest import read_run

    split = read_run(Path(options.out)).get("split") if options.resume else None
    if split is not None:
        return dict(split)
    return task_named(config.task).suitable_split(dataset)


def _report(recommender: Recommender, options: TrainOptions) -> None:
    training = dict(recommender.metadata["training"])
    if options.json:
        write_json({"run": options.out, "model": recommender.model.config.to_dict(), **recommender.metadata})
        return
    metrics = {f"validation {name}": value for name, value in training.get("validation", {}).items()}
    names = [name for name in ("epochs", "best_epoch", "seconds") if name in training]
    figures = {name.replace("_", " "): training[name] for name in names}
    write_pairs({"model": recommender.model.config.name, **figures, **metrics, "run": options.out})
    from segue.evaluation.questions import look_back_of
    from segue.evaluation.tasks.result import warning_of

    warning = warning_of(look_back_of(recommender.model))
    if warning is not None:
        note(f"warning: the model {warning}, and those of validation. These figures flatter it.")
    note(f"Next: segue evaluate {shlex.quote(options.out)}")


@contextmanager
def _resume_hint(argv: Sequence[str]) -> Iterator[None]:
    """Add to a Ctrl-C or SIGTERM within the command that continues the run."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if "RANK" in os.environ:
            # One of several processes: the launcher prints the hint once, and passes the signal on.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise SystemExit(INTERRUPTED) from None
        words = [word for word in argv if word not in ("--resume", "--overwrite")]
        command = shlex.join(command_line("train", [*words, "--resume"]))
        interrupt.add_note(f"Go on where it stopped with\n  {command}")
        raise
