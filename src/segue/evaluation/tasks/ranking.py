"""Base of the tasks that rank items: the words for their figures, and the checks of their validation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from segue.data.splits.holdouts import Holdout
from segue.data.statistics.sessions import REPEATING
from segue.errors import ConfigError
from segue.evaluation.tasks.task import Task, ValidationPlan
from segue.models.base import Model


class RankingTask(Task):
    """A task whose targets are ranked among all items, or among sampled ones."""

    settings: ClassVar[tuple[str, ...]] = ("candidates", "drawn_by", "drawn_from_seed", "exclude_seen")

    def candidates(self, protocol: Mapping[str, Any]) -> str:
        """Items that the targets were ranked among, in words."""
        if protocol["candidates"] == "all":
            return f"all {protocol['items']:,} items"
        if protocol["drawn_by"] == "uniform":
            return f"{protocol['candidates']:,} sampled items"
        return f"{protocol['candidates']:,} items sampled by {protocol['drawn_by']}"

    def sampled(self, protocol: Mapping[str, Any]) -> str:
        """Words for a sentence if the targets were ranked among sampled items; none if among all items."""
        return "" if protocol["candidates"] == "all" else f" among {self.candidates(protocol)}"

    def setting(self, protocol: Mapping[str, Any]) -> str:
        """One line on the setting of an evaluation."""
        seen = "seen items left out" if protocol["exclude_seen"] else "seen items kept"
        return f"{super().setting(protocol)}, {seen}"

    def suitable_metric(self, validation: Holdout | None) -> str:
        """The usual metric; with lists of the whole catalogue if that is smaller."""
        name, _, k = self.usual_metric.partition("@")
        return self.usual_metric if validation is None else f"{name}@{min(int(k), validation.dataset.n_items)}"

    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        """Check the length of the lists against the number of items that are ranked."""
        n_items = holdout.dataset.n_items
        if not 1 <= plan.k <= n_items:
            raise ConfigError(f"metric={plan.metric!r}: the catalogue has {n_items:,} items; look at so many at most.")
        if plan.candidates is not None and plan.k > plan.candidates:
            raise ConfigError(
                f"metric={plan.metric!r}: validation_candidates={plan.candidates} are ranked with each target; look at "
                "so many at most, or rank among more."
            )


def warn_of_seen(share: float, holdout: Holdout, option: str = "exclude_seen=False (--include-seen)") -> None:
    """Warn if seen items are left out and people repeat themselves.

    Parameters
    ----------
    share
        Share of the targets that stand in their users' histories.
    holdout
        The questions.
    option
        The option that keeps seen items.
    """
    if share >= REPEATING:
        amount = "all" if share == 1 else f"{share:.0%}"
        warnings.warn(
            f"{amount} of the targets of the {holdout.name} part were in their user's history before. Seen items are "
            f"left out of the ranking, so these targets count as missed. Keep seen items: {option}.",
            stacklevel=4,
        )


def warn_of_seen_targets(plan: ValidationPlan, holdout: Holdout) -> None:
    """Warn before a training whose validation leaves seen items out, if people repeat themselves."""
    if plan.exclude_seen and len(holdout):
        option = "validation_exclude_seen=False (--training.validation-exclude-seen false)"
        warn_of_seen(holdout.repeat_share(), holdout, option)
