"""RePlay's SasRec with full cross-entropy: 50 items, d 64, 2 blocks, 2 heads, dropout 0.3, Adam 1e-3.

Batches of 32 on MovieLens 100K, as in its example; 128 on the larger data.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import handover
import lightning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from handover import Job, Log, Part
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import TorchTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.sequential import SasRec
from replay.nn.transform.template import make_default_sasrec_transforms

SETTINGS = {"embedding_dim": 64, "num_heads": 2, "num_blocks": 2, "max_sequence_length": 50, "dropout": 0.3}
LEARNING_RATE = 1e-3


class Watch(lightning.Callback):
    """Callback that times each epoch and lets the job validate after it."""

    def __init__(self, job: Job, schema: TensorSchema) -> None:
        self.job, self.schema = job, schema

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Stop the clock, recommend if requested, and continue training."""
        seconds = time.perf_counter() - self.began
        self.job.epoch_ended(trainer.current_epoch + 1, seconds, lambda part: self._recommend(module, part))
        module.trainer = trainer  # the recommending callback has registered itself there
        module.train()

    def _recommend(self, module: Any, part: Part) -> np.ndarray:
        request = self.job.request
        path = request.folder / f"{part.name}.parquet"
        seen = write(path, part.log, part.users)
        metadata = metadata_of(request.n_items, SETTINGS["max_sequence_length"])
        metadata["seen_ids"] = {"shape": seen, "padding": request.n_items}
        data = ParquetModule(
            batch_size=256,
            metadata={"predict": metadata},
            transforms={"predict": make_default_sasrec_transforms(self.schema)["predict"]},
            predict_path=str(path),
        )
        top = TorchTopItemsCallback(
            top_k=request.k,
            query_column="user_id",
            postprocessors=[SeenItemsFilter(request.n_items)],
        )
        quiet_trainer(callbacks=[top]).predict(module, datamodule=data, return_predictions=False)
        users, items, _ = top.get_result()
        found = np.zeros((len(part.users), request.k), dtype=np.int64)
        found[np.searchsorted(part.users, users.numpy().reshape(-1))] = items.numpy() + 1
        return found


def quiet_trainer(**options: Any) -> lightning.Trainer:
    """Lightning's trainer without bars, logs and checkpoints."""
    return lightning.Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **options,
    )


def write(path: Path, log: Log, users: np.ndarray) -> int:
    """Write one row per user: code, history (items from 0), and the history again as seen items; return the longest
    length."""
    histories = log.histories()
    items = [histories[user] - 1 for user in users.tolist()]
    pq.write_table(pa.table({"user_id": users, "item_id": items, "seen_ids": items}), path)
    return max(map(len, items))


def metadata_of(n_items: int, length: int) -> dict[str, Any]:
    """Padding of RePlay's inputs."""
    return {"user_id": {}, "item_id": {"shape": length, "padding": n_items}}


def main() -> None:
    """Train and recommend as requested."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    job = handover.open_job()
    request = job.request
    lightning.seed_everything(request.seed, verbose=False)
    item = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=SETTINGS["embedding_dim"],
        padding_value=request.n_items,
        cardinality=request.n_items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )
    schema = TensorSchema([item])
    batch = 32 if request.data == "ml-100k" else 128
    path = request.folder / "train.parquet"
    users, lengths = np.unique(request.train.users, return_counts=True)
    write(path, request.train, users[lengths > 1])
    data = ParquetModule(
        batch_size=batch,
        metadata={"train": metadata_of(request.n_items, SETTINGS["max_sequence_length"] + 1)},
        transforms={"train": make_default_sasrec_transforms(schema)["train"]},
        train_path=str(path),
    )
    module = LightningModule(
        SasRec.from_params(schema, **SETTINGS), optimizer_factory=OptimizerFactory(learning_rate=LEARNING_RATE)
    )
    watch = Watch(job, schema)
    quiet_trainer(max_epochs=request.epochs, callbacks=[watch], limit_val_batches=0).fit(module, datamodule=data)
    shown = SETTINGS | {"loss": "CE", "batch_size": batch, "learning_rate": LEARNING_RATE}
    job.finish(shown, ["replay-rec", "torch", "lightning", "numpy"])


if __name__ == "__main__":
    main()
