"""The task of sessions: complete each one step by step, as the PARSRec paper does, with any model.

A session is a set of items. At each step the model ranks all items that are not in the basket yet. The step counts the
best rank r (from 1) among the remaining items of the session; it is a hit if r ≤ k. The basket then grows by that item,
or on a miss by another remaining one. The next step follows, until the session is complete.
(Gholami, Motamedi and Aravindakshan 2022, "PARSRec: Explainable Personalized Attention-fused Recurrent Sequential
Recommendation Using Session Partial Actions", arXiv 2209.13015.)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import polars as pl

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.splits.holdouts import Holdout
from segue.engines.engine import Engine
from segue.errors import ConfigError
from segue.evaluation.breakdown import by_history_length, by_step
from segue.evaluation.candidates import Candidates, Law, most_candidates, sample_candidates
from segue.evaluation.metrics import Floats
from segue.evaluation.questions import Questions, lengths_of
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.tasks.baskets import Baskets
from segue.evaluation.tasks.description import Metric, Wording, within
from segue.evaluation.tasks.next_items import NextItems
from segue.evaluation.tasks.ranking import RankingTask
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, Measure, ValidationPlan
from segue.inference.scorer import HasScorer
from segue.inference.scoring.by_parts import Ranker, ranker
from segue.inference.scoring.ranking import distinct
from segue.models.base import Model
from segue.settings import Count, Resamples, Seed

CANDIDATES = 99
"""Number of sampled items in the PARSRec paper."""


class Sessions(RankingTask):
    """Complete the session of each user, step by step."""

    name: ClassVar[str] = "sessions"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("sess_prec", "Session precision{}", "share of a session's steps that are hits, mean over sessions"),
        Metric("step_hr", "Hit rate{} per step", "share of the steps of all sessions that are hits"),
        Metric("step_ndcg", "NDCG{} per step", "gain of a hit, less for later ranks, mean over the steps"),
    )
    headlines: ClassVar[tuple[str, ...]] = ("sess_prec", "step_ndcg")
    unit: ClassVar[str] = "sessions"
    part_titles: ClassVar[Mapping[str, str]] = {"history_length": "By length of history", "step": "By step"}
    note: ClassVar[str] = (
        "Each session is completed step by step. The model ranks the items that are not in the basket: all of them, or "
        "a sample and the remaining items of the session. The best of the remaining items counts, and joins the basket "
        "if it is within the list; otherwise another one joins. Later steps are harder, as fewer items remain. "
        "Intervals resample sessions."
    )
    settings: ClassVar[tuple[str, ...]] = ("basket_k", *RankingTask.settings)
    usual_metric: ClassVar[str] = "sess_prec@10"
    exclude_seen: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("last-session-out",)

    def recognises(self, protocol: Mapping[str, Any]) -> bool:
        """True if an evaluation with this protocol is of sessions."""
        return "basket_k" in protocol

    def questions(self, protocol: Mapping[str, Any]) -> str:
        """Number of sessions and steps, in words."""
        return f"{protocol['users']:,} sessions completed step by step, {protocol['targets']:,} steps"

    def wording(self, name: str, protocol: Mapping[str, Any]) -> Wording:
        """Words for the session precision: steps that are hits."""
        if name.partition("@")[0] != "sess_prec":
            return super().wording(name, protocol)
        return Wording(f"finds the item of {{}} of 100 steps of a session {within(name)}{self.sampled(protocol)}")

    def terms(self, name: str, per_user: pl.DataFrame) -> tuple[Floats, Floats | None] | None:
        """Values and weights per session."""
        metric, _, k = name.partition("@")
        columns = (f"hits@{k}", f"gain@{k}", "length")
        if any(column not in per_user.columns for column in columns):
            return None
        return _terms(*(per_user[column].to_numpy().astype(float) for column in columns)).get(metric)

    def suitable_split(self, dataset: Dataset) -> dict[str, Any]:
        """The last session of each user for the test, the last but one for validation."""
        _ = dataset.sessions  # a DataError that says how to prepare them, if there are none
        return {"name": "last-session-out"}

    def suitable_metric(self, validation: Holdout | None) -> str:
        """Session precision; NDCG of the next items if the targets are not whole sessions."""
        whole = validation is None or validation.whole_sessions
        return self.usual_metric if whole else NextItems.usual_metric

    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        """Check the length of the lists, and whether the targets are sessions."""
        super().check_validation(model, plan, holdout)
        if not holdout.whole_sessions:
            raise ConfigError(
                f"metric={plan.metric!r} is measured on whole sessions, and the {holdout.name} part does not hold "
                "such: split by last-session-out (a Dataset with sessions), or choose a metric such as ndcg@10."
            )

    def validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> Measure:
        """Measure all three metrics."""
        n, k = plan.candidates, plan.k
        candidates = None if n is None else sample_candidates(holdout, n, seed=plan.seed, from_history=True)

        def measured_now() -> dict[str, float]:
            evaluation = evaluate_sessions(model, holdout, k=k, candidates=candidates, seed=plan.seed, resamples=0)
            return {metric.at(k): evaluation[metric.at(k)] for metric in self.metrics}

        return measured_now

    def measure(self, recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
        """Evaluate the next items or baskets and, if the split holds out sessions, the sessions beside them."""
        baskets = Baskets()
        next_items = (baskets if baskets.suits(holdout) else NextItems()).measure(recommender, holdout, options)
        if options.split not in self.splits:
            return next_items
        k = lengths_of(options.k, holdout.dataset.n_items)
        sessions = both_ways(
            recommender,
            holdout,
            k=k,
            candidates=options.candidates,
            by=options.by,
            users=options.users,
            seed=options.seed,
            engine=options.engine,
        )
        if "sampled" not in sessions:
            warnings.warn(
                f"Sessions are not ranked among sampled items: none would be below a list of {max(k)}.", stacklevel=2
            )
        return replace(next_items, sessions=sessions)


@checked
def evaluate_sessions(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: Count | Sequence[Count] | None = None,
    candidates: Count | Candidates | None = None,
    by: Law = "uniform",
    exclude_seen: bool = False,
    users: Count | None = None,
    seed: Seed = 0,
    resamples: Resamples = 1_000,
    engine: Engine | None = None,
) -> Evaluation:
    """Complete the session of each row of a Holdout step by step, and measure the steps.

    The targets of a row are one session; an item that it holds more than once counts once. The metrics, from 0 to 1:

    - **sess_prec@k**, session precision: the share of a session's steps that are hits, mean over sessions;
    - **step_hr@k**: hits over steps, of all sessions together;
    - **step_ndcg@k**: 1 / log₂(1 + r) on a hit, else 0, mean over the steps of all sessions.

    With several k, the longest list decides the item that joins the basket, so the figures of a shorter list differ a
    little from those that it gives alone. Ties count against the remaining items, and scores that are not finite are an
    error, as in `evaluate`. The item that joins on a miss is the first remaining one in an order that is drawn once for
    each session. So baskets differ between models only by their hits.

    Parameters
    ----------
    recommender
        A Recommender, or a fitted model. A model without sessions reads the basket as the newest part of the history.
    holdout
        The sessions: `split.validation` or `split.test` of `last_session_out`.
    k
        Lengths of the lists, each from 1 to the size of the catalogue. When None, 10, or all of a
        smaller catalogue.
    candidates
        None ranks all items. A number ranks the remaining items among that many sampled ones, drawn once for each
        session from the other items (99 in the paper). `Candidates` that were drawn before are taken as they are.
    by
        Law of the candidates, if a number is given: "uniform" or "popularity".
    exclude_seen
        Leave the items of the history out of the ranking, not only those of the basket. A step is then a miss if all
        remaining items are in the history. Candidates are then drawn from outside the history, too.
    users
        Number of users to evaluate, drawn from `seed`; all when None.
    seed
        Seed of users, candidates, the order of the items within each session, and bootstrap resamples.
    resamples
        Number of resamples of sessions for the 95 % intervals; 0 for none.
    engine
        Workers that rank, as in `evaluate`.

    Returns
    -------
    evaluation
        Metrics, intervals, values per session (`length`, and for each k `hits@k` and `gain@k`), by length of history
        and by step. At step 1 the basket is empty, at step 2 it holds one item, ….

    Raises
    ------
    ConfigError, DataError, EvaluationError
        As in `evaluate`.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> evaluation = segue.evaluate_sessions(segue.fit(segue.Markov(), split), split.test, k=5)
    >>> list(evaluation.metrics)
    ['sess_prec@5', 'step_hr@5', 'step_ndcg@5']
    """
    questions = Questions.of(recommender, holdout, k, candidates, by, users, seed, from_history=not exclude_seen)
    sessions = _shuffled(distinct(questions.holdout.targets())[0], seed)
    with ranker(questions.scorer, engine) as ranking:
        ranks = _completed(questions, ranking, sessions, exclude_seen)
    hits = {k: (ranks <= k).astype(np.float64) for k in questions.ks}
    gains = {k: hit / np.log2(1 + ranks) for k, hit in hits.items()}
    starts = sessions.starts
    sums = {k: (np.add.reduceat(hits[k], starts), np.add.reduceat(gains[k], starts)) for k in questions.ks}
    by_k = {k: _terms(*sums[k], sessions.lengths.astype(np.float64)) for k in questions.ks}
    terms = {metric.at(k): by_k[k][metric.name] for metric in Sessions.metrics for k in questions.ks}
    return Evaluation(
        model=questions.scorer.config.name,
        metrics={name: _mean(*term) for name, term in terms.items()},
        intervals={
            name: bootstrap_interval(values, resamples, seed, per=weights)
            for name, (values, weights) in terms.items()
            if resamples
        },
        per_user=_rows(questions.holdout, sessions.lengths, sums),
        parts={
            "history_length": by_history_length(
                questions.holdout.histories().lengths,
                {name: values for name, (values, _) in terms.items()},
                {name: weights for name, (_, weights) in terms.items() if weights is not None},
            ),
            "step": by_step(
                positions(np.ones_like(sessions.lengths), sessions.lengths + 1),
                {f"step_hr@{k}": hit for k, hit in hits.items()}
                | {f"step_ndcg@{k}": gain for k, gain in gains.items()},
            ),
        },
        protocol=questions.protocol(sessions, exclude_seen) | {"basket_k": max(questions.ks)},
    )


def both_ways(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: int | Sequence[int] = (10,),
    candidates: int | None = None,
    by: Law = "uniform",
    users: int | None = None,
    seed: int = 0,
    resamples: int = 1_000,
    engine: Engine | None = None,
) -> dict[str, Evaluation]:
    """Call `evaluate_sessions` with all items, which is the honest way, and with sampled ones, as the paper does.

    Parameters
    ----------
    recommender, holdout, k, by, users, seed, resamples, engine
        As in `evaluate_sessions`. Items of the history stay in the ranking.
    candidates
        Number of sampled items for each session; None for 99, or for as many as a smaller catalogue has.

    Returns
    -------
    evaluations
        "all" and "sampled". The second is missing if `candidates` is None and the catalogue has no more of them than
        the longest list, since all steps would be hits.
    """
    evaluate_by = partial(
        evaluate_sessions, recommender, holdout, k=k, by=by, users=users, seed=seed, resamples=resamples, engine=engine
    )
    evaluations = {"all": evaluate_by()}
    if candidates is None:
        candidates = min(CANDIDATES, most_candidates(holdout, by=by, from_history=True))
        if candidates <= (k if isinstance(k, int) else max(k)):
            return evaluations
    return evaluations | {"sampled": evaluate_by(candidates=candidates)}


def _terms(hits: Floats, gains: Floats, lengths: Floats) -> dict[str, tuple[Floats, Floats | None]]:
    """Values per session that each metric is the mean of, by name.

    Parameters
    ----------
    hits
        (n,) number of hits of each session.
    gains
        (n,) sum over the hits of 1 / log₂(1 + r); r from 1 is the rank of the best of the remaining items.
    lengths
        (n,) number of steps of each session.

    Returns
    -------
    terms
        Values and None: the metric is their mean. Values and weights, (n,) each: the metric is the sum of the values
        over the sum of the weights, which is the mean over all steps.
    """
    return {"sess_prec": (hits / lengths, None), "step_hr": (hits, lengths), "step_ndcg": (gains, lengths)}


def _rows(holdout: Holdout, lengths: Int64, sums: Mapping[int, tuple[Floats, Floats]]) -> pl.DataFrame:
    """A row per session: user, length of the history, steps, hits and gain for each k."""
    basic = {
        "user": holdout.dataset.users.decode(holdout.users),
        "history": holdout.histories().lengths,
        "length": lengths,
    }
    hits = {f"hits@{k}": hit.astype(np.int64) for k, (hit, _) in sums.items()}
    return pl.DataFrame(basic | hits | {f"gain@{k}": gain for k, (_, gain) in sums.items()})


def _mean(values: Floats, weights: Floats | None) -> float:
    return float(values.mean() if weights is None else values.sum() / weights.sum())


def _shuffled(sessions: Histories, seed: int) -> Histories:
    """The same sessions with the items of each in an order drawn from `seed`, end to end."""
    keys = np.random.default_rng(seed).random(len(sessions.items))
    order = np.lexsort((keys, rows_of(sessions.starts, sessions.ends)))
    return replace(sessions, items=sessions.items[order])


def _completed(questions: Questions, ranking: Ranker, sessions: Histories, exclude_seen: bool) -> Int64:
    """Rank of the best remaining item at every step (sum of the sessions' lengths,), session by session.

    The rows of `sessions` are those of the Holdout. Their items are distinct, in the order of joining on a miss.
    """
    histories = questions.holdout.histories()
    ends, k = histories.ends, max(questions.ks)
    items = np.array(histories.items)  # a copy, in which each growing basket overwrites its session
    ranks = np.zeros(len(sessions.items), dtype=np.int64)
    remaining = sessions.items
    for step in range(int(sessions.lengths.max())):
        rows = np.flatnonzero(sessions.lengths > step)
        offsets = offsets_of(sessions.lengths[rows] - step)
        now = replace(histories.select(rows), items=items, ends=ends[rows] + step, baskets=ends[rows])
        step_ranks = ranking.target_ranks(
            now,
            Histories(now.users, remaining, offsets[:-1], offsets[1:]),
            seen=now if exclude_seen else replace(now, starts=ends[rows]),
            candidates=None if questions.candidates is None else questions.candidates.codes[rows],
        )
        best = np.minimum.reduceat(step_ranks, offsets[:-1])
        ranks[sessions.starts[rows] + step] = best
        joins = offsets[:-1].copy()
        # Ranks of targets are distinct, so one item of a session alone has its best rank, if that is within the list.
        is_best = step_ranks == np.repeat(best, np.diff(offsets))
        joins[best <= k] = np.flatnonzero(is_best & (step_ranks <= k))
        items[ends[rows] + step] = remaining[joins]
        remaining = np.delete(remaining, joins)
    return ranks
