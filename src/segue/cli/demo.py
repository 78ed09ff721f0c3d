"""`segue demo`: all of it once, on made data: prepare, train, evaluate, compare, recommend, explain, report."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.cli.options import OptionParser
from segue.cli.output import console, write_table
from segue.errors import ConfigError
from segue.files import write_json

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.data.splits import Split
    from segue.evaluation.report import Example
    from segue.evaluation.result import Evaluation
    from segue.inference.recommender import Recommender

_MARK = "demo.json"
_SHOWN = 3
"""Users shown, items recommended to each, and reasons for each item."""


@dataclass(frozen=True)
class DemoOptions:
    """The made shop, and how long to train."""

    out: str = "demo"
    """Folder for everything that the demo leaves."""

    users: int = 2000
    """Customers of the shop."""

    items: int = 500
    """Items of the shop."""

    epochs: int = 25
    """Most passes of SASRec over the data."""

    seed: int = 0
    """Seed of the shop, the training and the resamples."""

    quiet: bool = False
    """Show no progress of the training."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("demo", "The same steps with your own file are printed at the end.")
    parser.add_options(DemoOptions)
    parser.read(argv)
    options = parser.get(DemoOptions)
    out = _clean(Path(options.out))
    write_json(out / _MARK, asdict(options))

    dataset, picture = _prepare(out, options)
    from segue.data.splits import leave_last_out

    split = leave_last_out(dataset)
    with _one_thread():
        fitted = _train(out, split, options)
        evaluations = _evaluate(fitted, split, options)
        examples = _recommend(fitted["sasrec"], split)
    report = _report(out, dataset, picture, fitted, evaluations, examples)
    _farewell(out, report)
    return 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: more only wait for each other over tensors this small, for minutes where the machine is busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _clean(out: Path) -> Path:
    """The folder, without the runs of an earlier demo.

    Raises
    ------
    ConfigError
        The folder holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file())):
        raise ConfigError(f"{out} exists and was not made by segue demo: choose another folder with --out.")
    shutil.rmtree(out / "runs", ignore_errors=True)
    return out


def _prepare(out: Path, options: DemoOptions) -> tuple[Dataset, Path]:
    """Make the log, and of the log a Dataset and a picture of it."""
    from segue.data.prepare import prepare
    from segue.data.simulate import simulate
    from segue.data.statistics import describe

    _say(f"A made shop: {options.users:,} customers with tastes and habits, {options.items:,} items.")
    log = simulate(options.users, options.items, options.seed).log
    out.mkdir(parents=True, exist_ok=True)
    log.write_csv(out / "shop.csv")
    dataset = prepare(log, out=out / "data")
    facts = describe(dataset)
    _tell(f"{facts.interactions:,} interactions; half of the histories hold {facts.lengths.median:.0f} or more.")
    _tell("The last interaction of each customer is the test, the last but one chooses the epoch of SASRec.")
    return dataset, facts.picture(out / "data.png")


def _train(out: Path, split: Split, options: DemoOptions) -> dict[str, Recommender]:
    """Fit the baselines and SASRec."""
    from segue.models.markov import Markov
    from segue.models.popularity import Popularity, RecentPopularity
    from segue.models.sasrec import SASRec
    from segue.training.config import Training
    from segue.training.fit import fit

    _say("Training: three baselines that count, and SASRec, which learns.")
    training = Training(
        epochs=options.epochs,
        batch_size=32,
        learning_rate=3e-3,
        warmup_steps=50,
        validate_every=2,
        patience=3,
        seed=options.seed,
    )
    configs = (Popularity(), RecentPopularity(), Markov(), SASRec(max_length=30, dropout=0.2, loss="softmax"))
    return {
        config.name: fit(config, split, training=training, out=out / "runs" / config.name, quiet=options.quiet)
        for config in configs
    }


def _evaluate(fitted: Mapping[str, Recommender], split: Split, options: DemoOptions) -> dict[str, Evaluation]:
    """Measure all models on the test, and test whether SASRec differs from the best baseline."""
    from segue.evaluation.compare import compare
    from segue.evaluation.evaluate import evaluate

    _say("The test: where is the item that came next, among all items?")
    found = {name: evaluate(model, split.test, k=10, seed=options.seed) for name, model in fitted.items()}
    columns = ("ndcg@10", "hr@10", "mrr@10", "coverage@10")
    rows = []
    for name, evaluation in found.items():
        low, high = evaluation.intervals["ndcg@10"]
        rows.append((name, *(evaluation[column] for column in columns), f"{low:.3f} to {high:.3f}"))
    write_table(("model", *columns, "95 % interval of ndcg@10"), rows)
    best = max((name for name in found if name != "sasrec"), key=lambda name: found[name]["ndcg@10"])
    row = compare(found[best], found["sasrec"], metric="ndcg@10", seed=options.seed)["ndcg@10"]
    _tell(
        f"SASRec against {best}: {row.difference:+.4f} ndcg@10, 95 % interval {row.low:+.4f} to {row.high:+.4f} "
        f"on the same customers, p = {row.p_value:.4f}."
    )
    return found


def _recommend(recommender: Recommender, split: Split) -> list[Example]:
    """Recommendations with their reasons for some users of the test."""
    from segue.evaluation.report import Example, Suggestion

    _say("What comes next, and why: for three customers, as of today.")
    users = split.test.dataset.users.decode(split.test.users[:_SHOWN]).to_list()
    lists = recommender.recommend(users, k=_SHOWN)
    reasons = recommender.explain(lists["user"], lists["item"], top=_SHOWN)
    frame = recommender.dataset.to_frame()
    examples = []
    for user in users:
        history = frame.filter(frame["user"] == user)["item"].to_list()[-8:]
        suggestions = []
        for row in lists.filter(lists["user"] == user).to_dicts():
            why = reasons.filter((reasons["user"] == user) & (reasons["item"] == row["item"]))
            pairs = list(zip(why["because"].to_list(), why["effect"].to_list(), strict=True))
            suggestions.append(Suggestion(row["item"], row["score"], pairs))
        examples.append(Example(user, history, suggestions))
    for example in examples:
        _tell(f"{example.user}, who took … {', '.join(example.history)}:")
        for suggestion in example.suggestions:
            because = ", ".join(f"{item} ({effect:+.2f})" for item, effect in suggestion.reasons)
            _tell(f"  {suggestion.item:<14} because of {because}")
    return examples


def _report(
    out: Path,
    dataset: Dataset,
    picture: Path,
    fitted: Mapping[str, Recommender],
    evaluations: Mapping[str, Evaluation],
    examples: Sequence[Example],
) -> Path:
    """Write the page, and return where it is."""
    import platform
    from importlib.metadata import version

    from segue.data.statistics import describe
    from segue.evaluation.compare import compare
    from segue.evaluation.report import write_report

    settings: dict[str, dict[str, Any]] = {name: model.model.config.to_dict() for name, model in fitted.items()}
    others = [name for name in evaluations if name != "sasrec"]
    return write_report(
        out / "report.html",
        title="segue demo: a made shop",
        evaluations=evaluations,
        comparisons=[compare(evaluations[name], evaluations["sasrec"], metric="ndcg@10") for name in others],
        data=describe(dataset).to_dict(),
        data_picture=picture,
        curves={"sasrec": out / "runs" / "sasrec" / "curves.png"},
        examples=examples,
        settings=settings,
        versions={"segue": version("segue"), "torch": version("torch"), "Python": platform.python_version()},
    )


def _farewell(out: Path, report: Path) -> None:
    """Say where the report is, and how to go on with one's own file."""
    _say(f"Report, with curves, intervals and reasons: {report.resolve()}")
    _say("The same with your own file (columns for user, item and time are found by their names):")
    run = shlex.quote(str(out / "runs" / "sasrec"))
    for line in (
        "segue prepare ratings.csv --out data/mine --k-core 5",
        "segue train data/mine --model sasrec --out runs/first",
        "segue evaluate runs/first",
        f"segue recommend {run} --users user-0001      (or try it on the demo's run first)",
    ):
        _tell(f"  {line}")


def _say(heading: str) -> None:
    console().print(f"\n{heading}", style="bold", highlight=False, markup=False, soft_wrap=True)
    sys.stdout.flush()


def _tell(line: str) -> None:
    console().print(line, highlight=False, markup=False, soft_wrap=True)
