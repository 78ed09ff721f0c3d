"""`segue demo`: the whole library once, on simulated data: prepare, train, evaluate, compare, explain, report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.cli.options import OptionParser
from segue.cli.output import console, write_table
from segue.settings import Count, PathText, Seed, Settings

if TYPE_CHECKING:
    from segue.evaluation.compare import Comparison
    from segue.evaluation.report.examples import Example
    from segue.evaluation.tasks.result import Evaluation

_MORE_METRICS = ("recall@10", "repeat_recall@10", "explore_recall@10", "hr@10")
"""Metrics in the table, besides the one of the comparisons."""


@dataclass(frozen=True)
class DemoOptions(Settings):
    """The simulated shop, and the training."""

    out: PathText = "demo"
    """Folder for all output of the demo."""

    users: Count = 600
    """Number of customers."""

    sessions: Count = 12
    """Number of visits of each, one a week."""

    products: Count = 15
    """Number of items in each of the 20 categories."""

    epochs: Count = 14
    """Largest number of passes of SASRec over the data."""

    seed: Seed = 0
    """Seed of the shop, the training and the resamples."""

    quiet: bool = False
    """Show no progress of the training."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("demo", "The same steps with your own file are printed at the end.")
    parser.add_options(DemoOptions)
    parser.read(argv)
    options = parser.get(DemoOptions)

    from segue.data.splits.by_user import last_session_out
    from segue.data.statistics.describe import describe
    from segue.demo import LEARNT, Demo, suited_config

    demo = Demo(Path(options.out), options.users, options.sessions, options.products, options.epochs, options.seed)
    _say(f"A simulated shop: {options.users:,} customers with tastes and habits, {20 * options.products:,} items.")
    dataset = demo.prepare()
    summary = describe(dataset)
    _tell(f"{summary.interactions:,} interactions; half of the histories hold {summary.lengths.median:.0f} or more.")
    _tell("The last visit of each customer is the test; the last but one chooses the epoch of SASRec.")

    split = last_session_out(dataset)
    suited = [config.name for config in suited_config(split.train)]
    names = ["popularity", "recent-popularity", "markov", *suited]
    _say(f"Training: counting models ({', '.join(names)}), and SASRec, which learns.")
    fitted = demo.train(split, quiet=options.quiet)

    _say("Test: the ranks of the items of the last visit, among all items.")
    _tell("Customers buy again what they like, so items of the history stay in the ranking.")
    _tell("repeat_ and explore_ are the parts of a visit that the customer took before, and those that are new.")
    evaluations = demo.evaluate(fitted, split)
    comparisons = demo.compare(evaluations)
    _show_results(evaluations, comparisons[0])

    _say("Recommendations with reasons, for three customers, as of today.")
    examples = demo.explain(fitted[LEARNT], split)
    for example in examples:
        _show_example(example)
    _farewell(demo.out, demo.report(fitted, evaluations, comparisons, examples))
    return 0


def _show_results(evaluations: Mapping[str, Evaluation], best: Comparison) -> None:
    """Print the figures of all models, and the comparison of SASRec with the best counting model."""
    from segue.demo import METRIC

    metrics = (METRIC, *_MORE_METRICS)
    rows = []
    for name, evaluation in evaluations.items():
        low, high = evaluation.intervals[METRIC]
        rows.append((name, *(evaluation[metric] for metric in metrics), f"{low:.3f} to {high:.3f}"))
    write_table(("model", *metrics, f"95 % interval of {METRIC}"), rows)
    row = best[METRIC]
    _tell(
        f"SASRec against {best.a}: {row.difference:+.4f} {METRIC}, 95 % interval {row.low:+.4f} to {row.high:+.4f} "
        f"on the same customers, p = {row.p_value:.4f}."
    )


def _show_example(example: Example) -> None:
    """Print the recommendations for one customer."""
    earlier = f"{', '.join(example.earlier)} … " if example.earlier else ""
    _tell(f"{example.user}, who took … {earlier}{', '.join(example.history)}:")
    for suggestion in example.suggestions:
        because = ", ".join(f"{item} ({effect:+.2f})" for item, effect in suggestion.reasons)
        _tell(f"  {suggestion.item:<14} {f'because of {because}' if because else ''}".rstrip())


def _farewell(out: Path, report: Path) -> None:
    """Print the path of the report, and the commands for a file of one's own."""
    _say(f"Report, with curves, intervals and reasons: {report.resolve()}")
    _say("The same with your own file (columns for user, item and time are found by their names):")
    run = shlex.quote(str(out / "runs" / "sasrec"))
    for line in (
        "segue prepare ratings.csv --out data/mine --k-core 5",
        "segue train data/mine --model sasrec --out runs/first",
        "segue evaluate runs/first --report first.html",
        f"segue recommend {run} --users user-0001      (or try it on the demo's run first)",
    ):
        _tell(f"  {line}")


def _say(heading: str) -> None:
    console().print(f"\n{heading}", style="bold", highlight=False, markup=False, soft_wrap=True)
    sys.stdout.flush()


def _tell(line: str) -> None:
    console().print(line, highlight=False, markup=False, soft_wrap=True)
