"""RecTools' transformers: SASRec with one-negative BCE and with softmax, and eSASRec (LiGR layers, sampled softmax).

`bce` has the notebook's setting (50 items, 2 blocks, d 100, 1 head, dropout 0.1, batch 128). `softmax` and `ligr` have
the setting of Tikhonovich et al. (RecSys 2025): d 64, 1 block, 1 head, dropout 0.2 and 50 items on Amazon's data, and 2
blocks and dropout 0.1 on MovieLens; LiGR has 256 negatives. MovieLens 100K, with its 943 users, has batches of 32 and,
as all systems here, 50 items (the paper reads 200 items of MovieLens 1M).

The "fast transformers" of 0.19 need text embeddings of the items (UniSRec). Their flat network without text has no
training code in the package, so they cannot run on these data.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
from handover import Job, Log, Part, open_job
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

NOTEBOOK = {
    "session_max_len": 50,
    "n_blocks": 2,
    "n_factors": 100,
    "n_heads": 1,
    "dropout_rate": 0.1,
    "lr": 1e-3,
    "batch_size": 128,
    "loss": "BCE",
    "n_negatives": 1,
}
AMAZON = NOTEBOOK | {"n_blocks": 1, "n_factors": 64, "dropout_rate": 0.2, "loss": "softmax"}
MOVIES = AMAZON | {"n_blocks": 2, "dropout_rate": 0.1, "batch_size": 32}


def settings_of(name: str, data: str) -> dict[str, Any]:
    """Arguments of SASRecModel."""
    if name == "bce":
        return NOTEBOOK
    published = MOVIES if data.startswith("ml-") else AMAZON
    if name == "softmax":
        return published
    return published | {"loss": "sampled_softmax", "n_negatives": 256, "transformer_layers_type": LiGRLayers}


class Watch(lightning.Callback):
    """Callback that times each epoch and lets the job validate after it."""

    job: Job
    model: SASRecModel

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Stop the clock, recommend if requested, and continue training."""
        seconds = time.perf_counter() - self.began
        self.model.is_fitted = True
        self.job.epoch_ended(trainer.current_epoch + 1, seconds, self._recommend)
        module.train()

    def __deepcopy__(self, memo: Any) -> Watch:
        return self  # RecTools copies its trainer, and the copy must report to this job

    def _recommend(self, part: Part) -> np.ndarray:
        k = self.job.request.k
        # A few users have only items that RecTools did not train on. They get no list, which counts as a miss.
        found = self.model.recommend(
            part.users, dataset_of(part.log), k=k, filter_viewed=True, on_unsupported_targets="ignore"
        )
        codes = np.zeros((len(part.users), k), dtype=np.int64)
        rows = np.searchsorted(part.users, found[Columns.User].to_numpy())
        codes[rows, found[Columns.Rank].to_numpy() - 1] = found[Columns.Item].to_numpy()
        return codes


def dataset_of(log: Log) -> Dataset:
    """RecTools' Dataset."""
    frame = pd.DataFrame({Columns.User: log.users, Columns.Item: log.items})
    frame[Columns.Weight] = 1.0
    frame[Columns.Datetime] = pd.to_datetime(log.times, unit="D")
    return Dataset.construct(frame)


def main() -> None:
    """Train and recommend as requested."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    job = open_job()
    settings = settings_of(job.request.setting, job.request.data)
    lightning.seed_everything(job.request.seed, verbose=False)
    watch = Watch()

    def trainer() -> lightning.Trainer:
        return lightning.Trainer(
            max_epochs=job.request.epochs,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            callbacks=[watch],
        )

    watch.job, watch.model = job, SASRecModel(**settings, get_trainer_func=trainer)
    watch.model.fit(dataset_of(job.request.train))
    shown = {name: getattr(value, "__name__", value) for name, value in settings.items()}
    job.finish(shown, ["rectools", "torch", "pytorch-lightning", "numpy"])


if __name__ == "__main__":
    main()
