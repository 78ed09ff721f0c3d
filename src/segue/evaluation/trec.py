"""Rankings and targets in the form of TREC, for ir-measures, ranx, trec_eval and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64, rows_of
from segue.data.splits.holdouts import Holdout
from segue.errors import ConfigError
from segue.evaluation.tasks.result import Evaluation
from segue.files import atomic_file
from segue.inference.scorer import HasScorer
from segue.inference.scoring.ranking import distinct, target_ranks, top_k
from segue.settings import is_path

QRELS, RUN = "qrels.txt", "run.txt"
"""Names of the files: targets, and the ranking."""


def write_trec(
    folder: str | Path, recommender: HasScorer, holdout: Holdout, evaluation: Evaluation, *, depth: int = 100
) -> tuple[Path, Path]:
    """Write the targets and the ranking behind an evaluation.

    `qrels.txt` has a line `user 0 item 1` per target, `run.txt` a line `user Q0 item rank score model` per item of a
    list. Scores fall by one from rank to rank: evaluators sort by score, and break ties in ways of their own. A target
    stands at the rank that the evaluation gave it, behind all others with its score. Two targets of one user with equal
    scores stand behind each other.

    Parameters
    ----------
    folder
        Folder of the files; it is made if it is missing.
    recommender, holdout
        The model and the questions of the evaluation.
    evaluation
        Figures among all items; it tells the users, and if seen items were left out.
    depth
        Length of the lists.

    Returns
    -------
    qrels, run
        Paths of the files.

    Raises
    ------
    ConfigError
        The evaluation is among sampled items, or is no ranking of items; or an id has a blank in it.
    """
    protocol = evaluation.protocol
    if protocol.get("candidates") != "all" or "exclude_seen" not in protocol:
        raise ConfigError(
            "TREC files hold a ranking of all items, and this evaluation has none: leave candidates out, or measure "
            "the ranking of a rating model (--ranking)."
        )
    codes = holdout.dataset.users.encode(evaluation.per_user["user"])
    part = holdout.select(np.flatnonzero(np.isin(holdout.users, codes)))
    targets = distinct(part.targets())[0]
    lists = _lists(recommender, part, targets, depth, bool(protocol["exclude_seen"]))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    users = _words(holdout.dataset.users.decode(part.users), "user")
    catalogue = _words(holdout.dataset.catalogue.ids, "item")
    owners = rows_of(targets.starts, targets.ends)
    qrels = pl.DataFrame(
        {"user": users.gather(owners), "run": "0", "item": catalogue.gather(targets.items - 1), "gain": 1}
    )
    rows, ranks = np.nonzero(lists)
    name = "-".join(evaluation.model.split()) if is_path(evaluation.model) else "segue"
    run = pl.DataFrame(
        {
            "user": users.gather(rows),
            "q0": "Q0",
            "item": catalogue.gather(lists[rows, ranks] - 1),
            "rank": ranks + 1,
            "score": depth - ranks,
            "tag": name,
        }
    )
    for file, frame in ((QRELS, qrels), (RUN, run)):
        with atomic_file(place / file) as temporary:
            frame.write_csv(temporary, separator=" ", include_header=False, quote_style="never")
    return place / QRELS, place / RUN


def _lists(recommender: HasScorer, part: Holdout, targets: Histories, depth: int, exclude_seen: bool) -> Int64:
    """Item codes (n, depth) of the lists, with targets at the ranks of the evaluation; 0 behind the end of a list."""
    scorer, histories = recommender.scorer, part.histories()
    ranks = target_ranks(scorer, histories, targets, exclude_seen=exclude_seen)
    width = min(scorer.n_items, depth + int(targets.lengths.max(initial=0)))
    codes = top_k(scorer, histories, width, exclude_seen=exclude_seen)[0].astype(np.int64)
    owners = rows_of(targets.starts, targets.ends)
    order = np.lexsort((ranks, owners))
    owners, ranks, items = owners[order], ranks[order], targets.items[order].astype(np.int64)
    nth = np.arange(len(owners)) - np.searchsorted(owners, owners)
    far = int(ranks.max(initial=0)) + len(ranks) + 1  # the running maximum starts again for each user
    ranks = np.maximum.accumulate(ranks - nth + owners * far) + nth - owners * far
    lists = np.zeros((len(part), depth), dtype=np.int64)
    near = ranks <= depth
    lists[owners[near], ranks[near] - 1] = items[near]
    size = scorer.n_items + 1
    taken = np.isin(np.arange(len(codes))[:, None] * size + codes, owners * size + items) | (codes == 0)
    others = np.take_along_axis(np.where(taken, 0, codes), np.argsort(taken, axis=1, kind="stable"), axis=1)
    others = np.pad(others, ((0, 0), (0, max(0, depth - others.shape[1]))))[:, :depth]
    free = lists == 0
    filled = np.take_along_axis(others, np.maximum(np.cumsum(free, axis=1) - 1, 0), axis=1)
    return np.where(free, filled, lists)


def _words(ids: pl.Series, role: str) -> pl.Series:
    words = ids.cast(pl.String)
    blank = words.str.contains(r"\s") | (words == "")
    if blank.any():
        raise ConfigError(
            f"the id {words.filter(blank)[0]!r} of a {role} has a blank in it, which separates columns of TREC files."
        )
    return words
