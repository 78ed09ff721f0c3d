"""`segue train`: fit a model on a Dataset."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segue.cli.main import INTERRUPTED, command_line, import_module
from segue.cli.option_types import as_typed
from segue.cli.options import POSITIONAL, OptionParser, peek
from segue.cli.output import note, write_json, write_pairs
from segue.cli.splitting import SplitOptions, split_options
from segue.engines.engine import Engine
from segue.errors import ConfigError
from segue.settings import Count, PathText, Range, Settings, Word

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.inference.recommender import Recommender
    from segue.models.base import ModelConfig
    from segue.models.suited import Suggestion
    from segue.training.resuming import FormerRun

_YES = ("True", "true")
_ALIASES = {"model": "model.name"}
_NOTES = """\
Each model has its own options: `segue train --model ssept --help`.
A run is a folder. The other commands use its `recommender`; `metrics.csv` and `curves.png` show the course of the
training. Ctrl-C and SIGTERM save the state, and `segue train --resume RUN` continues exactly there. A run that was not
finished can be used too, with its best weights so far.

If no model is named and the data are baskets of people who repeat themselves, a model that counts repeats is trained,
and the last baskets are held out. The command says so; --model names another."""


@dataclass(frozen=True)
class TrainOptions(Settings):
    """The data, and the folder of the run."""

    dataset: PathText = field(metadata=POSITIONAL)
    """Folder of the Dataset that `segue prepare` wrote. With --resume and without --out, the run to continue."""

    out: PathText | None = None
    """Folder of the run; needed, except with --resume."""

    as_published: bool = False
    """Take the published setting of the model and of its training, for models of a paper with one: sasrec, ssept,
    gru4rec, hstu, bert4rec, lrurec, parsrec and arerec. Options that are given win."""

    refit: bool = False
    """After validation has chosen the number of epochs, train again on everything but the test part."""

    start: PathText | None = None
    """Run to start from: its weights are taken over by raw id, and its settings, split and options of the training are
    the defaults. The optimizer is new, unless --training.start-optimizer continues it."""

    resume: bool = False
    """Continue a run, exactly as if it had never stopped: `segue train --resume RUN`. Options that are not given stay
    as they were."""

    from_epoch: Count | None = None
    """With --resume: go back to the state after this epoch; --training.keep-every keeps them."""

    overwrite: bool = False
    """Replace a run in --out. Anything else that is there is refused, and nothing foreign is deleted."""

    processes: Annotated[int, Range(1, 1024)] = 1
    """Number of processes that share the work: one per device or, on a CPU, each with a part of the cores."""

    engine: Literal["processes", "ray"] = "processes"
    """Processes of this machine, or workers of a Ray cluster (segue[ray]): a worker that dies ends in a resume from the
    last state. All nodes must see the Dataset and --out at the same paths."""

    address: Word | None = None
    """Address of a running Ray cluster (host:port), or auto for the one on this machine; when not given, a cluster of
    this machine alone is started."""

    quiet: bool = False
    """Show no progress."""

    json: bool = False
    """Write the summary as JSON."""

    def check(self) -> None:
        """Raise a ConfigError if an address is given without Ray."""
        Engine(self.engine, self.processes, self.address)


@dataclass(frozen=True)
class ModelOptions(Settings):
    """The model."""

    name: Word = "sasrec"
    """Name of the model, or package.module:Class of your own. When not given, sasrec, or the one that suits baskets."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    from segue.models.registry import model_names
    from segue.training.config import Training

    split_group = split_options()
    run = _run_to_resume(argv)
    former = None if run is None else _former_run(run)
    base = former or _run_to_start_from(argv)
    suggestion = _suggestion(argv) if base is None else None
    config = _config_class(argv, base, suggestion)
    parser = OptionParser("train", _NOTES, _ALIASES)
    parser.add_options(TrainOptions, texts=_published_help(config))
    parser.add_options(split_group)
    names = f"Name of the model; {model_names()}. Or a model of your own, as package.module:Class."
    parser.add_options(ModelOptions, under="model", texts={"name": names})
    parser.add_options(config, under="model", title=f"Settings of {config.name}")
    parser.add_options(Training, under="training", title="Training")
    as_published = _is_on(argv, "as_published") and former is None
    preset = _published(config) if as_published else _as_options(base, config, resumes=former is not None)
    if suggestion is not None and suggestion.model is not None:
        preset = {**preset, "model": {"name": suggestion.model}}
    parser.read(argv, preset)
    options, splitting = parser.get(TrainOptions), parser.get(split_group)
    model, training = parser.get(config), parser.get(Training)
    if options.out is None and not options.resume:
        raise ConfigError("segue train needs --out, the folder of the run.\n`segue train --help` lists the options.")
    if options.from_epoch is not None and not options.resume:
        raise ConfigError("--from-epoch goes with --resume.")
    folder = options.out or options.dataset
    if options.out is None and former is None:
        _former_run(Path(folder))  # it says what is missing
    if options.engine == "ray" and "RANK" not in os.environ:
        return _train_on_ray(argv, options, folder, training.cpu)
    if options.processes > 1 and "RANK" not in os.environ:
        from segue.training.launch import launch

        with _resume_hint(folder):
            return launch(command_line("train", argv), options.processes)

    from segue.data.dataset import Dataset
    from segue.data.splits.registry import split_by
    from segue.inference.unfinished import dataset_of_run
    from segue.training.fit import fit

    is_main = int(os.environ.get("RANK", "0")) == 0
    dataset = dataset_of_run(Path(folder)) if options.out is None else Dataset.open(options.dataset)
    spec = splitting.spec(_usual_split(config, dataset, base, splitting, suggestion))
    if is_main and base is None:
        _say_defaults(spec, splitting, dataset, config, suggestion)
    split = split_by(dataset, spec)
    with _resume_hint(folder), parser.errors_as_typed():
        recommender = fit(
            model,
            split,
            training=training,
            out=folder,
            resume=options.resume,
            from_epoch=options.from_epoch,
            refit=options.refit,
            start=options.start,
            overwrite=options.overwrite or None,
            quiet=options.quiet or not is_main,
        )
    if is_main:
        _report(recommender, options, folder)
    return 0


def _train_on_ray(argv: Sequence[str], options: TrainOptions, folder: str, cpu: bool) -> int:
    """Train in the workers of a Ray cluster, report, and return the exit code."""
    from segue.inference.loading import load
    from segue.training.ray_launch import launch_on_ray
    from segue.training.run_manifest import begin_run, run_folder

    run = Path(folder)
    with run_folder(run, options.resume, options.overwrite or None):
        if not options.resume:
            begin_run(run, resume=False)  # what the workers find there later is theirs
    engine = Engine(options.engine, options.processes, options.address)
    if not options.quiet:
        note(f"training in {options.processes} workers of Ray; {run / 'metrics.csv'} gets a line per epoch")
    with _resume_hint(folder):
        launch_on_ray(partial(_work, tuple(argv)), run, engine, cpu)
    _report(load(run), options, folder)
    return 0


def _work(argv: Sequence[str], resume: bool) -> None:
    """Train in one worker of Ray, which has its rank in the environment."""
    words = [word for word in argv if not resume or word.replace("_", "-").partition("=")[0] != "--overwrite"]
    if resume and not _is_on(words, "resume"):
        words.append("--resume")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        main([*words, "--quiet"])


def _run_to_resume(argv: Sequence[str]) -> Path | None:
    """Folder of the run to resume; None if there is none to resume, or if it was not begun."""
    if not _is_on(argv, "resume"):
        return None
    out = peek(argv, "out", "")
    folders = [out] if out else [*(word for word in argv if not word.startswith("--")), peek(argv, "dataset", "")]
    return next((Path(one) for one in folders if one and (Path(one) / "run.json").is_file()), None)


def _former_run(run: Path) -> FormerRun:
    """Settings of a run; a StorageError if it is none. It loads all of training, which `--help` does not need."""
    from segue.training.resuming import former_run

    return former_run(run)


def _run_to_start_from(argv: Sequence[str]) -> FormerRun | None:
    """Settings of the run that --start names; None without one, and for a Recommender that is no run."""
    start = peek(argv, "start", "")
    return _former_run(Path(start)) if start and (Path(start) / "run.json").is_file() else None


def _suggestion(argv: Sequence[str]) -> Suggestion | None:
    """Model and split that suit the Dataset; None if the usual ones do, or if a model or a setting of it is given."""
    from segue.cli.configfile import flat, read_config
    from segue.data.dataset import Dataset, folder_has_sessions
    from segue.models.suited import suggestion_for_dataset

    typed = [word.lstrip("-").replace("-", "_") for word in argv if word.startswith("--")]
    config = peek(argv, "config", "")
    typed += flat(read_config(config, _ALIASES)) if config else ()
    if any(name.partition("=")[0].partition(".")[0] in ("model", "as_published", "help") for name in typed):
        return None
    folders = [*(word for word in argv if not word.startswith("--")), peek(argv, "dataset", "")]
    folder = next((one for one in folders if one and folder_has_sessions(Path(one))), None)
    return None if folder is None else suggestion_for_dataset(Dataset.open(folder))


def _config_class(
    argv: Sequence[str], former: FormerRun | None, suggestion: Suggestion | None = None
) -> type[ModelConfig]:
    """Class of the model that is named; of the run to resume, or of the suggestion, if none is."""
    from segue.models.registry import config_class

    usual = ModelOptions.name if former is None else former.config.name
    usual = usual if suggestion is None or suggestion.model is None else suggestion.model
    name = peek(argv, "model.name", usual, _ALIASES)
    if former is not None and name == former.config.name:
        return type(former.config)
    if ":" in name:
        import_module(name.partition(":")[0])
    return config_class(name)


def _is_on(argv: Sequence[str], name: str) -> bool:
    """Check that a switch is on, on the command line or in a configuration file."""
    typed = f"--{name.replace('_', '-')}"
    return any(word.replace("_", "-") in (typed, f"{typed}=true") for word in argv) or peek(argv, name, "") in _YES


def _published_help(config: type[ModelConfig]) -> dict[str, str]:
    """Help of --as-published, with the options that it stands for."""
    try:
        published = config.as_published()
    except ConfigError:
        return {"as_published": f"Take the published setting of a model. {config.name} has none."}
    usual = config()
    model = {f"model.{name}": value for name, value in published.to_dict().items() if value != usual.to_dict()[name]}
    flags = model | {f"training.{name}": value for name, value in config.published_training.items()}
    listed = " ".join(f"--{name.replace('_', '-')} {as_typed(value)}" for name, value in flags.items())
    return {
        "as_published": "Take the published setting of the model and of its training; options that are given win. "
        f"For {config.name}: {listed}."
    }


def _published(config: type[ModelConfig]) -> dict[str, Any]:
    """Published setting of a model and of its training, as options."""
    model = config.as_published().to_dict()
    model.pop("class", None)
    return {"model": model, "training": dict(config.published_training)}


def _as_options(former: FormerRun | None, config: type[ModelConfig], *, resumes: bool) -> dict[str, Any]:
    """Settings of the run to resume, or to start from, as options; none without one.

    A training that starts from a run leaves to its own data what that one left to the data.
    """
    if former is None:
        return {}
    settings = former.config if resumes else former.given
    model = settings.to_dict() if type(settings) is config else {}
    model.pop("class", None)
    common = {"refit": former.refit, "processes": former.processes, "training": former.training.to_dict()}
    return {**common, "model": model} if model else common


def _usual_split(
    config: type[ModelConfig],
    dataset: Dataset,
    former: FormerRun | None,
    splitting: SplitOptions,
    suggestion: Suggestion | None,
) -> Mapping[str, Any]:
    """The split to take if none is named: of the run to resume, of the suggestion, or of the model's task."""
    if splitting.split is not None:
        return {}
    if suggestion is not None and suggestion.model is not None:
        return {"name": suggestion.split}
    from segue.evaluation.tasks.task import task_named

    if former is None:
        return task_named(config.task).suitable_split(dataset)
    if former.split is None:
        raise ConfigError("the run was trained in Python, without a split: continue it with segue.resume(run).")
    return former.split


def _say_defaults(
    spec: Mapping[str, Any],
    splitting: SplitOptions,
    dataset: Dataset,
    config: type[ModelConfig],
    suggestion: Suggestion | None,
) -> None:
    """Print the model and the split that were taken without being named, and a better split for baskets."""
    from segue.models.suited import suggestion_for_dataset

    if suggestion is not None and suggestion.model is not None:
        note(f"model: {config.name}, for {suggestion.reason} (--model names another)")
    if splitting.split is not None:
        return
    note(f"split: {spec['name']} (--split names another)")
    other = suggestion or suggestion_for_dataset(dataset)
    if other is not None and spec["name"] != other.split:
        note(f"The data are {other.reason}. --split {other.split} holds out whole baskets.")


def _report(recommender: Recommender, options: TrainOptions, folder: str) -> None:
    training = dict(recommender.metadata["training"])
    if options.json:
        write_json({"run": folder, "model": recommender.model.config.to_dict(), **recommender.metadata})
        return
    metrics = {f"validation {name}": value for name, value in training.get("validation", {}).items()}
    names = [name for name in ("epochs", "best_epoch", "seconds") if name in training]
    figures = {name.replace("_", " "): training[name] for name in names}
    write_pairs({"model": recommender.model.config.name, **figures, **metrics, "run": folder})
    from segue.evaluation.questions import look_back_of
    from segue.evaluation.tasks.result import warning_of

    warning = warning_of(look_back_of(recommender.model))
    if warning is not None:
        note(f"warning: the model {warning}, and those of validation. These figures flatter it.")
    note(f"Next: segue evaluate {shlex.quote(folder)}")


@contextmanager
def _resume_hint(folder: str) -> Iterator[None]:
    """Add to a Ctrl-C or SIGTERM within the command that continues the run."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if "RANK" in os.environ:
            # One of several processes: the launcher prints the hint once, and passes the signal on.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise SystemExit(INTERRUPTED) from None
        command = shlex.join(command_line("train", ["--resume", folder]))
        interrupt.add_note(f"Go on where it stopped with\n  {command}")
        raise
