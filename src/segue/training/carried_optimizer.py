"""The state of an optimizer, carried from a finished training to the model that starts from its weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.errors import ConfigError
from segue.inference.checkpoint import read_note
from segue.models.base import TrainableModel
from segue.models.growth import carry
from segue.training.checkpoint import load_checkpoint, restore_optimizer
from segue.training.config import FORMERLY, Training
from segue.training.optimizers import make_optimizer


def carried_optimizer(
    model: TrainableModel,
    former: TrainableModel,
    dataset: Dataset,
    former_data: Dataset,
    settings: Training,
    file: Path,
) -> dict[str, Tensor]:
    """Return the state in the last checkpoint of a run as it fits a new model, in the form of `optimizer_tensors`.

    A moment of a weight goes where the weight goes: by raw id, and new ids get what their weights get, such as the mean
    of the others. So the moments are carried as if they were weights.

    Parameters
    ----------
    model
        The new model, for the users and items of `dataset`.
    former
        The model of the run, for those of `former_data`.
    dataset, former_data
        Datasets of both.
    settings
        Options of the new training.
    file
        The last checkpoint of the run.

    Raises
    ------
    ConfigError
        The run had another optimizer.
    StorageError
        The checkpoint is damaged, or does not fit the model of the run.
    """
    told, (tensors, _) = options_to_continue(file, settings), load_checkpoint(file)
    donor, receiver = deepcopy(former), deepcopy(model)
    optimizer = make_optimizer(donor, told)
    restore_optimizer(optimizer, tensors, file)
    state = {name: optimizer.state.get(weight, {}) for name, weight in donor.named_parameters()}
    moments = {part for parts in state.values() for part, value in parts.items() if value.ndim}
    places = {name: place for place, (name, _) in enumerate(receiver.named_parameters())}
    carried = {
        f"optimizer.{places[name]}.{part}": value
        for name, parts in state.items()
        for part, value in parts.items()
        if not value.ndim
    }
    weights = dict(receiver.named_parameters())
    with torch.no_grad():
        for moment in sorted(moments):
            for name, weight in donor.named_parameters():
                weight.copy_(state[name].get(moment, torch.zeros(())))
                weights[name].zero_()
            carry(receiver, donor, dataset, former_data, learned_only=True)
            for name, parts in state.items():
                if moment in parts:
                    narrow = parts[moment].shape[1:] != weights[name].shape[1:]  # one number per row
                    value = weights[name][:, :1] if narrow else weights[name]
                    carried[f"optimizer.{places[name]}.{moment}"] = value.clone()
    return carried


def options_to_continue(file: Path, settings: Training) -> Training:
    """Options of the training that left a checkpoint, whose optimizer one with the options `settings` can continue.

    Raises
    ------
    ConfigError
        The run had another optimizer.
    StorageError
        The note of the checkpoint cannot be read.
    """
    told = Training.from_dict({**FORMERLY, **read_note(file)["identity"]["training"]})
    if _family(told) != _family(settings):
        raise ConfigError(
            f"start_optimizer='continued': {file.parent} was trained with {told.optimizer}, and the new training has "
            f"optimizer={settings.optimizer!r}. Take the same, or start_optimizer='new'."
        )
    return told


def _family(settings: Training) -> tuple[str, bool]:
    """Kind of state that an optimizer has: AdamW has that of Adam, and momentum adds a part."""
    return ("adam" if settings.optimizer == "adamw" else settings.optimizer), settings.momentum > 0
