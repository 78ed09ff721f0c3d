"""`segue.load`: open a Recommender from its folder, or from the folder of a training run."""

from __future__ import annotations

from pathlib import Path

from segue.arguments import checked
from segue.cores import limit_threads
from segue.errors import ConfigError, StorageError
from segue.inference.checkpoint import kept_epoch, load_epoch
from segue.inference.hub import SCHEME, pull
from segue.inference.recommender import Recommender
from segue.inference.storage import load_extra, load_recommender
from segue.inference.unfinished import is_unfinished, load_unfinished, model_of_note
from segue.models.base import Model
from segue.settings import Count, Word


@checked
def load(
    path: str | Path, *, verify: bool = True, device: Word | None = None, epoch: Count | None = None
) -> Recommender:
    """Open a Recommender that `Recommender.save` or `segue.fit` wrote.

    Parameters
    ----------
    path
        Folder of the Recommender, or of a run that contains it as `recommender/`. A run that was stopped before its
        end opens with its best weights so far, and an `UnfinishedRunWarning` says so. "hf://owner/name" and
        "hf://owner/name@revision" are places on the Hugging Face hub, which `segue push` writes (`segue[hub]`).
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
        or do not fit; the epoch was not kept; or a hub does not answer or has no such place.
    ConfigError
        The device is not available, or `segue[hub]` is not installed.

    Examples
    --------
    >>> recommender = segue.fit(segue.Markov(), segue.simulate(40, 6).dataset())
    >>> segue.load(recommender.save("saved")).recommend(7, k=3)["item"].len()
    3
    """
    if str(path).startswith(SCHEME):
        path = pull(str(path))
    unfinished = is_unfinished(Path(path))
    read = load_unfinished if unfinished else load_recommender
    model, dataset, metadata = read(Path(path), verify=verify)
    if epoch is not None:
        model = _model_of_epoch(Path(path), epoch, model)
        metadata = {**metadata, "epoch": epoch, "refit": False}
    limit_threads()
    try:
        model = model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # the type depends on the device and on the build of torch
        raise ConfigError(f"device={device!r} cannot be used here: {error}") from None
    recommender = Recommender(model, dataset, metadata)
    if not unfinished:
        recommender.take(load_extra(Path(path), model.n_items))
    return recommender


def _model_of_epoch(run: Path, epoch: int, best: Model) -> Model:
    """Model with the weights of an epoch; `best` gives the numbers of users and items."""
    tensors, note = load_epoch(run, epoch)
    file = run / kept_epoch(epoch)
    model = model_of_note(file, tensors, note, best.n_users, best.n_items)
    if model.config.name != best.config.name:
        raise StorageError(f"{file} does not hold weights of the model {best.config.name!r} of this run.")
    return model
