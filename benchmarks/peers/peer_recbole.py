"""RecBole's SASRec with its defaults: d 64, 2 layers, 2 heads, dropout 0.5, full cross-entropy, 50 items, batch 2048.

RecBole trains on every prefix of every history as a separate row. Most of the time of an epoch goes there.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import handover
import numpy as np
import torch
from handover import Log, Part
from recbole.config import Config
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

LENGTH = 50
SHOWN = ("hidden_size", "n_layers", "n_heads", "inner_size", "hidden_dropout_prob", "loss_type", "train_batch_size")


def config_of(request: handover.Request) -> Config:
    """RecBole's defaults for the handed data, all of it for training."""
    folder = request.folder / "recbole"
    (folder / "peer").mkdir(parents=True, exist_ok=True)
    write(folder / "peer" / "peer.inter", request.train)
    options = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "none", "mode": "full"},
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "epochs": request.epochs,
        "seed": request.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    return Config(model="SASRec", dataset="peer", config_dict=options)


def write(path: Any, log: Log) -> None:
    """Write RecBole's atomic file."""
    table = np.stack([log.users, log.items, log.times], axis=1)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    np.savetxt(path, table, "%d", "\t", header=header, comments="")


def recommend(model: SASRec, part: Part, k: int, known: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Best items of each user; `known` maps its codes to ours, `own` maps ours to its codes (0 = not in training)."""
    histories = part.log.histories()
    found = np.zeros((len(part.users), k), dtype=np.int64)
    model.eval()
    for rows in handover.batches(len(part.users), 256):
        asked = [own[histories[user]] for user in part.users[rows].tolist()]
        asked = [items[items > 0] for items in asked]
        front = handover.padded(asked, LENGTH)
        lengths = np.maximum((front > 0).sum(axis=1), 1)
        behind = np.take_along_axis(front, (np.arange(LENGTH) + LENGTH - lengths[:, None]) % LENGTH, axis=1)
        asking = {model.ITEM_SEQ: torch.from_numpy(behind), model.ITEM_SEQ_LEN: torch.from_numpy(lengths)}
        with torch.no_grad():
            scores = model.full_sort_predict(Interaction(asking)).numpy()
        found[rows] = known[handover.best_unseen(scores, asked, k)]
    return found


def main() -> None:
    """Train and recommend as requested."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    job = handover.open_job()
    request = job.request
    config = config_of(request)
    init_seed(config["seed"], config["reproducibility"])
    dataset = SequentialDataset(config)
    train = dataset.build()[0]
    tokens = dataset.field2id_token[dataset.iid_field]
    known = np.array([0, *map(int, tokens[1:])])
    own = np.zeros(request.n_items + 1, dtype=np.int64)
    own[known[1:]] = np.arange(1, len(known))
    model = SASRec(config, train)
    trainer = Trainer(config, model)
    rows = TrainDataLoader(config, train, None, shuffle=True)
    for epoch in range(1, request.epochs + 1):
        began = time.perf_counter()
        trainer._train_epoch(rows, epoch - 1)
        seconds = time.perf_counter() - began
        job.epoch_ended(epoch, seconds, lambda part: recommend(model, part, request.k, known, own))
    job.finish({name: config[name] for name in SHOWN}, ["recbole", "torch", "numpy"])


if __name__ == "__main__":
    main()
