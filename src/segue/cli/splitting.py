"""Options of splits, shared by the commands that split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segue.errors import ConfigError

SplitName = Literal["leave-last-out", "leave-last-n", "last-session-out", "time-cut", "held-out-users", "random-rows"]


@dataclass(frozen=True)
class SplitOptions:
    """The split.

    The options are flat (`--split time-cut --split-test 0.1`), because most users need the first alone.
    """

    split: SplitName | None = None
    """What is kept from training for validation and test: each user's last two interactions; the last 2 n; the last two
    sessions; all after two moments; some users entirely; or single interactions, drawn. When not given, what suits the
    model: for parsrec last-session-out, for the others leave-last-out."""

    split_n: int | None = None
    """With leave-last-n: how many interactions per user are kept for the test, and as many again for validation."""

    split_test: float | None = None
    """With time-cut, held-out-users and random-rows: share of interactions or users in the test. (default: 0.1; 0.2 of
    random-rows)"""

    split_validation: float | None = None
    """With the same: share of interactions or users in the validation. (default: 0.1)"""

    split_seed: int | None = None
    """With held-out-users and random-rows: draws them. (default: 0)"""

    split_known_items: bool | None = None
    """With random-rows: ask only about items that training holds. (default: false)"""

    def spec(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """The split as plain data, as a run keeps it.

        Parameters
        ----------
        usual
            The split to take if none is named, as plain data.

        Raises
        ------
        ConfigError
            An option is given that the split does not have.
        """
        given = {
            "n": self.split_n,
            "test": self.split_test,
            "validation": self.split_validation,
            "seed": self.split_seed,
            "known_items": self.split_known_items,
        }
        from segue.data.splits.by_user import SPLITS

        base = dict(usual) if self.split is None else {"name": self.split}
        split = str(base["name"])
        wanted = {name: value for name, value in given.items() if value is not None}
        for name in wanted:
            if name not in SPLITS[split]:
                has = ", ".join(map(_flag, SPLITS[split])) or "no options"
                raise ConfigError(f"{_flag(name)} means nothing to --split {split}, which has {has}.")
        if split == "leave-last-n" and "n" not in {**base, **wanted}:
            raise ConfigError("--split leave-last-n needs --split-n, the number of interactions.")
        return {**base, **wanted}


def _flag(option: str) -> str:
    return f"--split-{option.replace('_', '-')}"
