"""Opening what `Recommender.save` or a training left behind."""

from __future__ import annotations

from pathlib import Path

from segue.errors import ConfigError
from segue.inference.recommender import Recommender
from segue.inference.storage import load_recommender


def load(path: str | Path, *, verify: bool = True, device: str | None = None) -> Recommender:
    """Open a Recommender that `Recommender.save` or `segue.fit` wrote.

    Parameters
    ----------
    path
        Its folder, or the folder of a run that holds it as `recommender/`.
    verify
        Compare checksums first (about a second per gigabyte).
    device
        Where the model answers: "cpu" (when not given), "cuda", …

    Raises
    ------
    StorageError
        No such folder, a newer format, a file that is missing, truncated or altered, a pickle in place of the weights,
        or weights that do not fit.
    ConfigError
        There is no such device here.
    """
    model, dataset, metadata = load_recommender(Path(path), verify=verify)
    try:
        model = model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on the device and on how it was built
        raise ConfigError(f"device={device!r} cannot be used here: {error}") from None
    return Recommender(model, dataset, metadata)
