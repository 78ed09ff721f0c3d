"""Examples for a report: recommendations with their reasons for a few users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.inference.explaining.neighbours import gives_reasons
from segue.inference.explaining.repeats import with_texts
from segue.inference.recommender import Recommender

_LEAST_SHARE = 0.01
"""Smallest effect of a reason to show, as a share of the strongest one."""


@dataclass(frozen=True)
class Suggestion:
    """One recommended item."""

    item: str
    """Raw id or name of the item."""

    score: float
    """The model's score."""

    reasons: Sequence[tuple[str, float]] = ()
    """(history item, its effect on the score), the strongest first. If the model counts repeats, the item has the
    number of its repeats, such as "milk (14 times, last 9 days ago)". For a rating model, (user and rating of an
    earlier rating of the item, its effect)."""


@dataclass(frozen=True)
class Example:
    """Recommendations for one user."""

    user: str
    """Raw id or name of the user."""

    history: Sequence[str]
    """The newest items of the history, oldest first."""

    suggestions: Sequence[Suggestion]
    """Recommended items, best first."""

    earlier: Sequence[str] = ()
    """Items of the history before the newest ones that reasons name, oldest first."""

    named: frozenset[str] = frozenset()
    """Items of the history that reasons name."""

    raters: bool = False
    """True if reasons are earlier ratings of the recommended item, by other users."""


def examples_of(
    recommender: Recommender,
    users: Sequence[Any],
    *,
    k: int = 3,
    reasons: int = 3,
    newest: int = 8,
    exclude_seen: bool = True,
) -> list[Example]:
    """Recommend items to some users as of the end of their histories, with reasons.

    Parameters
    ----------
    recommender
        Any Recommender.
    users
        Raw ids of known users.
    k
        Largest number of items for each user.
    reasons
        Largest number of reasons for each item: history items, or earlier ratings of the item, that added to its score.
        A rating model that reads no earlier ratings gives none.
    newest
        Largest number of the newest history items to show; earlier ones are shown if a reason names them.
    exclude_seen
        Leave out items of the history.
    """
    dataset = recommender.dataset
    lists = recommender.recommend(list(users), k=min(k, dataset.n_items), exclude_seen=exclude_seen)
    explained = lists if gives_reasons(recommender.model) else lists.clear()
    if len(explained):
        explained = recommender.explain(explained["user"], explained["item"], top=reasons)
    lists = lists.with_columns(dataset.item_names(lists["item"]).alias("name"))
    histories = dataset.histories(dataset.users.require(list(users), "user"))
    raters = "rating" in explained.columns
    examples = []
    for number, user in enumerate(users):
        codes = histories.items[histories.starts[number] : histories.ends[number]]
        rows = _shown(explained.filter(explained["user"] == user)) if len(explained) else explained
        named = set() if raters else set(dataset.catalogue.encode(rows["because"]).tolist()) if len(rows) else set()
        old, new = codes[:-newest].tolist(), codes[-newest:].tolist()
        earlier = [code for code in _last_of_each(old) if code in named and code not in new]
        suggestions = [
            Suggestion(row["name"], row["score"], _reasons(rows, row["item"], dataset))
            for row in lists.filter(lists["user"] == user).to_dicts()
        ]
        examples.append(
            Example(
                str(user),
                _names(new, dataset),
                suggestions,
                earlier=_names(earlier, dataset),
                named=frozenset(_names(sorted(named), dataset)),
                raters=raters,
            )
        )
    return examples


def _names(codes: Sequence[int], dataset: Dataset) -> list[str]:
    return dataset.item_names(dataset.catalogue.decode(np.array(codes, dtype=np.int32))).to_list()


def _last_of_each(codes: Sequence[int]) -> list[int]:
    """Each code once, in the order of their last places."""
    return list(reversed(dict.fromkeys(reversed(codes))))


def _shown(explained: pl.DataFrame) -> pl.DataFrame:
    """Reasons that add enough to the score of their item."""
    added = explained.filter(explained["effect"] > 0)
    return added.filter(pl.col("effect") >= _LEAST_SHARE * pl.col("effect").max().over("item"))


def _reasons(explained: pl.DataFrame, item: Any, dataset: Dataset) -> list[tuple[str, float]]:
    """History items that added to the score of an item, with their effects."""
    if not len(explained):
        return []
    rows = explained.filter(explained["item"] == item)
    if "rating" in rows.columns:
        text = pl.format("{} (rated it {})", "because", pl.col("rating").round(2))
        rows = rows.with_columns(because=text.str.replace(r"\.0\)$", ")"))
    else:
        rows = rows.with_columns(because=dataset.item_names(rows["because"]))
        if "times" in rows.columns:
            text = pl.format("{} ({})", "because", "repeats")
            rows = with_texts(rows, dataset).with_columns(because=pl.coalesce(text, "because"))
    return [(str(because), effect) for because, effect in rows.select("because", "effect").iter_rows()]
