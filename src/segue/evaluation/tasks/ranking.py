"""Base of the tasks that rank items: the words for their figures, and the checks of their validation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from segue.data.ragged import positions, rows_of
from segue.data.splits.holdouts import Holdout
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


def warn_of_seen_targets(plan: ValidationPlan, holdout: Holdout) -> None:
    """Warn if no target can be hit, because all are in the histories and seen items are left out."""
    if plan.exclude_seen and len(holdout) and not _any_unseen(holdout):
        warnings.warn(
            f"every target of the {holdout.name} part was in its user's history before, and seen items are left out "
            f"of the ranking: {plan.metric} will be 0. Keep them: validation_exclude_seen=False.",
            stacklevel=2,
        )


def _any_unseen(holdout: Holdout) -> bool:
    """True if any target is not in its user's history."""
    data = holdout.dataset
    starts = data.starts[holdout.users]

    def keys(starts: Any, ends: Any) -> Any:
        """One number for each pair of a row and an item code."""
        return rows_of(starts, ends) * (data.n_items + 1) + data.items[positions(starts, ends)]

    history, targets = keys(starts, holdout.history_ends), keys(holdout.history_ends, holdout.target_ends)
    return not bool(np.isin(targets, history).all())
