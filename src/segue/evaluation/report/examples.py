"""Recommendations with their reasons for a few users, as one shows them to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from segue.inference.explaining.neighbours import gives_reasons
from segue.inference.recommender import Recommender

_WORTH_SAYING = 0.01
"""The least effect of a reason that is given, as a share of the strongest one's."""


@dataclass(frozen=True)
class Suggestion:
    """One recommended item."""

    item: str
    """What the reader knows it by: the raw id, or a name."""

    score: float
    """The model's score."""

    reasons: Sequence[tuple[str, float]] = ()
    """(history item, how much it added to the score), the strongest first; of a model of ratings (who rated the item
    before, and how high, how much it added)."""


@dataclass(frozen=True)
class Example:
    """What one user is recommended."""

    user: str
    """The user's raw id, or a name."""

    history: Sequence[str]
    """The newest items of the history, oldest first."""

    suggestions: Sequence[Suggestion]
    """Recommended items, best first."""


def examples_of(
    recommender: Recommender,
    users: Sequence[Any],
    *,
    k: int = 3,
    reasons: int = 3,
    shown: int = 8,
    exclude_seen: bool = True,
) -> list[Example]:
    """What comes next for some users, as of the end of their histories, and why.

    Parameters
    ----------
    recommender
        Any.
    users
        Raw ids, all of them known.
    k
        Items for each user, at most; a smaller catalogue gives fewer.
    reasons
        Reasons for each item, at most: those history items that added to its score, or those earlier ratings of it. A
        model of ratings that looks at none gives none.
    shown
        Items of the history that are shown, at most.
    exclude_seen
        Leave out what the user has had.
    """
    dataset = recommender.dataset
    lists = recommender.recommend(list(users), k=min(k, dataset.n_items), exclude_seen=exclude_seen)
    asked = lists if gives_reasons(recommender.model) else lists.clear()
    why = recommender.explain(asked["user"], asked["item"], top=reasons) if len(asked) else asked
    histories = dataset.histories(dataset.users.require(list(users), "user")).last(shown)
    examples = []
    for row, user in enumerate(users):
        taken = histories.items[histories.starts[row] : histories.ends[row]]
        suggestions = [
            Suggestion(str(found["item"]), found["score"], _reasons(why, user, found["item"]))
            for found in lists.filter(lists["user"] == user).to_dicts()
        ]
        examples.append(Example(str(user), [str(item) for item in dataset.catalogue.decode(taken)], suggestions))
    return examples


def _reasons(why: pl.DataFrame, user: Any, item: Any) -> list[tuple[str, float]]:
    """The history items that added to a score, with how much."""
    if not len(why):
        return []
    found = why.filter((why["user"] == user) & (why["item"] == item) & (why["effect"] > 0))
    found = found.filter(pl.col("effect") >= _WORTH_SAYING * pl.col("effect").max())
    if "rating" in found.columns:
        said = pl.format("{} (rated it {})", "because", pl.col("rating").round(2))
        found = found.with_columns(because=said.str.replace(r"\.0\)$", ")"))
    return [(str(because), effect) for because, effect in found.select("because", "effect").iter_rows()]
