"""Shared parts of SASRec, SSE-PT and GRU4Rec: training on the next item at every position of a history."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.history_arrays import history_arrays
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.errors import DataError, TrainingError
from segue.models.features import FeatureNames
from segue.models.item_table import Catalogue, ItemTable
from segue.models.negatives import Negatives, SharedNegatives
from segue.models.repeats import NO_REPEATS, RepeatBatch, RepeatExamples, Repeats
from segue.models.similarity import Similarity
from segue.models.transitions import NO_TRANSITIONS, TransitionBatch, TransitionExamples, Transitions
from segue.nn import losses
from segue.nn.divided import divided_softmax

LossName = Literal["bce", "gbce", "sampled-softmax", "softmax"]
Windows = Literal["newest", "all"]
Targets = Literal["item", "session"]

FORMERLY: dict[str, Any] = {
    "logq": False,
    "in_batch": 0.0,
    "positions": "absolute",
    "time_bias": False,
    "targets": "item",
    "repeats": False,
}
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
        (n,) int64 position in `items.flatten()` of the input before each target.
    targets
        (n,) int64 item after each input or, if the targets are sessions, one of the items of the next session.
    negatives
        (n, k) int64 per position, (k,) shared by the batch, or (0,) if the loss needs none.
    log_counts
        (k,) float32 logarithms of the expected counts of the shared negatives; (0,) without the correction.
    ages
        (b, length) int64 time from each input to the newest input of its row; (0,) for models without times.
    repeats
        Repeats of the histories and targets, for models with them. A history ends with its input.
    transitions
        Transitions to the targets and negatives, for models with them.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    positions: Tensor
    targets: Tensor
    negatives: Tensor
    log_counts: Tensor
    ages: Tensor
    repeats: RepeatBatch = NO_REPEATS
    transitions: TransitionBatch = NO_TRANSITIONS


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
        self,
        hidden: Tensor,
        vectors: Tensor,
        catalogue: Catalogue,
        batch: NextItemBatch,
        offset: Tensor | None = None,
        repeats: Repeats | None = None,
        transitions: Transitions | None = None,
    ) -> Tensor:
        """Summed loss over the targets of the batch.

        Parameters
        ----------
        hidden
            (n, width) hidden states.
        vectors
            (…, width) item vectors of the targets, of the negatives and, with repeats, of the items of the histories.
        catalogue
            Items of the full softmax.
        batch
            Batch with the targets and negatives.
        offset
            (n,) number to add to every score of a position; it does not change a softmax.
        repeats
            Additions for items of the history, if the model has them.
        transitions
            Additions for items that followed the newest ones, if the model has them.
        """
        query = self.similarity.query(hidden)
        if repeats is not None:
            return self._with_repeats(query, vectors, catalogue, batch, repeats)
        if transitions is not None:
            of_targets, of_negatives, negatives, log_counts = self._softmax_scores(query, vectors, catalogue, batch)
            scores = transitions.add(of_targets, of_negatives, batch.transitions)
            return losses.sampled_softmax(*scores, losses.shared_hits(batch.targets, negatives), log_counts)
        if self.name == "softmax":
            normalise = self.similarity.name == "cosine"
            if catalogue.divided is not None:
                return divided_softmax(query, catalogue.divided, batch.targets, normalise)
            targets = catalogue.rows_of(batch.targets)
            return losses.full_softmax(query, catalogue.vectors, targets, normalise=normalise)
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

    def _with_repeats(
        self, query: Tensor, vectors: Tensor, catalogue: Catalogue, batch: NextItemBatch, repeats: Repeats
    ) -> Tensor:
        """Summed softmax loss with additions for items of the history; arguments are those of the call."""
        own = self.similarity.item(vectors[len(vectors) - batch.repeats.items.numel() :])
        own_scores = batch.repeats.products(query, own)
        of_targets, of_negatives, negatives, log_counts = self._softmax_scores(query, vectors, catalogue, batch)
        scores = of_targets, of_negatives, own_scores
        return repeats.loss(*scores, batch.targets, negatives, log_counts, batch.repeats)

    def _softmax_scores(
        self, query: Tensor, vectors: Tensor, catalogue: Catalogue, batch: NextItemBatch
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Scores (n,) of the targets and (n, k) of the negatives, their codes (k,), and their expected log-counts.

        The negatives of the full softmax are the whole catalogue, without log-counts.
        """
        log_counts: Tensor | None = None
        if self.name == "softmax":
            negatives, table = catalogue.all_codes(), catalogue.vectors
            of_targets = self.similarity.item(table[catalogue.rows_of(batch.targets)])
            of_negatives = self.similarity.item(table[1:])
        else:
            n, negatives = len(batch.targets), batch.negatives
            log_counts = batch.log_counts if self.logq else None
            of_targets, of_negatives = self.similarity.item(vectors[: n + len(negatives)]).tensor_split([n])
        return (query * of_targets).sum(-1), query @ of_negatives.T, negatives, log_counts

    def look_up(self, table: ItemTable, batch: NextItemBatch) -> tuple[Tensor, Tensor, Catalogue]:
        """Read the vectors of a batch.

        All of them are read in one lookup, because each lookup costs a gradient as large as the table or a sort of its
        rows. Only a full softmax reads the whole table.

        Returns
        -------
        inputs
            (b, length, width) vectors of the inputs.
        scored
            (…, width) vectors of targets, negatives and items of the histories.
        catalogue
            Items of the full softmax.
        """
        whole = table.all() if self.name == "softmax" else table.weight
        scored = [] if self.name == "softmax" else [batch.targets, batch.negatives.flatten()]
        scored += [batch.repeats.items.flatten()] if batch.repeats.items.numel() else []
        codes = torch.cat([batch.items.flatten(), *scored])
        n_inputs = batch.items.numel()
        # One split, because each slice would have a gradient as large as both parts together.
        vectors = table(codes) if whole is table.weight else F.embedding(codes, whole)
        inputs, others = torch.split(vectors, [n_inputs, len(codes) - n_inputs])
        catalogue = table.catalogue(whole) if self.name == "softmax" else Catalogue(whole)
        return inputs.view(*batch.items.shape, inputs.shape[-1]), others, catalogue

    def squares(self, inputs: Tensor, scored: Tensor, catalogue: Catalogue, batch: NextItemBatch) -> Tensor:
        """Summed squares (a scalar) of the item vectors that the batch reads, each as often as it is read.

        They are the inputs, targets and negatives; with the full softmax the inputs and, once, all items.

        Parameters
        ----------
        inputs, scored
            Results of `look_up`.
        catalogue
            Items of the full softmax.
        batch
            The batch.
        """
        read = catalogue.vectors[1:] if self.name == "softmax" else scored
        return inputs.flatten(0, 1).index_select(0, batch.positions).square().sum() + read.square().sum()


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
    targets
        "item": the item after each input. "session": after the last input of a session, every item of the next one.
    repeats
        Add the repeats to batches.
    transitions
        Add the transitions to batches.
    candidates
        (m,) codes of the items that may be negatives; all if None.

    Raises
    ------
    TrainingError
        No user has two interactions, or two sessions if the targets are sessions.
    DataError
        `with_times` is set, and the Dataset has no times; or the targets are sessions, and it has none.
    """

    def __init__(
        self,
        dataset: Dataset,
        max_length: int,
        loss: NextItemLoss,
        random_window: float = 0.0,
        with_times: bool = False,
        windows: Windows = "newest",
        targets: Targets = "item",
        repeats: bool = False,
        transitions: bool = False,
        candidates: Int64 | None = None,
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
        self.sessions = dataset.sessions if targets == "session" else None
        inputs = self._inputs_of_users()
        users = np.flatnonzero(inputs)
        if not len(users):
            raise TrainingError(
                f"no user has two {'interactions' if self.sessions is None else 'sessions'} in the training part: "
                "there is no next item to learn."
            )
        counts = -(-inputs[users] // max_length) if windows == "all" else np.ones_like(users)
        later = positions(np.zeros_like(counts), counts) * max_length  # inputs of the user's newer windows
        self.users: Int64 = np.repeat(users, counts)
        self.ends: Int64 = dataset.starts[self.users] + inputs[self.users] - later
        self.lengths: Int64 = np.minimum(inputs[self.users] - later, max_length)
        self.weights: Int64 = self.lengths
        if self.sessions is not None:
            self._keep_windows_with_targets()
        # With more data, an epoch has more steps and a step has more targets.
        self.usual_batch = max(1, usual_batch(len(self.users), int(self.weights.sum())))
        self.usual_averaging = 0.9
        self.with_times = with_times
        self.candidates = candidates
        self.negatives = Negatives(dataset, candidates) if loss.per_position else None
        self.shared = self._shared() if loss.name == "sampled-softmax" else None
        self.repeats = RepeatExamples(dataset) if repeats else None
        self.transitions = TransitionExamples(dataset) if transitions else None

    def _inputs_of_users(self) -> Int64:
        """Number (n_users + 1,) of the interactions of each user that may be inputs: those before the last target."""
        data = self.dataset
        if self.sessions is None:
            return np.maximum(data.lengths - 1, 0)
        last = self.sessions.offsets[1:] - 1
        inputs = np.zeros_like(data.lengths)
        several = self.sessions.counts >= 2
        inputs[several] = self.sessions.starts[last[several]] - data.starts[several]
        return inputs

    def _keep_windows_with_targets(self) -> None:
        """Find the sessions that follow an input of each window, and leave windows without any out."""
        assert self.sessions is not None
        first, last = (
            np.searchsorted(self.sessions.starts, ends, side="right") for ends in (self.ends - self.lengths, self.ends)
        )
        targets = offsets_of(self.sessions.lengths)
        kept = first < last
        self.users, self.ends, self.lengths = self.users[kept], self.ends[kept], self.lengths[kept]
        self.targets: tuple[Int64, Int64] = first[kept], last[kept]
        self.weights = targets[last[kept]] - targets[first[kept]]

    def batch(self, index: Int64, generator: np.random.Generator) -> NextItemBatch:
        """Return the windows of the units at `index`, with negatives."""
        users, lengths = self.users[index], self.lengths[index]
        ends = self.ends[index] - self._slack(users, lengths, generator)
        starts = ends - lengths
        inputs = Histories(users, self.dataset.items, starts, ends, self.dataset.times if self.with_times else None)
        width = int(lengths.max())
        window, query_ends, owners, places = self._queries(index, starts, ends)
        targets = self.dataset.items[places].astype(np.int64)
        negatives, log_counts = self._draw(users[window[owners]], targets, generator)
        ages = inputs.ages(width)
        input_positions = query_ends - 1 - starts[window] + window * width
        arrays = (
            users,
            inputs.padded(width),
            lengths,
            input_positions[owners],
            targets,
            negatives,
            log_counts,
            np.zeros(0, dtype=np.int64) if ages is None else ages,
        )
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        repeats, transitions = NO_REPEATS, NO_TRANSITIONS
        among = self.candidates if self.loss.name == "softmax" else negatives
        begins = self.dataset.starts[users[window]]
        if self.repeats is not None:
            every = np.arange(1, self.dataset.n_items + 1) if among is None else among
            repeats = self.repeats.batch(begins, query_ends, owners, places, every, generator)
        if self.transitions is not None:  # each query has one target, which follows it
            transitions = self.transitions.batch(begins, query_ends, targets, among)
        return NextItemBatch._make([*tensors, repeats, transitions])

    def _queries(self, index: Int64, starts: Int64, ends: Int64) -> tuple[Int64, Int64, Int64, Int64]:
        """Queries of the windows [start, end) of the units at `index`, and their targets.

        Returns
        -------
        windows, query_ends
            (q,) row of the window of each query, and end of its history.
        owners, places
            (n,) query of each target, and position of the target in the Dataset.
        """
        if self.sessions is None:
            places = positions(starts + 1, ends + 1)
            return rows_of(starts, ends), places, np.arange(len(places)), places
        first, last = self.targets[0][index], self.targets[1][index]
        sessions = positions(first, last)
        begins, stops = self.sessions.starts[sessions], self.sessions.ends[sessions]
        return rows_of(first, last), begins, rows_of(begins, stops), positions(begins, stops)

    def _slack(self, users: Int64, lengths: Int64, generator: np.random.Generator) -> Int64 | int:
        """Distance from the end of each window to the end of its history."""
        if not self.random_window:
            return 0
        room = self.dataset.lengths[users] - 1 - lengths
        moved = generator.random(len(users)) < self.random_window
        return np.where(moved, generator.integers(0, room + 1), 0)

    def _draw(
        self, users: Int64, targets: Int64, generator: np.random.Generator
    ) -> tuple[Int64, npt.NDArray[np.float32]]:
        """Negatives for n targets of users (n,), and the logarithms of their expected counts if needed."""
        none = np.zeros(0, dtype=np.float32)
        if self.shared is not None:
            drawn = self.shared.draw(targets, generator)
            return drawn, self.shared.log_counts(drawn) if self.loss.logq else none
        if self.negatives is None:
            return np.zeros(0, dtype=np.int64), none
        return self.negatives.draw(users, self.loss.negatives, generator), none

    def _shared(self) -> SharedNegatives:
        """Shared negatives, with the counts of the targets of an epoch.

        With random windows the counts are those of all possible targets.
        """
        if not self.loss.in_batch:  # all draws are uniform
            no_counts = np.broadcast_to(np.int64(0), self.dataset.n_items + 1)
            return SharedNegatives(no_counts, self.loss.negatives, 0.0, self.candidates)
        if self.sessions is None:
            lengths = self.dataset.lengths[self.users] - 1 if self.random_window else self.lengths
            ends = self.ends + 1
            places = positions(ends - lengths, ends)
        else:
            sessions = positions(*self.targets)
            places = positions(self.sessions.starts[sessions], self.sessions.ends[sessions])
        targets = self.dataset.items[places]
        counts = np.bincount(targets, minlength=self.dataset.n_items + 1)
        return SharedNegatives(counts, self.loss.negatives, self.loss.in_batch, self.candidates)


def why_whole(
    loss: str | None, features: FeatureNames, repeats: bool | None, embedding_l2: float, transitions: bool = False
) -> str | None:
    """Setting because of which the item table of a model cannot be divided over processes (`ModelConfig.why_whole`).

    Parameters
    ----------
    loss, features, repeats, embedding_l2, transitions
        Resolved settings.
    """
    if transitions:
        return "transitions=True keeps its counts in every process"
    if features:
        return f"features={features!r} are content that every process reads whole"
    if loss == "softmax" and repeats:
        return "repeats=True with loss='softmax' scores the whole catalogue in every process"
    if loss == "softmax" and embedding_l2:
        return f"embedding_l2={embedding_l2} with loss='softmax' reads the whole table in every process"
    return None


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
    repeated, features
        Repeats of the histories; see `RepeatInputs`.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    ages: Tensor
    repeated: Tensor
    features: Tensor


def history_inputs(histories: Histories, length: int, with_times: bool = False, repeats: bool = False) -> HistoryInputs:
    """Newest `length` items of n histories, with their ages if `with_times`, and with their repeats if `repeats`."""
    return HistoryInputs._make(map(torch.from_numpy, history_arrays(histories, length, with_times, repeats)))
