"""Choice of a model that suits the data, from the statistics of its sessions."""

from __future__ import annotations

from dataclasses import dataclass

from segue.data.dataset import Dataset
from segue.data.statistics.sessions import SessionStatistics, describe_sessions
from segue.models.registry import MODELS

BASKET_SPLIT = "last-session-out"
"""Name of the split that holds out whole baskets."""

_FOR_REPEATS = ("personal-frequency",)
"""Names of counting models for baskets of people who repeat themselves, the first choice first."""


@dataclass(frozen=True)
class Suggestion:
    """A model and a split that suit the data, and the reason."""

    model: str | None
    """Name of the model; None if no registered model is made for such data."""

    split: str
    """Name of the split."""

    reason: str
    """The statistics behind the choice, in words."""


def suggestion_for(sessions: SessionStatistics | None) -> Suggestion | None:
    """The model and the split that suit data with these sessions; None if the usual ones do.

    Baskets are sessions of two items or more on average. They are held out as a whole. If people repeat themselves,
    the count of what each of them took before is hard to beat (Li et al. 2023, "A Next Basket Recommendation Reality
    Check"; Hu et al. 2020, "Modeling Personalized Item Frequency Information for Next-basket Recommendation").

    Parameters
    ----------
    sessions
        Statistics of the sessions, `describe(dataset).sessions`; None without sessions.
    """
    if sessions is None or not sessions.baskets or not sessions.repeating:
        return None
    model = next((name for name in _FOR_REPEATS if name in MODELS), None)
    reason = f"baskets of {sessions.lengths.mean:.1f} items, {sessions.bought_before:.0%} of them bought before"
    return Suggestion(model, BASKET_SPLIT, reason)


def suggestion_for_dataset(dataset: Dataset) -> Suggestion | None:
    """`suggestion_for` the visible sessions of a Dataset."""
    return None if dataset.session_offsets is None else suggestion_for(describe_sessions(dataset))
