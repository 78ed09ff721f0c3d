"""The task of baskets: rank the items of each user's next session, and measure repeats and new items apart.

The targets of a user are the set of items in one session. Some of them the user had before ("repeat"), the others are
new to the user ("explore"). Most of what people buy they buy again, so a model can be good at one part alone, and the
figures of both parts together do not show it. (Li, Jullien, Ariannezhad and de Rijke 2023, "A Next Basket
Recommendation Reality Check", ACM TOIS 41(4), which names the two parts and measures them apart.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import polars as pl

from segue.arguments import checked
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, rows_of
from segue.data.splits.holdouts import Holdout
from segue.data.statistics.sessions import REPEATING
from segue.engines.engine import Engine
from segue.errors import ConfigError
from segue.evaluation.breakdown import by_history_length
from segue.evaluation.candidates import Candidates, Law, sample_candidates
from segue.evaluation.metrics import Floats
from segue.evaluation.questions import Questions
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.tasks.description import Metric, Wording, within
from segue.evaluation.tasks.next_items import NextItems, evaluation_of, metrics_of_part, with_cold_targets
from segue.evaluation.tasks.ranking import warn_of_seen
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, Measure, ValidationPlan
from segue.inference.scorer import HasScorer
from segue.inference.scoring.by_parts import Ranker, ranker
from segue.inference.scoring.ranking import distinct
from segue.models.base import Model
from segue.settings import Count, Resamples, Seed

_MEASURED = ("recall", "ndcg", "hr")
"""Metrics of the parts of a basket."""

_ROW = (*_MEASURED, "precision")
"""Metrics in a row of the table of the parts."""

_KINDS = {"repeat": "bought before", "explore": "new"}
_TITLES = {"recall": "Recall{}", "ndcg": "NDCG{}", "hr": "Hit rate{}"}
_AMONG = {"": "all items", "_own": "their own kind"}


def _part_metrics() -> tuple[Metric, ...]:
    """Metrics of both parts of a basket, among all items and among their own kind."""
    made = []
    for kind, words in _KINDS.items():
        for among, items in _AMONG.items():
            for name in _MEASURED:
                title = f"{_TITLES[name]}, {words}" + (", among such" if among else "")
                meaning = f"{name} of the items {words}, among {items}; users without such items do not count"
                made.append(Metric(f"{kind}{among}_{name}", title, meaning))
    return tuple(made)


class Baskets(NextItems):
    """Rank the items of each user's next basket."""

    name: ClassVar[str] = "baskets"
    metrics: ClassVar[tuple[Metric, ...]] = (
        *NextItems.metrics,
        *_part_metrics(),
        Metric(
            "listed_repeats",
            "Repeats in the list{}",
            "share of the list that its user had before; compare it with that share of the baskets",
            better=None,
            validated=False,
        ),
    )
    headlines: ClassVar[tuple[str, ...]] = ("recall", "ndcg")
    unit: ClassVar[str] = "baskets"
    part_titles: ClassVar[Mapping[str, str]] = {
        "kind": "Bought before and new",
        **NextItems.part_titles,
    }
    note: ClassVar[str] = (
        "The targets of a user are the items of the next basket, in no order. The ideal list of NDCG begins with all "
        "of them, or holds nothing else. Bars are means over baskets; the lines across their ends are 95 % bootstrap "
        "intervals."
    )

    def suits(self, holdout: Holdout) -> bool:
        """True if the targets of each user are one session, and some session has several items."""
        return holdout.whole_sessions and int(holdout.n_targets.max(initial=0)) > 1

    def leaves_seen_out(self, holdout: Holdout | None) -> bool:
        """False if people repeat themselves: a tenth or more of the targets stand in the histories."""
        return holdout is None or holdout.repeat_share() < REPEATING

    def questions(self, protocol: Mapping[str, Any]) -> str:
        """Number and size of the baskets, and their share of repeats, in words."""
        users, targets = protocol["users"], protocol["targets"]
        return f"{users:,} baskets of {targets / users:.1f} items ({protocol['repeats']:.0%} bought before)"

    def wording(self, name: str, protocol: Mapping[str, Any]) -> Wording:
        """Words for the recall: items of the basket that are found."""
        if name.partition("@")[0] != "recall":
            return super().wording(name, protocol)
        return Wording(f"finds {{}} of 100 items of the next basket {within(name)}{self.sampled(protocol)}")

    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        """Check the length of the lists, the targets and the candidates, and warn if repeats are left out."""
        if not holdout.whole_sessions:
            raise ConfigError(
                f"metric={plan.metric!r} is measured on whole baskets, and the {holdout.name} part does not hold such: "
                "split by last-session-out (a Dataset with sessions), or choose a metric such as ndcg@10."
            )
        if "_own_" in plan.metric and plan.candidates is not None:
            raise ConfigError(
                f"metric={plan.metric!r} ranks all items of a kind, so it does not go with "
                f"validation_candidates={plan.candidates}: leave those out, or choose a metric such as repeat_ndcg@10."
            )
        super().check_validation(model, plan, holdout)

    def validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> Measure:
        """Measure HR, NDCG and recall, the recall of both parts, and the chosen metric, from ranks alone."""
        n, k = plan.candidates, plan.k
        candidates = None
        if n is not None:
            candidates = sample_candidates(holdout, n, seed=plan.seed, from_history=not plan.exclude_seen)
        usual = (f"{name}@{k}" for name in ("hr", "ndcg", "recall", "repeat_recall", "explore_recall"))
        names = dict.fromkeys((*usual, plan.metric))

        def measured_now() -> dict[str, float]:
            questions = Questions.of(model, holdout, k, candidates, "uniform", None, plan.seed)
            alone = Ranker(questions.scorer)
            evaluation = _evaluated(questions, alone, plan.exclude_seen, "_own_" in plan.metric, False, 0, plan.seed)
            return {name: evaluation.metrics[name] for name in names if name in evaluation.metrics}

        return measured_now

    def measure(self, recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
        """Call `evaluate_baskets` with these options."""
        return evaluate_baskets(
            recommender,
            holdout,
            k=options.k,
            candidates=options.candidates,
            by=options.by,
            exclude_seen=options.exclude_seen,
            users=options.users,
            seed=options.seed,
            engine=options.engine,
        )


@checked
def evaluate_baskets(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: Count | Sequence[Count] | None = None,
    candidates: Count | Candidates | None = None,
    by: Law = "uniform",
    exclude_seen: bool | None = None,
    users: Count | None = None,
    seed: Seed = 0,
    lists: bool = True,
    resamples: Resamples = 1_000,
    engine: Engine | None = None,
) -> Evaluation:
    """Rank the items of each user's next basket, and measure what the user had before and what is new apart.

    The basket is a set: its order does not count, and an item that it holds twice counts once. With n items in the
    basket and lists of length k, the ideal list of NDCG has min(n, k) of them at its head.

    Parameters
    ----------
    recommender
        A Recommender, or a fitted model of any ranking task.
    holdout
        The questions: the last sessions of `last_session_out`, or any other targets.
    k
        Lengths of the lists, each from 1 to the size of the catalogue. When None, 10, or all of a smaller catalogue.
    candidates
        None ranks the basket among all items. A number draws that many for each user: from all items that are not in
        the basket, or if seen items are left out, from unseen ones. `Candidates` that were drawn before are taken as
        they are. The figures among items of the same kind need all items.
    by
        Law of the candidates, if a number is given: "uniform" or "popularity".
    exclude_seen
        Leave the items of a user's history out of the ranking. A repeat then counts as missed. When None, they are
        left out if fewer than a tenth of the targets stand in their user's history.
    users
        Number of users to evaluate, drawn from `seed`; all when None.
    seed
        Seed of users, candidates and bootstrap resamples.
    lists
        Also measure the lists themselves: coverage, novelty, Gini and the share of repeats. It takes another pass, and
        all items must be ranked.
    resamples
        Number of bootstrap resamples for the 95 % intervals; 0 for none.
    engine
        Workers that rank, as in `evaluate`.

    Returns
    -------
    evaluation
        The metrics of `evaluate`, and for each k:

        - `repeat_recall`, `repeat_ndcg`, `repeat_hr`: those of the items that the user had before, among all items;
          `explore_recall`, …: those of the new ones. Users without such items in the basket do not count.
        - `repeat_own_recall`, …: the same if only items that the user had before are ranked; `explore_own_recall`, …:
          if only new items are ranked.
        - `listed_repeats`: share of the list that the user had before. `protocol["repeats"]` is that share of the
          baskets, as a mean over them; `per_user` has it for each basket.

        The part "kind" holds the parts in one table, with their precision.

    Raises
    ------
    ConfigError, DataError, EvaluationError
        As in `evaluate`.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.PersonalFrequency(), split)
    >>> evaluation = segue.evaluate_baskets(recommender, split.test, k=10, exclude_seen=False)
    >>> "repeat_recall@10" in evaluation.metrics
    True
    """
    if exclude_seen is None:
        exclude_seen = Baskets().leaves_seen_out(holdout)
    questions = Questions.of(recommender, holdout, k, candidates, by, users, seed, from_history=not exclude_seen)
    every = questions.candidates is None
    if exclude_seen:
        warn_of_seen(questions.holdout.repeat_share(), holdout)
    with ranker(questions.scorer, engine) as ranking:
        return _evaluated(questions, ranking, exclude_seen, every, lists and every, resamples, seed)


def _evaluated(
    questions: Questions,
    ranking: Ranker,
    exclude_seen: bool,
    own_kind: bool,
    lists: bool,
    resamples: int,
    seed: int,
) -> Evaluation:
    """The Evaluation; `own_kind` measures the parts among items of their own kind, too."""
    scorer, holdout, ks = questions.scorer, questions.holdout, questions.ks
    histories, targets = holdout.histories(), distinct(holdout.targets())[0]
    seen = histories.holds(targets)
    candidates = None if questions.candidates is None else questions.candidates.codes
    ranks = ranking.target_ranks(histories, targets, exclude_seen=exclude_seen, candidates=candidates)
    among = {"": ranks}
    if own_kind:
        new = ranks if exclude_seen else ranking.target_ranks(histories, targets, exclude_seen=True)
        old = ranking.target_ranks(histories, targets, exclude_seen=False, only=histories)
        among["_own"] = np.where(seen, old, new)
    codes = ranking.top_k(histories, max(ks), exclude_seen=exclude_seen) if lists else None
    repeats = np.add.reduceat(seen.astype(np.float64), targets.starts) / targets.lengths
    protocol = {"task": Baskets.name, "repeats": float(repeats.mean()), **questions.protocol(targets, exclude_seen)}
    plain = evaluation_of(scorer.config.name, holdout, targets, ranks, codes, ks, protocol, resamples, seed)
    parts = {
        f"{kind}{suffix}": metrics_of_part(their_ranks, targets, mask, ks, _ROW)
        for kind, mask in (("repeat", seen), ("explore", ~seen))
        for suffix, their_ranks in among.items()
    }
    columns = {
        f"{part}_{name}": values
        for part, metrics in parts.items()
        for name, values in metrics.items()
        if name.partition("@")[0] in _MEASURED
    }
    if codes is not None:
        columns |= {f"listed_repeats@{k}": _listed_repeats(histories, codes[:, :k]) for k in ks}
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    plain = replace(plain, per_user=plain.per_user.with_columns(repeats=repeats))
    if codes is not None:
        plain = with_cold_targets(plain, questions, ranking, targets, ranks, exclude_seen, resamples, seed)
    return _with_columns(plain, columns, parts, ks, histories.lengths, resamples, seed)


def _listed_repeats(histories: Histories, codes: Int64) -> Floats:
    """Share (n,) of each list (n, k) that stands in its user's history; 0 for an empty list."""
    filled = codes > 0
    lengths = filled.sum(axis=1)
    offsets = offsets_of(lengths)
    listed = Histories(histories.users, codes[filled].astype(np.int32), offsets[:-1], offsets[1:])
    rows = rows_of(listed.starts, listed.ends)
    held = np.bincount(rows, weights=histories.holds(listed), minlength=len(codes))
    return np.asarray(held / np.maximum(lengths, 1), dtype=np.float64)


def _with_columns(
    plain: Evaluation,
    columns: Mapping[str, Floats],
    parts: Mapping[str, Mapping[str, Floats]],
    ks: Sequence[int],
    lengths: Int64,
    resamples: int,
    seed: int,
) -> Evaluation:
    """The evaluation of next items with further metrics (n,) by name, which are NaN for users without a value."""
    measured = {name: values[~np.isnan(values)] for name, values in columns.items()}
    weights = {name: (~np.isnan(values)).astype(np.float64) for name, values in columns.items()}
    by_length = by_history_length(lengths, {name: np.nan_to_num(values) for name, values in columns.items()}, weights)
    intervals = {name: bootstrap_interval(values, resamples, seed) for name, values in measured.items() if resamples}
    return replace(
        plain,
        metrics={**plain.metrics, **{name: float(values.mean()) for name, values in measured.items()}},
        intervals={**plain.intervals, **intervals},
        per_user=plain.per_user.hstack(pl.DataFrame(dict(columns)).fill_nan(None)),
        parts={
            "kind": _by_kind(plain, parts, ks),
            **plain.parts,
            "history_length": plain.parts["history_length"].hstack(by_length.drop("history", "users")),
        },
    )


def _by_kind(plain: Evaluation, parts: Mapping[str, Mapping[str, Floats]], ks: Sequence[int]) -> pl.DataFrame:
    """A row for whole baskets, and one for each part and way of ranking.

    Returns
    -------
    table
        Columns `kind`, `baskets` (users with such items), and recall, ndcg, hr and precision at each k.
    """
    names = [f"{name}@{k}" for k in ks for name in _ROW]
    rows = [{"kind": "whole", "baskets": len(plain.per_user), **{name: plain.metrics[name] for name in names}}]
    for part, metrics in parts.items():
        kind, _, own = part.partition("_")
        counted = ~np.isnan(metrics[names[0]])
        means = {name: float(metrics[name][counted].mean()) for name in names} if counted.any() else {}
        words = f"{_KINDS[kind]}, among such" if own else _KINDS[kind]
        rows.append({"kind": words, "baskets": int(counted.sum()), **{name: means.get(name) for name in names}})
    schema = {"kind": pl.String, "baskets": pl.Int64, **dict.fromkeys(names, pl.Float64)}
    return pl.DataFrame(rows, schema=schema)
