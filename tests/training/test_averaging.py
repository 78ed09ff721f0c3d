"""Mean of the weights over epochs, compared with a mean computed from the weights of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.data.simulation.simulate import simulate
from segue.errors import ConfigError, StorageError
from segue.inference.loading import load
from segue.models.arerec.arerec import ARERec
from segue.models.parsrec.parsrec import PARSRec
from segue.models.sasrec import SASRec
from segue.training.averaging import Average
from segue.training.checkpoint import load_checkpoint, save_checkpoint
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.trainer import Trainer
from tests.models.rating_models import rated_dataset
from tests.training.runs import check_resumed_bits, small_model, small_split, small_training

TABLE = "items.weight"


@pytest.fixture
def epoch_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Newest weights at the end of each epoch."""
    recorded: list[dict[str, Tensor]] = []
    add = Average.add

    def spied(average: Average, epoch: int) -> None:
        recorded.append({name: weight.detach().clone() for name, weight in average._model.named_parameters()})
        add(average, epoch)

    monkeypatch.setattr(Average, "add", spied)
    return recorded


def means(epoch_weights: list[dict[str, Tensor]], final_decay: float, name: str) -> list[Tensor]:
    """Mean after each epoch, from the recursion, in float64."""
    expected = [epoch_weights[0][name].double()]
    for epoch, weights in enumerate(epoch_weights[1:], 2):
        decay = min(final_decay, epoch / (epoch + 9))
        expected.append(decay * expected[-1] + (1 - decay) * weights[name].double())
    return expected


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_mean_is_kept_and_training_continues_with_the_newest_weights(
    tmp_path: Path, epoch_weights: list[dict[str, Tensor]], decay: float
) -> None:
    training = small_training(epochs=6, averaging=decay, keep_every=1)
    fit(small_model(), small_split(), training=training, out=tmp_path / "run", quiet=True)
    for name in epoch_weights[0]:
        for epoch, mean in enumerate(means(epoch_weights, decay, name), 1):
            kept = dict(load(tmp_path / "run", epoch=epoch).model.named_parameters())
            torch.testing.assert_close(kept[name].double(), mean, rtol=1e-5, atol=1e-6)
    averaged, plain = list(epoch_weights), epoch_weights
    plain.clear()
    fit(small_model(), small_split(), training=small_training(epochs=6, averaging=0.0), quiet=True)
    assert all(torch.equal(one[TABLE], other[TABLE]) for one, other in zip(averaged, plain, strict=True))


def test_validation_measures_the_mean(epoch_weights: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[Tensor] = []
    original = Trainer._validated

    def spied(trainer: Trainer) -> dict[str, float]:
        validated.append(trainer.model.get_parameter(TABLE).detach().clone())
        return original(trainer)

    monkeypatch.setattr(Trainer, "_validated", spied)
    fitted = fit(small_model(), small_split(), training=small_training(epochs=5), quiet=True)
    expected = means(epoch_weights, 0.9, TABLE)
    for weights, mean in zip(validated, expected, strict=True):
        torch.testing.assert_close(weights.double(), mean, rtol=1e-5, atol=1e-6)
    best = expected[fitted.metadata["training"]["best_epoch"] - 1]
    torch.testing.assert_close(fitted.model.get_parameter(TABLE).double(), best, rtol=1e-5, atol=1e-6)


def test_the_default_suits_the_model(epoch_weights: list[dict[str, Tensor]]) -> None:
    usual = fit(small_model(), small_split(), training=small_training(), quiet=True)
    assert usual.metadata["options"]["averaging"] == 0.9
    epoch_weights.clear()
    plain = small_training(averaging=0.0)
    newest = fit(small_model(), small_split().refit, training=plain, quiet=True)
    assert torch.equal(newest.model.get_parameter(TABLE), epoch_weights[-1][TABLE])


@pytest.mark.parametrize("config", [small_model(), small_model(loss="sampled-softmax")], ids=lambda config: config.loss)
@pytest.mark.parametrize("rows", ["never", "always"])
def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path, config: SASRec, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, training = small_split(), small_training(row_updates=rows)
    last = check_resumed_bits(tmp_path, monkeypatch, config, data, training, stop_at=9)
    assert f"average.{TABLE}" in last


def test_an_older_run_is_resumed_without_a_mean(tmp_path: Path) -> None:
    half, whole = small_training(epochs=2, averaging=0.0), small_training(averaging=0.0)
    fit(small_model(), small_split(), training=half, out=tmp_path, quiet=True)
    tensors, note = load_checkpoint(tmp_path / "last.safetensors")
    del note["identity"]["training"]["averaging"]
    save_checkpoint(tmp_path / "last.safetensors", tensors, note)
    with pytest.raises(StorageError, match=r"another training\.averaging: 0\.0 there, 0\.9 here"):
        fit(small_model(), small_split(), training=small_training(), out=tmp_path, resume=True, quiet=True)
    resumed = fit(small_model(), small_split(), training=whole, out=tmp_path, resume=True, quiet=True)
    assert resumed.metadata["training"]["epochs"] == 4


def test_models_of_sessions_and_of_ratings_keep_the_newest_weights() -> None:
    shop = simulate(12, 3, categories=4, products=3, longest=3).dataset()
    rated = rated_dataset()
    for config, data in ((PARSRec(user_width=4, item_width=4), shop), (ARERec(width=4), rated)):
        options = fit(config, data, training=small_training(epochs=1), quiet=True).metadata["options"]
        assert options["averaging"] == 0.0


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="averaging="):
        Training(averaging=decay)
