"""Shared parts of SASRec, SSE-PT and GRU4Rec: training on the next item at every position of a history."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, positions, rows_of
from segue.errors import DataError, TrainingError
from segue.models.negatives import Negatives, SharedNegatives
from segue.models.similarity import Similarity
from segue.nn import losses

LossName = Literal["bce", "gbce", "sampled-softmax", "softmax"]
Windows = Literal["newest", "all"]

FORMERLY: dict[str, Any] = {"logq": False, "in_batch": 0.0, "positions": "absolute", "time_bias": False}
"""Values to assume for settings of the encoder and the loss missing from older saved files (`ModelConfig.formerly`)."""

_TARGETS_PER_STEP = 3
"""Targets of a step, as a multiple of the square root of the number of all targets."""


class NextItemBatch(NamedTuple):
    """Batch of b windows of histories with n targets in all; a user may have several windows.

    Attributes
    ----------
    users
        (b,) int64 user codes.
    items
        (b, length) int64 input items, oldest first, 0 behind the newest.
    lengths
        (b,) int64 number of inputs of each row.
    positions
        (n,) int64 positions of the inputs in `items.flatten()`.
    targets
        (n,) int64 item after each input.
    negatives
        (n, k) int64 per position, (k,) shared by the batch, or (0,) if the loss needs none.
    log_counts
        (k,) float32 logarithms of the expected counts of the shared negatives; (0,) without the correction.
    ages
        (b, length) int64 time from each input to the newest input of its row; (0,) for models without times.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    positions: Tensor
    targets: Tensor
    negatives: Tensor
    log_counts: Tensor
    ages: Tensor


@dataclass(frozen=True)
class NextItemLoss:
    """Loss, its negatives, and the similarity that gives its scores, as in the config.

    Parameters
    ----------
    name
        "bce", "gbce", "sampled-softmax" or "softmax".
    negatives
        Number k of negatives: per position for the first two, shared by the batch for sampled softmax.
    calibration
        Calibration t of gBCE.
    n_items
        Size of the catalogue.
    similarity
        Similarity of hidden states and item vectors.
    logq
        Correct sampled softmax for how its negatives are drawn.
    in_batch
        Share of the negatives of sampled softmax drawn from the targets of the batch; the others are uniform.
    """

    name: LossName
    negatives: int
    calibration: float
    n_items: int
    similarity: Similarity
    logq: bool = False
    in_batch: float = 0.0

    @property
    def per_position(self) -> bool:
        """True if every position has its own negatives, outside the history of its user."""
        return self.name in ("bce", "gbce")

    def rows_read(self, targets: int) -> int | None:
        """Number of item vectors that a step with so many targets reads, with repeats; None for the whole table."""
        if self.name == "softmax":
            return None
        return 2 * targets + self.negatives * (targets if self.per_position else 1)

    def __call__(
        self, hidden: Tensor, vectors: Tensor, table: Tensor, batch: NextItemBatch, offset: Tensor | None = None
    ) -> Tensor:
        """Summed loss over the targets of the batch.

        Parameters
        ----------
        hidden
            (n, width) hidden states.
        vectors
            (…, width) item vectors of the targets, then of the negatives.
        table
            (n_items + 1, width) vectors of all items, for the full softmax.
        batch
            Batch with the targets and negatives.
        offset
            (n,) number to add to every score of a position; it does not change a softmax.
        """
        query = self.similarity.query(hidden)
        if self.name == "softmax":
            return losses.full_softmax(query, table, batch.targets, normalise=self.similarity.name == "cosine")
        items, n = self.similarity.item(vectors), len(batch.targets)
        targets, negatives = torch.split(items, [n, len(items) - n])
        target_scores = (query * targets).sum(-1)
        if self.name == "sampled-softmax":
            hits = losses.shared_hits(batch.targets, batch.negatives)
            log_counts = batch.log_counts if self.logq else None
            return losses.sampled_softmax(target_scores, query @ negatives.T, hits, log_counts)
        if self.negatives == 1:
            negative_scores = (query * negatives).sum(-1, keepdim=True)
        else:
            negative_scores = torch.bmm(negatives.view(len(query), self.negatives, -1), query[:, :, None])[:, :, 0]
        if offset is not None:
            target_scores, negative_scores = target_scores + offset, negative_scores + offset[:, None]
        if self.name == "bce":
            return losses.bce(target_scores, negative_scores)
        return losses.gbce(target_scores, negative_scores, self.n_items, self.calibration)

    def look_up(self, table: nn.Embedding, batch: NextItemBatch) -> tuple[Tensor, Tensor]:
        """Vectors of the inputs (b, length, width), and of targets and negatives (…, width).

        All of them are read in one lookup, because each lookup costs a gradient as large as the table or a sort of its
        rows.
        """
        scored = [] if self.name == "softmax" else [batch.targets, batch.negatives.flatten()]
        codes = torch.cat([batch.items.flatten(), *scored])
        n_inputs = batch.items.numel()
        # One split, because each slice would have a gradient as large as both parts together.
        inputs, others = torch.split(table(codes), [n_inputs, len(codes) - n_inputs])
        return inputs.view(*batch.items.shape, -1), others


class NextItemExamples:
    """Windows of the histories of users with at least two visible interactions, with the next items as targets.

    Parameters
    ----------
    dataset
        Training view of the Dataset.
    max_length
        Largest number of inputs of a window.
    loss
        Loss, which decides the negatives.
    windows
        "newest": one window per user, the newest part of the history. "all": enough windows to make every interaction
        except the first a target once. They are counted from the newest item, so only the oldest window may be short.
    random_window
        Probability of a random stretch in place of the newest part, for histories longer than the window (SSE-PT++, Wu
        et al. 2020).
    with_times
        Add the ages of the inputs to batches.

    Raises
    ------
    TrainingError
        No user has two interactions.
    DataError
        `with_times` is set, and the Dataset has no times.
    """

    def __init__(
        self,
        dataset: Dataset,
        max_length: int,
        loss: NextItemLoss,
        random_window: float = 0.0,
        with_times: bool = False,
        windows: Windows = "newest",
    ) -> None:
        if with_times and dataset.times is None:
            raise DataError(
                "time_bias=True needs times, and this Dataset has none: prepare it from a log with a column of times, "
                "or train without."
            )
        self.dataset = dataset
        self.max_length = max_length
        self.loss = loss
        self.random_window = random_window
        users = np.flatnonzero(dataset.lengths >= 2)
        if not len(users):
            raise TrainingError("no user has two interactions in the training part: there is no next item to learn.")
        targets = dataset.lengths[users] - 1
        counts = -(-targets // max_length) if windows == "all" else np.ones_like(users)
        later = positions(np.zeros_like(counts), counts) * max_length  # targets of the user's newer windows
        self.users: Int64 = np.repeat(users, counts)
        self.ends: Int64 = dataset.ends[self.users] - 1 - later
        self.lengths: Int64 = np.minimum(np.repeat(targets, counts) - later, max_length)
        self.weights: Int64 = self.lengths
        # With more data, an epoch has more steps and a step has more targets.
        self.usual_batch = max(1, usual_batch(len(self.users), int(self.weights.sum())))
        self.usual_averaging = 0.9
        self.with_times = with_times
        self.negatives = Negatives(dataset) if loss.per_position else None
        self.shared = self._shared() if loss.name == "sampled-softmax" else None

    def batch(self, index: Int64, generator: np.random.Generator) -> NextItemBatch:
        """Return the windows of the units at `index`, with negatives."""
        users, lengths = self.users[index], self.lengths[index]
        ends = self.ends[index] - self._slack(users, lengths, generator)
        starts = ends - lengths
        inputs = Histories(users, self.dataset.items, starts, ends, self.dataset.times if self.with_times else None)
        width = int(lengths.max())
        zeros = np.zeros(len(index), dtype=np.int64)
        input_positions = positions(zeros, lengths) + rows_of(zeros, lengths) * width
        targets = self.dataset.items[positions(starts + 1, ends + 1)].astype(np.int64)
        negatives, log_counts = self._draw(users, lengths, targets, generator)
        ages = inputs.ages(width)
        arrays = (
            users,
            inputs.padded(width),
            lengths,
            input_positions,
            targets,
            negatives,
            log_counts,
            np.zeros(0, dtype=np.int64) if ages is None else ages,
        )
        return NextItemBatch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _slack(self, users: Int64, lengths: Int64, generator: np.random.Generator) -> Int64 | int:
        """Distance from the end of each window to the end of its history."""
        if not self.random_window:
            return 0
        room = self.dataset.lengths[users] - 1 - lengths
        moved = generator.random(len(users)) < self.random_window
        return np.where(moved, generator.integers(0, room + 1), 0)

    def _draw(
        self, users: Int64, lengths: Int64, targets: Int64, generator: np.random.Generator
    ) -> tuple[Int64, npt.NDArray[np.float32]]:
        """Negatives, and the logarithms of their expected counts if the loss needs them."""
        none = np.zeros(0, dtype=np.float32)
        if self.shared is not None:
            drawn = self.shared.draw(targets, generator)
            return drawn, self.shared.log_counts(drawn) if self.loss.logq else none
        if self.negatives is None:
            return np.zeros(0, dtype=np.int64), none
        return self.negatives.draw(np.repeat(users, lengths), self.loss.negatives, generator), none

    def _shared(self) -> SharedNegatives:
        """Shared negatives, with the counts of the targets of an epoch.

        With random windows the counts are those of all possible targets.
        """
        if not self.loss.in_batch:  # all draws are uniform
            no_counts = np.zeros(self.dataset.n_items + 1, dtype=np.int64)
            return SharedNegatives(no_counts, self.loss.negatives, 0.0)
        lengths = self.dataset.lengths[self.users] - 1 if self.random_window else self.lengths
        ends = self.ends + 1
        targets = self.dataset.items[positions(ends - lengths, ends)]
        counts = np.bincount(targets, minlength=self.dataset.n_items + 1)
        return SharedNegatives(counts, self.loss.negatives, self.loss.in_batch)


def usual_batch(units: int, targets: int) -> int:
    """Average number of units in a step that has about 3·√n of the n targets of all units."""
    return round(_TARGETS_PER_STEP * units / math.sqrt(targets))


def position_rows(lengths: Tensor, width: int, max_length: int) -> Tensor:
    """Rows (b, width) of the position table for inputs of these lengths (b,). The newest input has the last row."""
    steps = torch.arange(width, device=lengths.device)
    return (steps + (max_length - lengths)[:, None]).clamp_(max=max_length - 1)


class HistoryInputs(NamedTuple):
    """Inputs of an encoder for n histories.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = unknown.
    items
        (n, length) int64 newest items, oldest first, 0 behind the newest.
    lengths
        (n,) int64 number of items in each row, from 1.
    ages
        (n, length) int64 time from each item to the newest of its row; -1 in rows without times. (n, 0) for models
        without times.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    ages: Tensor

    def to(self, device: torch.device) -> HistoryInputs:
        """Return the inputs on a device."""
        return HistoryInputs(*(tensor.to(device) for tensor in self))


def history_inputs(histories: Histories, length: int, with_times: bool = False) -> HistoryInputs:
    """Newest `length` items of n histories, with their ages if `with_times`."""
    lengths = np.minimum(histories.lengths, length)
    width = int(lengths.max())
    ages = histories.ages(width) if with_times else np.zeros((len(lengths), 0), dtype=np.int64)
    if ages is None:
        ages = np.full((len(lengths), width), -1, dtype=np.int64)
    arrays = (histories.users, histories.padded(width), lengths, ages)
    return HistoryInputs(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
