"""The start of a training: the weights of a Recommender that was fitted before, and the state of its optimizer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segue.data.dataset import Dataset
from segue.errors import ConfigError, StorageError
from segue.files import read_json, real
from segue.inference.checkpoint import LAST
from segue.inference.loading import load
from segue.inference.recommender import Recommender
from segue.models.base import Model, ModelConfig, TrainableModel
from segue.models.growth import carry, check_start, weights_fingerprint
from segue.training.carried_optimizer import carried_optimizer, options_to_continue
from segue.training.config import Training
from segue.training.run_manifest import RUN


@dataclass(frozen=True)
class Start:
    """Weights that a training starts from.

    Attributes
    ----------
    recommender
        The fitted model with its Dataset; None if the run that is resumed has states and needs it no more.
    folder
        The folder it was loaded from; None for one in memory.
    fingerprint
        Hash of its weights.
    """

    recommender: Recommender | None
    folder: str | None
    fingerprint: str

    def check(self, config: ModelConfig) -> None:
        """Raise a ConfigError if a model with these settings, resolved for its data, cannot start from the weights."""
        if self.recommender is not None:
            check_start(self.recommender.model.config.to_dict(), config.to_dict(), config.may_change_on_start)

    def give(self, model: Model, dataset: Dataset) -> None:
        """Put the weights into a new model for a Dataset, after the model was prepared."""
        if self.recommender is not None:
            carry(model, self.recommender.model, dataset, self.recommender.dataset, learned_only=True)

    def check_optimizer(self, settings: Training) -> None:
        """Raise a ConfigError if the state of an optimizer is to be continued, and there is none that can be."""
        if settings.start_optimizer == "new" or self.recommender is None:
            return
        if self._last is None:
            where = "a Recommender in memory has" if self.folder is None else f"{self.folder} holds"
            raise ConfigError(
                f"start_optimizer='continued': {where} no state of an optimizer. Give the folder of a run, or take "
                "start_optimizer='new'."
            )
        options_to_continue(self._last, settings)

    def optimizer_for(self, model: TrainableModel, dataset: Dataset, settings: Training) -> dict[str, Tensor]:
        """State of the optimizer for a new model, as `optimizer_tensors` names it; empty if it begins anew."""
        if settings.start_optimizer == "new" or self.recommender is None:
            return {}
        former, file = self.recommender.model, self._last
        assert isinstance(former, TrainableModel) and file is not None
        return carried_optimizer(model, former, dataset, self.recommender.dataset, settings, file)

    @property
    def _last(self) -> Path | None:
        """Last checkpoint of the training whose weights these are; None if there is none."""
        if self.folder is None or self.recommender is None:
            return None
        run = Path(self.folder)
        file = (run / "refit" if self.recommender.metadata.get("refit") else run) / LAST
        return file if file.is_file() else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `run.json`."""
        return {"folder": self.folder, "fingerprint": self.fingerprint}


def start_of(given: Recommender | str | Path | None, resumed: Path | None, refit: bool) -> Start | None:
    """The start of a training: the one that is given or, for a run that is resumed, the one that it tells.

    Parameters
    ----------
    given
        A Recommender or its folder.
    resumed
        Folder of the run to resume.
    refit
        True if the run is refitted, and needs the weights again.

    Raises
    ------
    StorageError
        The run to resume needs the weights that it started from, and they are not where they were.
    """
    if isinstance(given, Recommender):
        return Start(given, None, weights_fingerprint(given.model))
    if given is not None:
        recommender = load(given)
        return Start(recommender, str(real(Path(given))), weights_fingerprint(recommender.model))
    told = None if resumed is None or not (resumed / RUN).is_file() else read_json(resumed / RUN).get("start")
    if resumed is None or not isinstance(told, dict):
        return None
    folder, fingerprint = told.get("folder"), str(told.get("fingerprint"))
    if (resumed / LAST).is_file() and (not refit or (resumed / "refit" / LAST).is_file()):
        return Start(None, folder, fingerprint)
    former: Recommender | None = None
    with suppress(StorageError):
        former = load(folder) if folder else None
    if former is None or weights_fingerprint(former.model) != fingerprint:
        raise StorageError(
            f"{resumed} started from the weights of {folder or 'a Recommender'}, and they are not there any more: pass "
            "them again with start=, or train into a new folder."
        )
    return Start(former, folder, fingerprint)
