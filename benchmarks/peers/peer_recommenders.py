"""SASREC and SSEPT of Microsoft's recommenders, in the setting of its notebook (SSEPT: 10 for users, 100 for items).

The model is trained by its own `train`, with its own sampler, on all handed data. It has no call that recommends, so
lists are made with its own layers, in batches. Its own `evaluate` (one user at a time, 100 negatives) is timed beside
it, on 300 users.
"""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import handover
import numpy as np
import tensorflow as tf
from handover import Job, Part
from recommenders.models.sasrec.model import SASREC
from recommenders.models.sasrec.sampler import WarpSampler
from recommenders.models.sasrec.ssept import SSEPT
from recommenders.models.sasrec.util import SASRecDataSet

SETTINGS: dict[str, Any] = {
    "seq_max_len": 50,
    "num_blocks": 2,
    "embedding_dim": 100,
    "attention_dim": 100,
    "attention_num_heads": 1,
    "dropout_rate": 0.1,
    "conv_dims": [100, 100],
    "l2_reg": 0.0,
    "num_neg_test": 100,
}
USERS = {"user_embedding_dim": 10, "item_embedding_dim": 100, "conv_dims": [110, 110]}
BATCH, LEARNING_RATE, EVALUATED = 128, 1e-3, 300


class Watched:
    """Hook for the model. Its `train` calls `evaluate` after every epoch and once more at the end; the job validates
    there."""

    job: Job
    began: float
    epoch = 0
    asleep = False

    def evaluate(self, dataset: Any) -> tuple[float, float]:
        """Stop the clock, recommend if requested, start it again."""
        if self.asleep:
            return super().evaluate(dataset)  # type: ignore[misc]
        if self.epoch < self.job.request.epochs:
            self.epoch += 1
            self.job.epoch_ended(self.epoch, time.perf_counter() - self.began, self.recommend)
            self.began = time.perf_counter()
        return 0.0, 0.0

    def evaluate_valid(self, dataset: Any) -> tuple[float, float]:
        """Do nothing: the evaluator is ours."""
        return 0.0, 0.0

    def recommend(self, part: Part) -> np.ndarray:
        """Best items of each user."""
        k, histories = self.job.request.k, part.log.histories()
        every = tf.range(self.item_num + 1)
        items = self.item_embedding_layer(every)
        found = np.zeros((len(part.users), k), dtype=np.int64)
        for rows in handover.batches(len(part.users), 256):
            users = part.users[rows]
            asked = [histories[user] for user in users.tolist()]
            hidden = self.last_states(users, handover.padded(asked, self.seq_max_len))
            width = items.shape[1]
            scores = tf.matmul(hidden[:, :width], items, transpose_b=True)  # the user's part is the same for all items
            found[rows] = handover.best_unseen(scores.numpy(), asked, k)
        return found

    def last_states(self, users: np.ndarray, sequences: np.ndarray) -> tf.Tensor:
        """Output (n, width) at the newest item, as in `predict`.

        Its layers mask inputs that sum to exactly 0. Untrained, normalised inputs can do so through rounding, and a
        batch may then differ from single users. With trained weights both give the same.
        """
        mask = tf.expand_dims(tf.cast(tf.not_equal(sequences, 0), tf.float32), -1)
        inputs, places = self.embedding(sequences)
        if isinstance(self, SSEPT):
            own = self.user_embedding_layer(users[:, None]) * self.user_embedding_dim**0.5
            inputs = tf.concat([inputs, tf.tile(own, [1, self.seq_max_len, 1])], 2)
        hidden = self.encoder((inputs + places) * mask, False, mask)
        return self.layer_normalization(hidden)[:, -1]


class WatchedSASREC(Watched, SASREC):
    """SASREC with the hook."""


class WatchedSSEPT(Watched, SSEPT):
    """SSEPT with the hook."""


def dataset_of(histories: dict[int, np.ndarray], n_users: int, n_items: int) -> SASRecDataSet:
    """Dataset of the library, all of it for training; its own timed evaluation uses the last two items."""
    data = SASRecDataSet()
    data.usernum, data.itemnum = n_users, n_items
    data.user_train = {user: histories.get(user, np.zeros(0, np.int64)).tolist() for user in range(1, n_users + 1)}
    return data


def own_speed(model: Watched, histories: dict[int, np.ndarray], n_items: int) -> float:
    """Users per second of its own `evaluate`."""
    longer = [items for items in histories.values() if len(items) > 2][:EVALUATED]
    data = dataset_of({user: items[:-2] for user, items in enumerate(longer, 1)}, len(longer), n_items)
    data.user_valid = {user: items[-2:-1].tolist() for user, items in enumerate(longer, 1)}
    data.user_test = {user: items[-1:].tolist() for user, items in enumerate(longer, 1)}
    model.asleep = True
    began = time.perf_counter()
    model.evaluate(data)
    return len(longer) / (time.perf_counter() - began)


def main() -> None:
    """Train and recommend as requested."""
    job = handover.open_job()
    asked = job.request
    threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.keras.utils.set_random_seed(asked.seed)
    histories = asked.train.histories()
    data = dataset_of(histories, asked.n_users, asked.n_items)
    sampler = WarpSampler(data.user_train, asked.n_users, asked.n_items, BATCH, SETTINGS["seq_max_len"], n_workers=1)
    settings = SETTINGS | (USERS if asked.setting == "ssept" else {})
    kind = WatchedSSEPT if asked.setting == "ssept" else WatchedSASREC
    model = kind(item_num=asked.n_items, user_num=asked.n_users, **settings)
    model.job, model.began = job, time.perf_counter()
    model.train(data, sampler, num_epochs=asked.epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, val_epoch=1)
    speed = round(own_speed(model, histories, asked.n_items), 1)
    shown = settings | {"batch_size": BATCH, "learning_rate": LEARNING_RATE}
    job.finish(shown, ["recommenders", "tensorflow-cpu", "numpy"], sampled_evaluation_users_per_second=speed)
    sampler.close()


if __name__ == "__main__":
    main()
