"""Opening what `Recommender.save` or a training left behind."""

from __future__ import annotations

from pathlib import Path

import torch

from segue.errors import ConfigError, StorageError
from segue.inference.checkpoint import EPOCHS, kept_epoch, load_checkpoint
from segue.inference.recommender import Recommender
from segue.inference.storage import load_recommender
from segue.models.base import Model
from segue.models.registry import config_from_dict


def load(path: str | Path, *, verify: bool = True, device: str | None = None, epoch: int | None = None) -> Recommender:
    """Open a Recommender that `Recommender.save` or `segue.fit` wrote.

    Parameters
    ----------
    path
        Its folder, or the folder of a run that holds it as `recommender/`.
    verify
        Compare checksums first (about a second per gigabyte).
    device
        Where the model answers: "cpu" (when not given), "cuda", …
    epoch
        Of a run: the weights of this epoch in place of the best, if `Training.keep_every` kept them. Of a run that was
        trained again (`refit`), those are of the first training.

    Raises
    ------
    StorageError
        No such folder, a newer format, a file that is missing, truncated or altered, a pickle in place of the weights,
        weights that do not fit, or an epoch that was not kept.
    ConfigError
        There is no such device here.
    """
    model, dataset, metadata = load_recommender(Path(path), verify=verify)
    if epoch is not None:
        model = _model_of_epoch(Path(path), epoch, model)
        metadata = {**metadata, "epoch": epoch, "refit": False}
    try:
        model = model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on the device and on how it was built
        raise ConfigError(f"device={device!r} cannot be used here: {error}") from None
    return Recommender(model, dataset, metadata)


def _model_of_epoch(run: Path, epoch: int, best: Model) -> Model:
    """The model as it was after an epoch; `best` says how many users and items it has."""
    if not (run / kept_epoch(epoch)).is_file():
        kept = ", ".join(str(int(file.stem)) for file in sorted((run / EPOCHS).glob("*.safetensors"))) or "none"
        raise StorageError(
            f"{run} did not keep the weights of epoch {epoch}; kept: {kept}. Train with --training.keep-every to keep "
            "those of every so many epochs."
        )
    tensors, note = load_checkpoint(run / kept_epoch(epoch))
    with torch.random.fork_rng(devices=[]):
        model = config_from_dict(note["identity"]["model"]).build(best.n_users, best.n_items)
    model.load_state_dict(tensors)
    return model.eval()
