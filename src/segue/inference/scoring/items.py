"""Scores of given items: from the model, or popularity for users without history and basket."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError
from segue.inference.asking.ids import warn_cold, warn_unrated
from segue.inference.asking.users import RequestedUsers
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import LIMITS, Sweep, batches, require_finite, to_device
from segue.inference.scoring.lists import model_names
from segue.inference.scoring.popular import Scores
from segue.inference.scoring.ranking import Progress

_MIN_RATIO = 16
"""Items are scored pair by pair if the catalogue is more than this many times larger, else by chunks."""


def score_frame(
    scorer: Scorer,
    users: RequestedUsers,
    items: Int64,
    shares: Scores,
    catalogue: Vocabulary,
    long: bool,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Scores of the item codes `items` (m,) for n users as a frame with raw ids.

    Long: a row per user and item: user, item, score, model. Wide: a row per user: user, then a column per item.

    Raises
    ------
    DataError
        The frame is wide, and an item has the id "user".
    EvaluationError
        A score is NaN or infinite.
    """
    warn_unrated(scorer, catalogue, items)
    warn_cold(scorer, catalogue, items, "have no score")
    matrix = score_matrix(scorer, users, items, shares, progress)
    ids = catalogue.decode(items)
    return _long_frame(scorer, users, ids, matrix) if long else _wide_frame(users, ids, matrix)


def _wide_frame(users: RequestedUsers, items: pl.Series, matrix: Scores) -> pl.DataFrame:
    columns = items.cast(pl.String).to_list()
    if "user" in columns:
        raise DataError('an item has the id "user", which is a column of its own in the wide form: use long=True.')
    return pl.DataFrame(matrix, schema=columns).fill_nan(None).insert_column(0, users.ids.alias("user"))


def _long_frame(scorer: Scorer, users: RequestedUsers, items: pl.Series, matrix: Scores) -> pl.DataFrame:
    rows = np.repeat(np.arange(len(users)), len(items))
    return pl.DataFrame(
        {
            "user": users.ids[rows],
            "item": items[np.tile(np.arange(len(items)), len(users))],
            "score": pl.Series(matrix.reshape(-1)).fill_nan(None),
            "model": model_names(scorer, users.served_by(scorer)[rows]),
        }
    )


def score_matrix(
    scorer: Scorer, users: RequestedUsers, items: Int64, shares: Scores, progress: Progress | None = None
) -> Scores:
    """Scores (n, m) of the item codes `items` (m,) for n users; `shares` (n_items + 1,) are the popularity.

    The scores of items that the model cannot score (`Scorer.cold`) are NaN.

    `progress` is called after each batch with its number of users.

    Raises
    ------
    EvaluationError
        A score is NaN or infinite.
    """
    served = np.flatnonzero(users.served_by(scorer))
    scores = np.empty((len(users), len(items)), dtype=np.float32)
    if len(served) < len(users):
        scores[:] = shares[items]
    if len(served):
        histories = users.histories.select(served)
        by_pair = len(items) * _MIN_RATIO < scorer.n_items
        scores[served] = (_by_pair if by_pair else _by_chunk)(scorer, histories, items, progress)
    if scorer.cold is not None:
        scores[:, np.isin(items, scorer.cold.cpu().numpy())] = np.nan
    return scores


def _by_pair(scorer: Scorer, histories: Histories, items: Int64, progress: Progress | None) -> Scores:
    scores = np.empty((len(histories), len(items)), dtype=np.float32)
    rows = max(1, min(LIMITS.histories, LIMITS.pairs // max(1, len(items))))
    with torch.inference_mode():
        codes = to_device(items, scorer.device)
        for index, queries in batches(scorer, histories, rows, LIMITS):
            batch_scores: Tensor = scorer.score_items(queries, codes.expand(len(queries), -1))
            require_finite(batch_scores)
            scores[index] = batch_scores.cpu().numpy()
            if progress is not None:
                progress(len(index))
    return scores


def _by_chunk(scorer: Scorer, histories: Histories, items: Int64, progress: Progress | None) -> Scores:
    scores = np.empty((len(histories), len(items)), dtype=np.float32)
    with torch.inference_mode():
        sweep = Sweep(scorer, LIMITS, len(histories))
        for index, queries in batches(scorer, histories, sweep.rows, LIMITS):
            for chunk in sweep.chunks(queries):
                inside = np.flatnonzero((items >= chunk.start) & (items < chunk.stop))
                columns = torch.from_numpy(items[inside] - chunk.start).to(scorer.device)
                scores[index[:, None], inside] = chunk.scores[:, columns].cpu().numpy()
            if progress is not None:
                progress(len(index))
    return scores
