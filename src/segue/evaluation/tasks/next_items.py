"""The task of next items: rank what each user of a Holdout did next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.arguments import checked
from segue.data.histories import Histories
from segue.data.ragged import Int64, rows_of
from segue.data.splits.holdouts import Holdout
from segue.engines.engine import Engine
from segue.evaluation.breakdown import by_history_length, by_popularity
from segue.evaluation.candidates import Candidates, Law, sample_candidates
from segue.evaluation.metrics import Floats, coverage, gini, novelty, user_metrics
from segue.evaluation.questions import Questions
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.tasks.description import Metric, Wording, within
from segue.evaluation.tasks.ranking import RankingTask, warn_of_seen, warn_of_seen_targets
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, Measure, ValidationPlan
from segue.inference.scorer import HasScorer
from segue.inference.scoring.by_parts import Ranker, ranker
from segue.inference.scoring.ranking import distinct
from segue.models.base import Model
from segue.settings import Count, Resamples, Seed

__all__ = ["Evaluation", "HasScorer", "NextItems", "evaluate"]

Bools = npt.NDArray[np.bool_]

_COLD = {"hr": "Hit rate{}", "ndcg": "NDCG{}"}
_AMONG = {"cold": "all items", "cold_own": "cold items"}


def _cold_metrics() -> tuple[Metric, ...]:
    """Metrics of the cold targets, among all items and among cold ones."""
    return tuple(
        Metric(
            f"{part}_{name}",
            f"{title}, cold targets among {items}",
            f"{name} of targets without training interactions, among {items}; users without such targets do not count",
            validated=False,
        )
        for part, items in _AMONG.items()
        for name, title in _COLD.items()
    )


class NextItems(RankingTask):
    """Rank the items that each user takes next."""

    name: ClassVar[str] = "next-items"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("hr", "Hit rate{}", "share of users with a target in the list"),
        Metric("ndcg", "NDCG{}", "gain of the targets in the list, less for later ranks, over the best possible"),
        Metric("mrr", "MRR{}", "1 over the rank of the best target, if it is in the list"),
        Metric("recall", "Recall{}", "share of a user's targets that are in the list"),
        Metric("precision", "Precision{}", "share of the list that are targets"),
        Metric("map", "MAP{}", "mean of the precision at the rank of each target in the list"),
        Metric("novelty", "Novelty{}", "self-information of the listed items, in bits", better=None, validated=False),
        Metric("coverage", "Coverage{}", "share of the catalogue in any list", better=None, validated=False),
        Metric("gini", "Gini{}", "inequality of the items in all lists", better=None, validated=False),
        *_cold_metrics(),
    )
    headlines: ClassVar[tuple[str, ...]] = ("hr", "ndcg")
    part_titles: ClassVar[Mapping[str, str]] = {
        "history_length": "By length of history",
        "popularity": "By popularity of the target",
    }
    note: ClassVar[str] = (
        "Bars are means over users; the lines across their ends are 95 % bootstrap intervals. Equal scores count "
        "against the target."
    )
    usual_metric: ClassVar[str] = "ndcg@10"

    def questions(self, protocol: Mapping[str, Any]) -> str:
        """Number of users and targets, in words."""
        return f"{protocol['users']:,} users, {protocol['targets']:,} targets"

    def wording(self, name: str, protocol: Mapping[str, Any]) -> Wording:
        """Words for the hit rate: users whose next item is found."""
        if name.partition("@")[0] != "hr":
            return super().wording(name, protocol)
        single = protocol["targets"] == protocol["users"]
        found = "{} of 100 users' next item" if single else "an item that came next for {} of 100 users"
        return Wording(f"finds {found} {within(name)}{self.sampled(protocol)}")

    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        """Check the length of the lists, and warn if no target can be hit."""
        super().check_validation(model, plan, holdout)
        warn_of_seen_targets(plan, holdout)

    def validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> Measure:
        """Measure HR, NDCG and the chosen metric, from ranks alone."""
        n, k = plan.candidates, plan.k
        candidates = None if n is None else sample_candidates(holdout, n, seed=plan.seed)
        names = dict.fromkeys((f"hr@{k}", f"ndcg@{k}", plan.metric))

        def measured_now() -> dict[str, float]:
            questions = Questions.of(model, holdout, k, candidates, "uniform", None, plan.seed)
            alone = Ranker(questions.scorer)
            evaluation, _ = _evaluated(questions, alone, plan.exclude_seen, lists=False, resamples=0, seed=plan.seed)
            return {name: evaluation.metrics[name] for name in names}

        return measured_now

    def measure(self, recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
        """Call `evaluate` with these options."""
        return evaluate(
            recommender,
            holdout,
            k=options.k,
            candidates=options.candidates,
            by=options.by,
            exclude_seen=options.exclude_seen is not False,
            users=options.users,
            seed=options.seed,
            engine=options.engine,
        )


@checked
def evaluate(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: Count | Sequence[Count] | None = None,
    candidates: Count | Candidates | None = None,
    by: Law = "uniform",
    exclude_seen: bool = True,
    users: Count | None = None,
    seed: Seed = 0,
    lists: bool = True,
    resamples: Resamples = 1_000,
    engine: Engine | None = None,
) -> Evaluation:
    """Rank the next items of each user of a Holdout, and measure the ranking.

    Targets rank behind every other candidate with the same score, so a model gains nothing from ties; a score that is
    not finite is an error.

    Parameters
    ----------
    recommender
        A Recommender, or a fitted model.
    holdout
        The questions: `split.validation` or `split.test`.
    k
        Lengths of the lists, each from 1 to the size of the catalogue. When None, 10, or all of a
        smaller catalogue.
    candidates
        None ranks the targets among all items. A number draws that many items for each user (see `sample_candidates`).
        `Candidates` that were drawn before are taken as they are.
    by
        Law of the candidates, if a number is given: "uniform" or "popularity".
    exclude_seen
        Leave the items of a user's history out of the ranking. A target from the history then counts as missed. Set it
        to False if users take items again.
    users
        Number of users to evaluate, drawn from `seed`; all when None.
    seed
        Seed of users, candidates and bootstrap resamples.
    lists
        Also measure the lists themselves (coverage, novelty, Gini). It takes a second pass, and all items must be
        ranked.
    resamples
        Number of bootstrap resamples for the 95 % intervals; 0 for none.
    engine
        Workers that rank, such as `segue.Engine(processes=4)`; this process when None. The figures are the same.

    Returns
    -------
    evaluation
        Metrics, intervals, values per user and values of parts.

    Raises
    ------
    ConfigError
        An option is impossible, such as a k above the catalogue.
    DataError
        There are fewer items than candidates, or a history is empty.
    EvaluationError
        The Holdout is empty, belongs to another catalogue, or scores are not finite.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> evaluation = segue.evaluate(segue.fit(segue.Markov(), split), split.test, k=(5, 10), exclude_seen=False)
    >>> bool(evaluation["hr@10"] >= evaluation["hr@5"])
    True
    >>> evaluation.per_user.columns[:3]
    ['user', 'history', 'rank']
    """
    questions = Questions.of(recommender, holdout, k, candidates, by, users, seed)
    with ranker(questions.scorer, engine) as ranking:
        evaluation, hidden = _evaluated(questions, ranking, exclude_seen, lists, resamples, seed)
    warn_of_seen(hidden, holdout)
    return evaluation


def _evaluated(
    questions: Questions, ranking: Ranker, exclude_seen: bool, lists: bool, resamples: int, seed: int
) -> tuple[Evaluation, float]:
    """The Evaluation of questions that were checked, and the share of targets that are left out as seen items."""
    scorer, sample, ks = questions.scorer, questions.holdout, questions.ks
    sampled = questions.candidates
    histories, targets = sample.histories(), distinct(sample.targets())[0]
    ranks = ranking.target_ranks(
        histories, targets, exclude_seen=exclude_seen, candidates=None if sampled is None else sampled.codes
    )
    codes = ranking.top_k(histories, max(ks), exclude_seen=exclude_seen) if lists and sampled is None else None
    protocol = questions.protocol(targets, exclude_seen)
    evaluation = evaluation_of(scorer.config.name, sample, targets, ranks, codes, ks, protocol, resamples, seed)
    if codes is not None:
        evaluation = with_cold_targets(evaluation, questions, ranking, targets, ranks, exclude_seen, resamples, seed)
    unranked = ranks > scorer.n_items
    if scorer.cold is not None:  # items that the model cannot score were in nobody's history
        unranked &= ~np.isin(targets.items, scorer.cold.cpu().numpy())
    return evaluation, float(unranked.mean())


def with_cold_targets(
    evaluation: Evaluation,
    questions: Questions,
    ranking: Ranker,
    targets: Histories,
    ranks: Int64,
    exclude_seen: bool,
    resamples: int,
    seed: int,
) -> Evaluation:
    """Add the metrics of targets without training interactions, if there are such and the Dataset has an item table.

    Parameters
    ----------
    evaluation
        Figures of all targets.
    questions, ranking, targets
        The questions, what ranks their targets, and the m targets.
    ranks
        (m,) rank of each target among all items.
    exclude_seen, resamples, seed
        As in `evaluate`.
    """
    holdout, ks = questions.holdout, questions.ks
    if holdout.dataset.item_table is None:
        return evaluation
    cold = holdout.training_view().item_counts() == 0
    mask = cold[targets.items]
    if not mask.any():
        return evaluation
    rows = np.unique(rows_of(targets.starts, targets.ends)[mask])
    some, measured = targets.select(rows), np.zeros(len(targets.items), dtype=np.int64)
    own = ranking.target_ranks(holdout.histories().select(rows), some, exclude_seen=exclude_seen, among=cold)
    measured[np.isin(rows_of(targets.starts, targets.ends), rows)] = own
    columns = {
        f"{part}_{name}": values
        for part, their_ranks in (("cold", ranks), ("cold_own", measured))
        for name, values in metrics_of_part(their_ranks, targets, mask, ks, tuple(_COLD)).items()
    }
    means = {name: values[~np.isnan(values)] for name, values in columns.items()}
    intervals = {name: bootstrap_interval(values, resamples, seed) for name, values in means.items() if resamples}
    return replace(
        evaluation,
        metrics={**evaluation.metrics, **{name: float(values.mean()) for name, values in means.items()}},
        intervals={**evaluation.intervals, **intervals},
        per_user=evaluation.per_user.hstack(pl.DataFrame(dict(columns)).fill_nan(None)),
        protocol={**evaluation.protocol, "cold_items": int(cold[1:].sum()), "cold_targets": int(mask.sum())},
    )


def metrics_of_part(
    ranks: Int64, targets: Histories, mask: Bools, ks: Sequence[int], names: Sequence[str]
) -> dict[str, Floats]:
    """Metrics (n,) of the masked targets (m,) by name; NaN for users without such targets."""
    rows = rows_of(targets.starts, targets.ends)[mask]
    lengths = np.bincount(rows, minlength=len(targets))
    measured = lengths > 0
    found = user_metrics(ranks[mask], lengths[measured], ks) if measured.any() else {}
    metrics = {f"{name}@{k}": np.full(len(targets), np.nan) for name in names for k in ks}
    for name, values in metrics.items():
        if name in found:
            values[measured] = found[name]
    return metrics


def evaluation_of(
    name: str,
    holdout: Holdout,
    targets: Histories,
    ranks: Int64,
    lists: Int64 | None,
    ks: list[int],
    protocol: dict[str, Any],
    resamples: int,
    seed: int,
) -> Evaluation:
    """The Evaluation of given ranks and lists.

    Parameters
    ----------
    name
        Name of the model, or of the maker of the lists.
    holdout
        n users.
    targets
        m targets of these users, distinct within a row, end to end.
    ranks
        (m,) int64 rank of each target, `n_items + 1` if it cannot be recommended.
    lists
        (n, largest of `ks`) int64 recommended item codes, 0 = no item; not measured when None.
    ks
        Lengths of the lists, ascending.
    protocol
        Setting of the evaluation.
    resamples, seed
        As in `evaluate`.
    """
    per_user = user_metrics(ranks, targets.lengths, ks)
    counts = holdout.training_view().item_counts()
    overall: dict[str, float] = {}
    if lists is not None:
        n_items = holdout.dataset.n_items
        per_user |= {f"novelty@{k}": novelty(lists[:, :k], counts) for k in ks}
        overall |= {f"coverage@{k}": coverage(lists[:, :k], n_items) for k in ks}
        overall |= {f"gini@{k}": gini(lists[:, :k], n_items) for k in ks}
    best, lengths = np.minimum.reduceat(ranks, targets.starts), holdout.histories().lengths
    frame = {"user": holdout.dataset.users.decode(holdout.users), "history": lengths, "rank": best}
    return Evaluation(
        model=name,
        metrics={metric: float(values.mean()) for metric, values in per_user.items()} | overall,
        intervals={
            metric: bootstrap_interval(values, resamples, seed) for metric, values in per_user.items() if resamples
        },
        per_user=pl.DataFrame(frame | per_user),
        parts={
            "history_length": by_history_length(lengths, per_user),
            "popularity": by_popularity(targets.items.astype(np.int64), ranks, counts, ks),
        },
        protocol=protocol,
    )
