"""`segue.blend`: one Recommender from several, with weights chosen on the validation part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segue.arguments import checked
from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.splits.holdouts import Holdout
from segue.data.splits.registry import split_by
from segue.errors import ConfigError
from segue.evaluation.metrics import user_metrics
from segue.evaluation.tasks.task import task_of
from segue.inference.recommender import Recommender
from segue.inference.scorer import Scorer
from segue.inference.scoring.ranking import distinct, target_ranks
from segue.models.base import Model, Vocabularies
from segue.models.blend import Blend, BlendModel, By, sum_of
from segue.models.ratings import RatingModel
from segue.models.sparse import DenseScores
from segue.nn.moving import moved
from segue.settings import Penalty
from segue.training.progress import Progress

GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Weights that are tried for each part but the first, whose weight is 1."""
_ROUNDS = 3
"""Times at most that each weight is chosen again."""
_BYTES = 256 << 20
"""Size of the scores of all parts that are held at once."""


@checked
def blend(
    recommenders: Sequence[Recommender],
    validation: Holdout | None = None,
    *,
    weights: Sequence[Penalty] | None = None,
    by: By = "log-probability",
    metric: str = "ndcg@10",
    exclude_seen: bool | None = None,
    names: Sequence[str] | None = None,
    quiet: bool = False,
) -> Recommender:
    """Blend Recommenders: the score is a weighted sum of their scores. The result is an ordinary Recommender.

    The first weight is 1. The others start at 0. Each is set to the best value of a fixed grid, one after the other,
    until none changes.

    Parameters
    ----------
    recommenders
        Two or more, fitted on the same Dataset and split. Models of ratings are refused.
    validation
        Part that chooses the weights; None means the validation part of the Recommenders' split.
    weights
        A weight for each Recommender, in place of the search.
    by
        Form in which scores are added: "log-probability" or "rank" (see `Blend`).
    metric
        Metric of ranking that the weights shall raise, such as "ndcg@10" or "recall@20".
    exclude_seen
        Leave out the items of the history in validation; None means as in the training of the first Recommender.
    names
        Names of the Recommenders for messages, such as the folders of their runs.
    quiet
        Do not print the search.

    Returns
    -------
    Recommender
        Its `metadata["blend"]` has the names, weights and the course of the search.

    Raises
    ------
    ConfigError
        The Recommenders have other data or splits (the message names them), one is a model of ratings, one was trained
        on the validation part, there is no such part, or the metric is unknown.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> parts = [segue.fit(config, split) for config in (segue.PersonalFrequency(), segue.Markov())]
    >>> segue.blend(parts, weights=[1, 0.5], quiet=True).metadata["blend"]["weights"]
    [1, 0.5]
    """
    parts = list(recommenders)
    shown = _names(parts, names)
    _check_parts(parts, shown)
    first = parts[0]
    started = time.perf_counter()
    configs = [part.model.config for part in parts]
    trials: list[dict[str, Any]] = []
    measured: dict[str, float] = {}
    if weights is None:
        if exclude_seen is None:
            options = first.metadata.get("options") or {}
            exclude_seen = options.get("validation_exclude_seen")
        if exclude_seen is None:
            exclude_seen = all(task_of(config).exclude_seen for config in configs)
        holdout = _validation(parts, shown, validation)
        start = Blend.of(configs, [1.0] + [0.0] * (len(parts) - 1), by)
        search = _Search(BlendModel(start, [part.model for part in parts]), holdout, metric, exclude_seen)
        chosen = search.run(shown, Progress(quiet))
        trials, measured = search.trials, {metric: search.best}
    else:
        chosen = list(weights)
    model = BlendModel(Blend.of(configs, chosen, by), [part.model for part in parts])
    model.vocabularies = Vocabularies.of(first.dataset)
    metadata = {
        "split": first.metadata.get("split"),
        "refit": any(part.metadata.get("refit") for part in parts),
        "options": first.metadata.get("options"),
        "training": {"validation": measured, "seconds": time.perf_counter() - started},
        "blend": {"parts": shown, "weights": chosen, "by": by, "trials": trials},
    }
    return Recommender(model, first.dataset, metadata)


def _names(parts: Sequence[Recommender], names: Sequence[str] | None) -> list[str]:
    """A name of each part for messages."""
    if names is None:
        return [f"{number} ({part.model.config.name})" for number, part in enumerate(parts, 1)]
    if len(names) != len(parts):
        raise ConfigError(f"{len(parts)} Recommenders have {len(names)} names: give as many of one as of the other.")
    return [f"{name} ({part.model.config.name})" for name, part in zip(names, parts, strict=True)]


def _check_parts(parts: Sequence[Recommender], names: Sequence[str]) -> None:
    """Refuse parts that have no common scores."""
    if len(parts) < 2:
        raise ConfigError(f"a blend needs two Recommenders or more, found {len(parts)}.")
    first = parts[0]
    for part, name in zip(parts, names, strict=True):
        if isinstance(part.model, RatingModel):
            raise ConfigError(f"{name} predicts ratings, which are no scores of the next item: blend rankings only.")
        if part.dataset.fingerprint != first.dataset.fingerprint:
            raise ConfigError(
                f"{name} was fitted on other data than {names[0]} ({part.dataset!r} and {first.dataset!r}): fit both "
                "on one Dataset."
            )
        if part.metadata.get("split") != first.metadata.get("split"):
            raise ConfigError(
                f"{name} was fitted on another split than {names[0]} ({part.metadata.get('split')} and "
                f"{first.metadata.get('split')}): fit both on one split."
            )


def _validation(parts: Sequence[Recommender], names: Sequence[str], given: Holdout | None) -> Holdout:
    """The part that chooses the weights."""
    for part, name in zip(parts, names, strict=True):
        if part.metadata.get("refit"):
            raise ConfigError(
                f"{name} was trained again on the validation part (refit), which can then choose no weights: give "
                "weights=…, or blend runs without refit."
            )
    if given is not None:
        return given
    spec = parts[0].metadata.get("split")
    holdout = split_by(parts[0].dataset, spec).validation if spec else None
    if holdout is None or not len(holdout):
        raise ConfigError(f"{names[0]} was fitted without a validation part: give validation=… or weights=….")
    return holdout


class _Search:
    """Search of weights, one part after the other.

    Parameters
    ----------
    model
        The parts.
    holdout
        Part of the split that is ranked.
    metric
        Metric of ranking, with k.
    exclude_seen
        Leave the items of the history out of the ranking.

    Attributes
    ----------
    trials
        Weights and metric of every trial.
    best
        The highest metric so far.
    """

    def __init__(self, model: BlendModel, holdout: Holdout, metric: str, exclude_seen: bool) -> None:
        _, _, k = metric.partition("@")
        known = user_metrics(np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64), [int(k) if k.isdecimal() else 10])
        if metric not in known or not 1 <= int(k) <= model.n_items:
            raise ConfigError(f"metric={metric!r} is no metric of ranking: expected one such as {', '.join(known)}.")
        self._model, self._metric, self._k = Scorer.of(model).model, metric, int(k)
        self._histories, self._exclude_seen = holdout.histories(), exclude_seen
        self._targets, _ = distinct(holdout.targets())
        self.trials: list[dict[str, Any]] = []
        self.best = -1.0

    def run(self, names: Sequence[str], progress: Progress) -> list[float]:
        """Return the best weights, and print every trial."""
        weights = [1.0] + [0.0] * (len(names) - 1)
        for turn in range(_ROUNDS):
            before = list(weights)
            for number in range(1, len(names)):
                if turn and len(names) == 2:
                    break  # nothing else has changed
                values = [value for value in GRID if turn == 0 or value != weights[number]]
                results = self._measure(weights, number, values)
                for value, result in zip(values, results, strict=True):
                    trial = [*weights[:number], value, *weights[number + 1 :]]
                    self.trials.append({"weights": trial, self._metric: result})
                    text = "  ".join(f"{name} {weight:g}" for name, weight in zip(names, trial, strict=True))
                    progress.console.print(f"{self._metric} {result:.4f}  {text}", highlight=False, markup=False)
                highest = int(np.argmax(results))
                if results[highest] > self.best:
                    self.best, weights[number] = results[highest], values[highest]
            if weights == before:
                break
        text = "  ".join(f"{name} {weight:g}" for name, weight in zip(names, weights, strict=True))
        progress.console.print(f"best {self._metric} {self.best:.4f}  {text}", highlight=False, markup=False)
        return weights

    def _measure(self, weights: Sequence[float], number: int, values: Sequence[float]) -> list[float]:
        """Metric for each value of the weight at `number`; the scores of the parts are computed once."""
        sums = np.zeros(len(values))
        for rows, tables in self._tables():
            others = [weight for place, weight in enumerate(weights) if place != number]
            rest = sum_of([table for place, table in enumerate(tables) if place != number], others)
            part = replace(self._histories.select(rows), users=np.arange(len(rows)))
            targets = self._targets.select(rows)
            for place, value in enumerate(values):
                fixed = _FixedScores(self._model, rest.add(tables[number], alpha=value))
                ranks = target_ranks(fixed, part, targets, exclude_seen=self._exclude_seen)
                sums[place] += user_metrics(ranks, targets.lengths, [self._k])[self._metric].sum()
        return [float(total) for total in sums / len(self._histories)]

    def _tables(self) -> Iterator[tuple[Int64, list[Tensor]]]:
        """Rows (r,) of the histories, and the transformed scores (r, n_items + 1) of each part for them."""
        model = self._model
        assert isinstance(model, BlendModel)
        size = 4 * (model.n_items + 1) * len(model.parts)
        order = np.argsort(-self._histories.lengths, kind="stable")
        step = max(1, min(1024, _BYTES // size))
        for first in range(0, len(order), step):
            rows = order[first : first + step]
            with torch.inference_mode():
                inputs = model.inputs(self._histories.select(rows))
                yield rows, model.transformed(moved(inputs, model.device))


class _FixedScores(Model):
    """Model whose scores are known: the user code of a history is its row."""

    dense_queries = True

    def __init__(self, model: Model, table: Tensor) -> None:
        super().__init__(model.config, model.n_users, model.n_items)
        self.table = table

    def inputs(self, histories: Histories) -> Any:
        """Rows of the histories."""
        return (torch.from_numpy(histories.users),)

    def encode(self, inputs: Any) -> Tensor:
        """Scores of the rows."""
        return self.table[inputs[0].to(self.table.device)]

    def scores(self) -> DenseScores:
        """The scores that the queries hold."""
        return DenseScores()
