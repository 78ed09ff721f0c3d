"""Evaluation of sessions: complete each one step by step, as the PARSRec paper does, with any model.

A session is a set of items. At each step the model ranks all items that are not in the basket yet, and what counts is
the best rank r (from 1) among the session's items that remain; it is a hit if r ≤ k. The basket then grows by that
item, or on a miss by another one that remains, and the next step follows, until the session is complete.
(Gholami, Motamedi and Aravindakshan 2022, "PARSRec: Explainable Personalized Attention-fused Recurrent Sequential
Recommendation Using Session Partial Actions", arXiv 2209.13015.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.splits.by_user import Holdout
from segue.evaluation.breakdown import by_history_length, by_step
from segue.evaluation.candidates import Candidates, Law, most_candidates
from segue.evaluation.metrics import SESSION_NAMES, Floats, session_terms
from segue.evaluation.questions import Questions
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.result import Evaluation
from segue.inference.scorer import HasScorer
from segue.inference.scoring.ranking import distinct, target_ranks
from segue.models.base import Model

CANDIDATES = 99
"""How many sampled items the PARSRec paper ranks the remaining ones among."""


def evaluate_sessions(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: int | Sequence[int] = (10,),
    candidates: int | Candidates | None = None,
    by: Law = "uniform",
    exclude_seen: bool = False,
    users: int | None = None,
    seed: int = 0,
    resamples: int = 1_000,
) -> Evaluation:
    """Complete the session of each row of a Holdout step by step, and say how well that went.

    The targets of a row are one session; an item that it holds more than once counts once. The metrics, from 0 to 1:

    - **sess_prec@k**, session precision: the share of a session's steps that are hits, mean over sessions;
    - **step_hr@k**: hits over steps, of all sessions together;
    - **step_ndcg@k**: 1 / log₂(1 + r) on a hit, else 0, mean over the steps of all sessions.

    With several k, the longest list decides which item joins the basket, so figures of a shorter one differ a little
    from those that it gives by itself. Ties count against the items that remain, and scores that are not finite are an
    error, as in `evaluate`. Every model is asked from the same baskets as far as its own answers allow: the item that
    joins on a miss is the first that remains in an order drawn once for each session.

    Parameters
    ----------
    recommender
        A Recommender, or a fitted model; one that knows nothing of sessions reads the history with the basket behind.
    holdout
        The sessions: `split.validation` or `split.test` of `last_session_out`.
    k
        Lengths of the lists, each from 1 to the size of the catalogue.
    candidates
        None ranks all items; a number ranks the remaining items among that many sampled ones, drawn once for each
        session from outside of it (99 in the paper); or `Candidates` drawn before.
    by
        How candidates are drawn, if a number is given: "uniform" or "popularity".
    exclude_seen
        Leave the items of the history out of the ranking as well, not only those of the basket. An item of the session
        that the user had before can then not be recommended: a step at which only such items remain is a miss.
        Candidates are then drawn from outside the history, too.
    users
        Ask only that many users, drawn from `seed`; all when None.
    seed
        Draws users, candidates, the order of the items within each session, and bootstrap resamples.
    resamples
        Of sessions, for the 95 % intervals; 0 for none.

    Returns
    -------
    evaluation
        The figures, their intervals, per session (`length`, and for each k `hits@k` and `gain@k`), by length of history
        and by step: at step 1 the basket is empty, at step 2 it holds one item, ….

    Raises
    ------
    ConfigError, DataError, EvaluationError
        As in `evaluate`.
    """
    questions = Questions.of(recommender, holdout, k, candidates, by, users, seed, from_history=not exclude_seen)
    sessions = _shuffled(distinct(questions.holdout.targets())[0], seed)
    ranks = _completed(questions, sessions, exclude_seen)
    hits = {k: (ranks <= k).astype(np.float64) for k in questions.ks}
    gains = {k: hit / np.log2(1 + ranks) for k, hit in hits.items()}
    starts = sessions.starts
    sums = {k: (np.add.reduceat(hits[k], starts), np.add.reduceat(gains[k], starts)) for k in questions.ks}
    by_k = {k: session_terms(*sums[k], sessions.lengths.astype(np.float64)) for k in questions.ks}
    terms = {f"{name}@{k}": by_k[k][name] for name in SESSION_NAMES for k in questions.ks}
    return Evaluation(
        model=questions.scorer.config.name,
        metrics={name: _mean(*term) for name, term in terms.items()},
        intervals={
            name: bootstrap_interval(values, resamples, seed, per=per)
            for name, (values, per) in terms.items()
            if resamples
        },
        per_user=_rows(questions.holdout, sessions.lengths, sums),
        parts={
            "history_length": by_history_length(
                questions.holdout.histories().lengths,
                {name: values for name, (values, _) in terms.items()},
                {name: per for name, (_, per) in terms.items() if per is not None},
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
) -> dict[str, Evaluation]:
    """`evaluate_sessions` ranking all items, which is the honest way, and among sampled ones, which is the paper's.

    Parameters
    ----------
    recommender, holdout, k, by, users, seed, resamples
        As in `evaluate_sessions`. Items of the history stay in the ranking.
    candidates
        How many are sampled for each session; None for 99, or for as many as there are where a catalogue is smaller.

    Returns
    -------
    evaluations
        "all" and "sampled"; without the second if `candidates` is None and no number of them is above the longest list,
        since all would be hits.
    """
    ask = partial(evaluate_sessions, recommender, holdout, k=k, by=by, users=users, seed=seed, resamples=resamples)
    found = {"all": ask()}
    if candidates is None:
        candidates = min(CANDIDATES, most_candidates(holdout, by=by, from_history=True))
        if candidates <= (k if isinstance(k, int) else max(k)):
            return found
    return found | {"sampled": ask(candidates=candidates)}


def _rows(holdout: Holdout, lengths: Int64, sums: Mapping[int, tuple[Floats, Floats]]) -> pl.DataFrame:
    """A row per session: who, how much came before, its steps, and its (hits, gain) for each k."""
    about = {
        "user": holdout.dataset.users.decode(holdout.users),
        "history": holdout.histories().lengths,
        "length": lengths,
    }
    hits = {f"hits@{k}": hit.astype(np.int64) for k, (hit, _) in sums.items()}
    return pl.DataFrame(about | hits | {f"gain@{k}": gain for k, (_, gain) in sums.items()})


def _mean(values: Floats, per: Floats | None) -> float:
    return float(values.mean() if per is None else values.sum() / per.sum())


def _shuffled(sessions: Histories, seed: int) -> Histories:
    """The same sessions, the items of each in an order drawn from `seed`; they lie one after the other."""
    keys = np.random.default_rng(seed).random(len(sessions.items))
    order = np.lexsort((keys, rows_of(sessions.starts, sessions.ends)))
    return replace(sessions, items=sessions.items[order])


def _completed(questions: Questions, sessions: Histories, exclude_seen: bool) -> Int64:
    """The rank of the best remaining item at every step (sum of the sessions' lengths,), session by session.

    Row r of `sessions`, whose items are distinct and in the order in which they join on a miss, is that of the Holdout.
    """
    asked = questions.holdout.histories()
    ends, k = asked.ends, max(questions.ks)
    items = np.array(asked.items)  # a copy, in which each basket takes the place of its session as it grows
    ranks = np.zeros(len(sessions.items), dtype=np.int64)
    left = sessions.items
    for step in range(int(sessions.lengths.max())):
        rows = np.flatnonzero(sessions.lengths > step)
        offsets = offsets_of(sessions.lengths[rows] - step)
        now = replace(asked.select(rows), items=items, ends=ends[rows] + step, baskets=ends[rows])
        found = target_ranks(
            questions.scorer,
            now,
            Histories(now.users, left, offsets[:-1], offsets[1:]),
            seen=now if exclude_seen else replace(now, starts=ends[rows]),
            candidates=None if questions.candidates is None else questions.candidates.codes[rows],
        )
        best = np.minimum.reduceat(found, offsets[:-1])
        ranks[sessions.starts[rows] + step] = best
        joins = offsets[:-1].copy()
        # Only one item of a session has its best rank, if that is within a list: ranks of targets are distinct.
        joins[best <= k] = np.flatnonzero((found == np.repeat(best, np.diff(offsets))) & (found <= k))
        items[ends[rows] + step] = left[joins]
        left = np.delete(left, joins)
    return ranks
