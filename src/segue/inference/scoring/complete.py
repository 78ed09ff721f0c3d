"""The rest of a basket, step by step: the best item joins it, then the model is asked again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.asking.baskets import spread
from segue.inference.asking.users import People, warn_unrated
from segue.inference.scorer import Scorer
from segue.inference.scoring.lists import Rules, Scores, best_lists, list_frame


def completed(
    scorer: Scorer, people: People, n: int, rules: Rules, shares: Scores, catalogue: Vocabulary
) -> pl.DataFrame:
    """What n steps add to the baskets of people, all of whom are answered together at each step.

    Parameters
    ----------
    scorer
        Answers from the moment on at which there is a history or an item in the basket.
    people
        Whose sessions are completed; who is not in the middle of one begins it.
    n
        How many steps; who has nothing left to be recommended takes fewer.
    rules
        What may be added, but for their k.
    shares
        (n_items + 1,) popularity, which answers where there is neither history nor basket.
    catalogue
        The raw ids of the items.

    Returns
    -------
    DataFrame
        user, item, score, step (from 1) and model, in the order of the people.

    Raises
    ------
    ConfigError
        n below 1.
    """
    if n < 1:
        raise ConfigError(f"n={n} is a number of steps: expected 1 or more.")
    n = min(n, scorer.n_items)
    best = replace(rules, k=1)
    histories = spread(people.histories, np.full(len(people), n, dtype=np.int64))
    codes = np.zeros((len(people), n), dtype=np.int64)
    scores = np.zeros((len(people), n), dtype=np.float32)
    met = np.zeros((len(people), n), dtype=np.bool_)
    asked = np.arange(len(people))
    for step in range(n):
        some = replace(people, histories=histories).select(asked)
        found, found_scores = best_lists(scorer, some, best, shares)
        codes[asked, step], scores[asked, step], met[asked, step] = found[:, 0], found_scores[:, 0], some.met_by(scorer)
        asked = asked[found[:, 0] > 0]
        if not len(asked):
            break
        ends = histories.ends.copy()
        histories.items[ends[asked]] = codes[asked, step]
        ends[asked] += 1
        histories = replace(histories, ends=ends)
    warn_unrated(scorer, catalogue, codes)
    return list_frame(scorer, people, catalogue, codes, scores, "step", met)
