"""`segue.load`: open a Recommender from its folder, or from the folder of a training run."""

from __future__ import annotations

from pathlib import Path

from segue.arguments import checked
from segue.errors import ConfigError, StorageError
from segue.inference.checkpoint import kept_epoch, load_epoch
from segue.inference.recommender import Recommender
from segue.inference.storage import build_for, load_recommender, load_weights
from segue.models.base import Model
from segue.models.registry import config_from_dict
from segue.settings import Count, Word


@checked
def load(
    path: str | Path, *, verify: bool = True, device: Word | None = None, epoch: Count | None = None
) -> Recommender:
    """Open a Recommender that `Recommender.save` or `segue.fit` wrote.

    Parameters
    ----------
    path
        Folder of the Recommender, or of a run that contains it as `recommender/`.
    verify
        Compare checksums first (about a second per gigabyte).
    device
        Device of the model: "cpu" (the default), "cuda", ….
    epoch
        Epoch of a run: load its weights in place of the best ones, if `Training.keep_every` kept them. If the run was
        refitted (`refit`), they are weights of the first training.

    Raises
    ------
    StorageError
        The folder is missing or has a newer format; a file is missing, truncated or altered; the weights are a pickle
        or do not fit; or the epoch was not kept.
    ConfigError
        The device is not available.
    """
    model, dataset, metadata = load_recommender(Path(path), verify=verify)
    if epoch is not None:
        model = _model_of_epoch(Path(path), epoch, model)
        metadata = {**metadata, "epoch": epoch, "refit": False}
    try:
        model = model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # the type depends on the device and on the build of torch
        raise ConfigError(f"device={device!r} cannot be used here: {error}") from None
    return Recommender(model, dataset, metadata)


def _model_of_epoch(run: Path, epoch: int, best: Model) -> Model:
    """Model with the weights of an epoch; `best` gives the numbers of users and items."""
    tensors, note = load_epoch(run, epoch)
    file = run / kept_epoch(epoch)
    identity = note.get("identity")
    settings = identity.get("model") if isinstance(identity, dict) else None
    if not isinstance(settings, dict) or settings.get("name") != best.config.name:
        raise StorageError(f"{file} does not hold weights of the model {best.config.name!r} of this run.")
    try:
        config = config_from_dict(settings)
    except (ConfigError, TypeError, ValueError) as error:
        raise StorageError(f"{file} does not describe a model that segue knows here: {error}") from None
    model = build_for(config, best.n_users, best.n_items, tensors, file)
    load_weights(model, tensors, file)
    return model.eval()
