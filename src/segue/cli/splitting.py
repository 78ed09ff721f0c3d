"""Options of splits, and the split that a run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segue.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.data.splits import Split

SplitName = Literal["leave-last-out", "leave-last-n", "time-cut", "held-out-users"]


@dataclass(frozen=True)
class SplitOptions:
    """The split.

    The options are flat (`--split time-cut --split-test 0.1`), because most people need the first alone.
    """

    split: SplitName = "leave-last-out"
    """What is kept from training for validation and test: each user's last two interactions; the last 2 n; all after
    two moments; or some users entirely."""

    split_n: int | None = None
    """With leave-last-n: how many interactions per user are kept for the test, and as many again for validation."""

    split_test: float | None = None
    """With time-cut and held-out-users: share of interactions or users in the test. (default: 0.1)"""

    split_validation: float | None = None
    """With time-cut and held-out-users: share of interactions or users in the validation. (default: 0.1)"""

    split_seed: int | None = None
    """With held-out-users: draws them. (default: 0)"""

    def spec(self) -> dict[str, Any]:
        """The split as plain data, as a run keeps it.

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
        }
        wanted = {name: value for name, value in given.items() if value is not None}
        for name in wanted:
            if name not in _OPTIONS[self.split]:
                has = ", ".join(f"--split-{option}" for option in _OPTIONS[self.split]) or "no options"
                raise ConfigError(f"--split-{name} means nothing to --split {self.split}, which has {has}.")
        return {"name": self.split, **wanted}


_OPTIONS: dict[str, tuple[str, ...]] = {
    "leave-last-out": (),
    "leave-last-n": ("n",),
    "time-cut": ("test", "validation"),
    "held-out-users": ("test", "validation", "seed"),
}


def split_of(dataset: Dataset, spec: Mapping[str, Any]) -> Split:
    """The split of a Dataset that `spec` (a `Split.spec`) describes.

    Raises
    ------
    StorageError
        `spec` describes no split that this segue knows.
    """
    from segue.data.splits import hold_out_users, leave_last_n, leave_last_out, time_cut

    name = spec.get("name")
    test, validation = float(spec.get("test", 0.1)), float(spec.get("validation", 0.1))
    if name == "leave-last-out":
        return leave_last_out(dataset)
    if name == "leave-last-n":
        if "n" not in spec:
            raise ConfigError("--split leave-last-n needs --split-n, the number of interactions.")
        return leave_last_n(dataset, int(spec["n"]))
    if name == "time-cut":
        return time_cut(dataset, test, validation)
    if name == "held-out-users":
        return hold_out_users(dataset, test, validation, int(spec.get("seed", 0)))
    raise StorageError(f"this segue knows no split {name!r}.")
