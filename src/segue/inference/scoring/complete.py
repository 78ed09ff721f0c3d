"""Completion of a basket, step by step: the best item joins the basket, then the model is asked again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.asking.ids import warn_unrated
from segue.inference.asking.in_progress import reserve_slots
from segue.inference.asking.users import RequestedUsers
from segue.inference.scorer import Scorer
from segue.inference.scoring.lists import best_lists, list_frame
from segue.inference.scoring.popular import Rules, Scores


def complete_baskets(
    scorer: Scorer, users: RequestedUsers, n: int, rules: Rules, shares: Scores, catalogue: Vocabulary
) -> pl.DataFrame:
    """Add up to n items to the basket of each user; every step answers all users together.

    Parameters
    ----------
    scorer
        Answers as soon as a user has a history or an item in the basket.
    users
        Users, with or without a session in progress; without one, a session begins.
    n
        Number of steps. A user takes fewer if no item is left.
    rules
        Rules for the items; their k is not used.
    shares
        (n_items + 1,) popularity, which answers for users without history and basket.
    catalogue
        Raw ids of the items.

    Returns
    -------
    DataFrame
        user, item, score, step (from 1) and model, in the order of the users.

    Raises
    ------
    ConfigError
        n is below 1.
    """
    if n < 1:
        raise ConfigError(f"n={n} is a number of steps: expected 1 or more.")
    n = min(n, scorer.n_items)
    single = replace(rules, k=1)
    histories = reserve_slots(users.histories, np.full(len(users), n, dtype=np.int64))
    codes = np.zeros((len(users), n), dtype=np.int64)
    scores = np.zeros((len(users), n), dtype=np.float32)
    by_model = np.zeros((len(users), n), dtype=np.bool_)
    rows = np.arange(len(users))
    for step in range(n):
        current = replace(users, histories=histories).select(rows)
        best, best_scores = best_lists(scorer, current, single, shares)
        codes[rows, step], scores[rows, step] = best[:, 0], best_scores[:, 0]
        by_model[rows, step] = current.served_by(scorer)
        rows = rows[best[:, 0] > 0]
        if not len(rows):
            break
        ends = histories.ends.copy()
        histories.items[ends[rows]] = codes[rows, step]
        ends[rows] += 1
        histories = replace(histories, ends=ends)
    warn_unrated(scorer, catalogue, codes)
    return list_frame(scorer, users, catalogue, codes, scores, "step", by_model)
