from __future__ import annotations

import pytest

from segue.errors import ConfigError
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.trainer import Trainer
from tests.training.runs import small_model, small_split, small_training


def rates(monkeypatch: pytest.MonkeyPatch, refit: bool = False, **changes: object) -> tuple[list[float], int]:
    """Learning rate of every step of a run and its refit, and the best epoch."""
    rates_used: list[float] = []
    step = Trainer._step

    def spied(trainer: Trainer, *arguments: object) -> float:
        value = step(trainer, *arguments)  # type: ignore[arg-type]
        rates_used.append(trainer.optimizer.param_groups[0]["lr"])
        return value

    monkeypatch.setattr(Trainer, "_step", spied)
    training = small_training(learning_rate=0.01, **changes)
    fitted = fit(small_model(), small_split(), training=training, refit=refit, quiet=True)
    return rates_used, fitted.metadata["training"]["best_epoch"]


def test_a_constant_rate_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = rates(monkeypatch, warmup_steps=5)
    assert used[:6] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.01]) and set(used[5:]) == {0.01}


def test_a_line_from_the_warm_up_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = rates(monkeypatch, warmup_steps=5, schedule="linear")
    n = len(used)
    assert used[4] == used[5] == pytest.approx(0.01)
    assert used[5:] == pytest.approx([0.01 * (n - done) / (n - 5) for done in range(5, n)])


def test_the_refit_follows_the_schedule_of_the_first_training(monkeypatch: pytest.MonkeyPatch) -> None:
    both, best = rates(monkeypatch, refit=True, schedule="linear")
    starts = [step for step, rate in enumerate(both) if rate == 0.01]
    second = both[starts[1] :]
    steps = 4 * len(second) // best  # of all four epochs
    assert len(starts) == 2
    assert second == pytest.approx([0.01 * (steps - done) / steps for done in range(len(second))])


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="schedule='cosine': expected constant or linear"):
        Training(schedule="cosine")  # type: ignore[arg-type]
