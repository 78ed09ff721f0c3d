"""Steps of `segue demo`: the whole library once, on simulated data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from segue.data.dataset import Dataset
from segue.data.preparing.prepare import prepare
from segue.data.simulation.simulate import simulate, truth_beside
from segue.data.splits.by_user import Split
from segue.errors import ConfigError
from segue.evaluation.compare import Comparison, compare
from segue.evaluation.report.examples import Example, examples_of
from segue.evaluation.report.runs import report_runs
from segue.evaluation.tasks.baskets import evaluate_baskets
from segue.evaluation.tasks.next_items import NextItems
from segue.evaluation.tasks.result import Evaluation
from segue.files import write_json
from segue.inference.recommender import Recommender
from segue.models.base import ModelConfig
from segue.models.markov import Markov
from segue.models.popularity import Popularity, RecentPopularity
from segue.models.registry import config_class
from segue.models.sasrec import SASRec
from segue.models.suited import suggestion_for_dataset
from segue.training.config import Training
from segue.training.fit import fit

LEARNT = "sasrec"
"""Name of the model to compare with the others."""

LEARNT_CONFIG = SASRec(targets="session", dropout=0.5)
"""Its settings, chosen on the validation part of the shop."""

METRIC = NextItems.usual_metric
"""The metric of the comparisons."""

_MARK = "demo.json"
_FIRST, _WEEK = 1_704_067_200, 604_800
"""2024-01-01 in seconds since 1970, and from one visit to the next."""
_SHOWN = 3
"""Number of users to show, of items for each, and of reasons for each item."""


@dataclass(frozen=True)
class Demo:
    """A simulated shop, and models of it.

    Each method is a step. Later steps take the results of earlier ones.
    """

    out: Path
    """Folder for all output of the demo."""

    users: int = 600
    """Number of customers."""

    sessions: int = 12
    """Number of visits of each, one a week."""

    products: int = 15
    """Number of items in each of the 20 categories."""

    epochs: int = 14
    """Largest number of passes of SASRec over the data."""

    seed: int = 0
    """Seed of the shop, the training and the resamples."""

    def prepare(self) -> Dataset:
        """Simulate the shop's log, and prepare a Dataset from it; the output of an earlier demo is replaced.

        Raises
        ------
        ConfigError
            The folder contains something else.
        """
        out = self.out
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file())):
            raise ConfigError(f"{out} exists and was not made by segue demo: choose another folder with --out.")
        write_json(out / _MARK, {**asdict(self), "out": str(out)})
        made = simulate(
            self.users,
            self.sessions,
            products=self.products,
            taste=5.0,
            price_effect=0.5,
            seed=self.seed,
            names=True,
        )
        log = made.log()
        log.with_columns(time=_FIRST + _WEEK * log["time"].cast(int)).write_csv(out / "shop.csv")
        made.truth.save(truth_beside(out / "shop.csv"))
        return prepare(out / "shop.csv", out=out / "data")

    def train(self, split: Split, *, quiet: bool = False) -> dict[str, Recommender]:
        """Fit the counting models, among them the one that suits the data, and SASRec."""
        training = Training(
            epochs=self.epochs,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=50,
            validate_every=2,
            validation_exclude_seen=False,
            patience=6,
            seed=self.seed,
        )
        configs = (Popularity(), RecentPopularity(), Markov(), *suited_config(split.train), LEARNT_CONFIG)
        with _one_thread():
            return {
                config.name: fit(
                    config,
                    split,
                    training=training,
                    out=self.out / "runs" / config.name,
                    overwrite=True,
                    quiet=quiet,
                )
                for config in configs
            }

    def evaluate(self, fitted: Mapping[str, Recommender], split: Split) -> dict[str, Evaluation]:
        """Evaluate all models on the test; seen items are kept, since customers buy again."""
        with _one_thread():
            return {
                name: evaluate_baskets(model, split.test, k=10, seed=self.seed, exclude_seen=False)
                for name, model in fitted.items()
            }

    def compare(self, evaluations: Mapping[str, Evaluation]) -> list[Comparison]:
        """Compare SASRec with each counting model in the main metric and the recall, the best one first."""
        counting = sorted((name for name in evaluations if name != LEARNT), key=lambda name: -evaluations[name][METRIC])
        learnt = evaluations[LEARNT]
        return [compare(evaluations[name], learnt, metric=(METRIC, "recall@10"), seed=self.seed) for name in counting]

    def explain(self, recommender: Recommender, split: Split) -> list[Example]:
        """Recommend items to some users of the test, with reasons."""
        users = split.test.dataset.users.decode(split.test.users[:_SHOWN]).to_list()
        with _one_thread():
            return examples_of(recommender, users, k=_SHOWN, reasons=_SHOWN, exclude_seen=False)

    def report(
        self,
        fitted: Mapping[str, Recommender],
        evaluations: Mapping[str, Evaluation],
        comparisons: list[Comparison],
        examples: list[Example],
    ) -> Path:
        """Write the report page, and return its path."""
        return report_runs(
            self.out / "report.html",
            fitted,
            evaluations,
            title="segue demo: a simulated shop",
            folders={LEARNT: self.out / "runs" / LEARNT},
            comparisons=comparisons,
            examples=examples,
        )


def suited_config(dataset: Dataset) -> list[ModelConfig]:
    """Config of the counting model that suits the data; none if there is no other than the usual ones."""
    suggestion = suggestion_for_dataset(dataset)
    if suggestion is None or suggestion.model is None:
        return []
    return [config_class(suggestion.model)()]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: with tensors this small, more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
