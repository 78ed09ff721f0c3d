"""`segue train`: fit a model on a Dataset."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segue.cli.main import INTERRUPTED, command_line, import_module
from segue.cli.options import POSITIONAL, OptionParser, peek
from segue.cli.output import note, write_json, write_pairs
from segue.cli.splitting import split_options
from segue.errors import ConfigError

if TYPE_CHECKING:
    from segue.inference.recommender import Recommender

_ALIASES = {"model": "model.name"}
_NOTES = """\
The options of a model are those of the model that is asked for: `segue train --model ssept --help`.
A run is a folder: `recommender` inside it is what the other commands use, `metrics.csv` and `curves.png` show how it
went. Ctrl-C saves the state; the same command with --resume goes on exactly there."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train on, and where the run goes."""

    dataset: str = field(metadata=POSITIONAL)
    """Folder of the Dataset that `segue prepare` wrote."""

    out: str
    """Folder of the run."""

    refit: bool = False
    """After validation has chosen the number of epochs, train again on everything but the test part."""

    resume: bool = False
    """Go on with the run in --out, exactly as if it had never stopped."""

    processes: int = 1
    """Number of processes that share the work, one per device or, on a CPU, a part of the cores each."""

    quiet: bool = False
    """Show no progress."""

    json: bool = False
    """Write the summary as JSON."""


@dataclass(frozen=True)
class ModelOptions:
    """The model."""

    name: str = "sasrec"
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
    if options.processes < 1:
        raise ConfigError(f"--processes: expected 1 or more, found {options.processes}")
    if options.processes > 1 and "RANK" not in os.environ:
        from segue.training.launch import launch

        with _told_how_to_resume(argv):
            return launch(command_line("train", argv), options.processes)

    from segue.data.dataset import Dataset
    from segue.data.splits.registry import split_by
    from segue.training.fit import fit

    is_main = int(os.environ.get("RANK", "0")) == 0
    split = split_by(Dataset.open(options.dataset), splitting.spec())
    with _told_how_to_resume(argv), parser.errors_as_typed():
        recommender = fit(
            model,
            split,
            training=training,
            out=options.out,
            resume=options.resume,
            refit=options.refit,
            quiet=options.quiet or not is_main,
        )
    if is_main:
        _report(recommender, options)
    return 0


def _report(recommender: Recommender, options: TrainOptions) -> None:
    trained = dict(recommender.metadata["training"])
    if options.json:
        write_json({"run": options.out, "model": recommender.model.config.to_dict(), **recommender.metadata})
        return
    found = {f"validation {name}": value for name, value in trained.get("validation", {}).items()}
    shown = {name.replace("_", " "): trained[name] for name in ("epochs", "best_epoch", "seconds") if name in trained}
    write_pairs({"model": recommender.model.config.name, **shown, **found, "run": options.out})
    if getattr(recommender.model.config, "look_back", None) == "reference":
        from segue.evaluation.result import LEAK

        note(f"warning: the model {LEAK}, and those of validation. These figures flatter it.")
    note(f"Next: segue evaluate {shlex.quote(options.out)}")


@contextmanager
def _told_how_to_resume(argv: Sequence[str]) -> Iterator[None]:
    """Ctrl-C within says how to go on with the run."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if "RANK" in os.environ:
            # One of several processes: who started them says it, once, and passes the signal on to those on their way.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(INTERRUPTED) from None
        words = [word for word in argv if word != "--resume"]
        command = shlex.join(command_line("train", [*words, "--resume"]))
        interrupt.add_note(f"Go on where it stopped with\n  {command}")
        raise
