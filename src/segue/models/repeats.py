"""Repeats: an addition to the scores of items that the user took before, shared by several models.

People who buy groceries or listen to music take the same items again. A model with vectors of items alone has to learn
this for each user and item. With repeats its score of an item i in the history becomes

    score(i) + f(x) + b[i],

in which x are facts of the user and the item: how often, how long ago, and at which pace (`segue.data.occurrences`). f
is linear plus a small network, and b[i] tells how much people take the item again. Under a softmax the mass of the
history and the mass of the other items are the two modes, repeat and explore, of RepeatNet (Ren et al., AAAI 2019).
The gaps between the steps with an item are the features of ReCANet (Ariannezhad et al., SIGIR 2022).

f begins as counting: exp(f) is the decayed count of the item times a constant, so that before training the history has
the share of the probability that repeats have in the data.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.gaps import usual_gap
from segue.data.histories import Histories
from segue.data.history_arrays import repeat_arrays
from segue.data.occurrences import FEATURES, Occurrences, repeat_share
from segue.data.ragged import Int64, offsets_of, positions
from segue.errors import ConfigError
from segue.models.negatives import SOFTMAXES
from segue.nn import losses

ENOUGH = 0.1
"""Share of repeats in the data from which on models take them into account, unless the settings say otherwise."""

PAIRS = 1 << 15
"""Number of pairs, about, of a history and one of its items that a training step scores."""
_FEWEST = 16
"""Smallest number of items of a history that a training step scores, if it has more."""
_HIDDEN = 16
_SLOW = 3
_FLOOR = 1e-3
"""Number that is added to decayed counts before their logarithm."""


def resolved(repeats: bool | None, dataset: Dataset, possible: bool = True) -> bool:
    """Setting of repeats: as given or, if not, True if they are `possible` and the data have enough of them."""
    return (possible and repeat_share(dataset) >= ENOUGH) if repeats is None else repeats


def check_repeats(repeats: bool | None, loss: str | None, softmaxes: tuple[str, ...] = SOFTMAXES) -> None:
    """Raise a ConfigError if repeats are set with a loss that is no softmax."""
    if repeats and loss is not None and loss not in softmaxes:
        raise ConfigError(
            f"repeats=True goes with a softmax, and loss={loss!r} is none: expected {' or '.join(softmaxes)}."
        )


class RepeatBatch(NamedTuple):
    """Repeats of a training batch with q histories and n targets.

    Attributes
    ----------
    rows
        (n,) int64 history of each target.
    items
        (q, r) int64 items of each history, 0 behind the last. At most r are drawn from a longer history.
    features
        (q, r, 8) float32 features of these items.
    log_weights
        (q,) float32 logarithm of the number of items that each of them stands for.
    target_features
        (n, 8) float32 features of the targets.
    repeated
        (n,) bool, True for targets that are in their history.
    hit_rows, hit_columns
        (m,) int64 pairs of a history and a shared negative that is in it.
    hit_features
        (m, 8) float32 features of these negatives; (0,) if nobody needs them.
    """

    rows: Tensor
    items: Tensor
    features: Tensor
    log_weights: Tensor
    target_features: Tensor
    repeated: Tensor
    hit_rows: Tensor
    hit_columns: Tensor
    hit_features: Tensor

    def products(self, queries: Tensor, vectors: Tensor) -> Tensor:
        """Scores (n, r) of the items of each target's history.

        Queries (n, width) of targets with the same history are equal. Item vectors are (q · r, width).
        """
        first = torch.searchsorted(self.rows, torch.arange(len(self.items), device=queries.device))
        vectors = vectors.view(*self.items.shape, vectors.shape[-1])  # a batch without any repeats is empty
        return (queries[first][:, None] @ vectors.transpose(1, 2))[:, 0].index_select(0, self.rows)

    def of_targets(self, index: Tensor) -> RepeatBatch:
        """Return the batch for the targets at `index`, in its order."""
        return self._replace(
            rows=self.rows[index], target_features=self.target_features[index], repeated=self.repeated[index]
        )

    def as_new(self, targets: Tensor) -> RepeatBatch:
        """Return the batch with the masked targets (n,) as items that are not in their histories."""
        return self._replace(repeated=self.repeated & ~targets)


NO_REPEATS = RepeatBatch(*(torch.zeros(0, dtype=torch.int64) for _ in RepeatBatch._fields))
"""Repeats of a batch of a model without them."""


class RepeatExamples:
    """Maker of the repeats of training batches.

    Parameters
    ----------
    dataset
        Training view of a Dataset; positions below are those of its arrays.
    with_hits
        Add the features of the negatives in the histories.
    """

    def __init__(self, dataset: Dataset, with_hits: bool = False) -> None:
        self.with_hits = with_hits
        self.occurrences = Occurrences.in_dataset(dataset)
        self.n_items = dataset.n_items

    def batch(
        self,
        starts: Int64,
        ends: Int64,
        rows: Int64,
        targets: Int64,
        negatives: Int64,
        generator: np.random.Generator,
    ) -> RepeatBatch:
        """Return the repeats of a batch.

        Parameters
        ----------
        starts, ends
            (q,) histories [start, end), as positions in the Dataset. A history may be empty.
        rows, targets
            (n,) history and position of each target. The target is the item at the position.
        negatives
            (k,) shared negatives.
        generator
            Source of the random draws.
        """
        known = self.occurrences
        owners, places = known.newest(starts, ends)
        counts = np.bincount(owners, minlength=len(starts))
        chosen, width = _drawn(counts, generator)
        kept = np.minimum(counts, width)
        columns = positions(np.zeros_like(kept), kept)
        row = np.repeat(np.arange(len(starts)), kept)
        items = np.zeros((len(starts), width), dtype=np.int64)
        features = np.ones((len(starts), width, len(FEATURES)), dtype=np.float32)
        items[row, columns] = known.items[places[chosen]]
        features[row, columns] = known.features(places[chosen], starts[row], ends[row])
        before = known.before[targets]
        repeated = before >= starts[rows]
        target_features = np.ones((len(rows), len(FEATURES)), dtype=np.float32)
        again = rows[repeated]
        target_features[repeated] = known.features(before[repeated], starts[again], ends[again])
        log_weights = np.log(np.maximum(counts, 1) / np.maximum(kept, 1)).astype(np.float32)
        entries, hit_columns = _hits(known.items[places], negatives, self.n_items)
        hit_rows, hit_features = owners[entries], np.zeros(0, dtype=np.float32)
        if self.with_hits:
            hit_features = known.features(places[entries], starts[hit_rows], ends[hit_rows])
        own = (rows, items, features, log_weights, target_features, repeated)
        arrays = (*own, hit_rows, hit_columns, hit_features)
        return RepeatBatch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def _drawn(counts: Int64, generator: np.random.Generator) -> tuple[Int64, int]:
    """Entries of ragged rows with these counts (q,), and the largest number of them per row.

    Of a longer row every so many entries are drawn, from a random one on, so all have the same probability.
    """
    width = int(min(counts.max(initial=0), max(_FEWEST, PAIRS // max(len(counts), 1))))
    offsets, kept = offsets_of(counts)[:-1], np.minimum(counts, width)
    place = positions(np.zeros_like(kept), kept)
    step = np.repeat(counts / np.maximum(kept, 1), kept)
    shift = np.repeat(generator.random(len(counts)), kept)
    within = np.where(step > 1, ((place + shift) * step).astype(np.int64), place)
    return np.repeat(offsets, kept) + np.minimum(within, np.repeat(counts, kept) - 1), width


def _hits(items: npt.NDArray[np.int32], negatives: Int64, n_items: int) -> tuple[Int64, Int64]:
    """Places (m,) in `items` and columns (m,) in `negatives` of the pairs of equal ones."""
    drawn = np.zeros(n_items + 1, dtype=np.bool_)
    drawn[negatives] = True
    inside = np.flatnonzero(drawn[items])
    order = np.argsort(negatives, kind="stable")
    first = np.searchsorted(negatives[order], items[inside], side="left")
    last = np.searchsorted(negatives[order], items[inside], side="right")
    return np.repeat(inside, last - first), order[positions(first, last)]


class RepeatInputs(NamedTuple):
    """Repeats of n histories.

    Attributes
    ----------
    items
        (n, r) int64 distinct items of each history, ascending, 0 behind the last.
    features
        (n, r, 8) float32 features of these items.
    """

    items: Tensor
    features: Tensor


def repeat_inputs(histories: Histories, wanted: bool = True) -> RepeatInputs:
    """Distinct items of n histories before their sessions in progress, with their features; none unless `wanted`."""
    return RepeatInputs(*map(torch.from_numpy, repeat_arrays(histories, wanted)))


class Repeats(nn.Module):
    """Additions to the scores of items that the user took before: f(x) + b[i].

    Parameters
    ----------
    n_items
        Size of the catalogue.

    Buffers
    -------
    gap
        () int64 usual time between two steps, in the unit of the times. Without times a step counts as one gap.
    """

    gap: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        if n_items >= 1 << 24:
            raise ConfigError(f"repeats=True takes fewer than {1 << 24:,} items, and there are {n_items:,}.")
        n_features = 9
        self.linear = nn.Linear(n_features, 1)
        self.hidden = nn.Linear(n_features, _HIDDEN)
        self.output = nn.Linear(_HIDDEN, 1, bias=False)
        self.biases = nn.Embedding(n_items + 1, 1)
        self.register_buffer("gap", torch.ones((), dtype=torch.int64))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.biases.weight)
        with torch.no_grad():
            self.linear.weight[0, _SLOW] = 1

    def prepare(self, dataset: Dataset) -> None:
        """Store the usual gap, and begin with the share of repeats in the data."""
        if dataset.times is not None:
            self.gap.fill_(usual_gap(dataset))
        codes = np.flatnonzero(dataset.lengths)
        known, offsets = Occurrences.in_histories(dataset.histories(codes))
        rows, places = known.newest(offsets[:-1], offsets[1:])
        counts = known.features(places, offsets[rows], offsets[rows + 1])[:, 4].sum() / max(len(codes), 1)
        share = float(np.clip((known.before >= 0).mean() if len(known.items) else 0.5, 0.01, 0.99))
        with torch.no_grad():
            self.linear.bias.fill_(math.log(share / (1 - share) * self.biases.num_embeddings / max(counts, 1.0)))

    def forward(self, features: Tensor, items: Tensor) -> Tensor:
        """Additions (…,) for items (…,) with features (…, 8)."""
        with torch.autocast(features.device.type, enabled=False):
            return self._additions(features.to(self.linear.weight.dtype), items)

    def _additions(self, features: Tensor, items: Tensor) -> Tensor:
        count, ago, age, fast, slow, time_ago, time_age, steps = features.unbind(-1)
        unit = self.gap.to(features.dtype)
        time_ago = torch.where(time_ago < 0, ago, time_ago / unit)
        time_age = torch.where(time_age < 0, age, time_age / unit)
        several = (count - 1).clamp(min=1)
        again = (count > 1).to(features.dtype)
        pace = again * ((ago + 1) / ((age - ago) / several + 1)).log()
        time_pace = again * ((time_ago + 1) / ((time_age - time_ago) / several + 1)).log()
        x = torch.stack(
            [
                count.log(),
                ago.log1p(),
                (fast + _FLOOR).log(),
                (slow + _FLOOR).log(),
                pace,
                time_ago.log1p(),
                time_pace,
                age.log1p(),
                steps.log(),
            ],
            dim=-1,
        )
        added: Tensor = self.linear(x) + self.output(F.gelu(self.hidden(x)))
        added = added + self.biases(items)
        return added[..., 0]

    def queries(self, queries: Tensor, items: Tensor, features: Tensor) -> Tensor:
        """Append to queries (n, width) the items (n, r) and their additions, in pairs: (n, width + 2 r)."""
        added = torch.where(items > 0, self(features, items), 0)
        pairs = torch.stack([items.to(added.dtype), added], dim=-1)
        return torch.cat([queries, pairs.flatten(1)], dim=1)

    def of_targets(self, targets: Tensor, batch: RepeatBatch) -> Tensor:
        """Additions (n,) for the targets (n,) of a batch, 0 for those that are not in their histories."""
        return torch.where(batch.repeated, self(batch.target_features, targets), 0)

    def loss(
        self,
        target_scores: Tensor,
        negative_scores: Tensor,
        own_scores: Tensor,
        targets: Tensor,
        negatives: Tensor,
        log_counts: Tensor | None,
        batch: RepeatBatch,
    ) -> Tensor:
        """Summed softmax loss of n targets, with the additions.

        The sum over all items has two parts. The items of the history are scored themselves, or a sample of them that
        stands for all. The others are estimated from the shared negatives, without those that are in the history.

        Parameters
        ----------
        target_scores, negative_scores, own_scores
            (n,), (n, k) and (n, r) scores of the targets, the negatives and the items of the histories, without the
            additions.
        targets, negatives
            (n,) and (k,) item codes.
        log_counts
            (k,) logarithms of the expected counts of the negatives; None if they are the whole catalogue, each once.
        batch
            Repeats of the batch.
        """
        target_scores = target_scores + self.of_targets(targets, batch)
        added = self(batch.features, batch.items) + batch.log_weights[:, None]
        outside = (batch.items == 0)[batch.rows] | (batch.items[batch.rows] == targets[:, None])
        own_scores = (own_scores + added[batch.rows]).masked_fill(outside, -torch.inf)
        if log_counts is not None:
            negative_scores = negative_scores - log_counts
        pairs = losses.shared_hits(targets, negatives), _expanded(batch)
        rows, columns = (torch.cat(both) for both in zip(*pairs, strict=True))
        return losses.sampled_softmax(target_scores, torch.cat([negative_scores, own_scores], dim=1), (rows, columns))


def _expanded(batch: RepeatBatch) -> tuple[Tensor, Tensor]:
    """Pairs of a target and a negative that is in its history, from the pairs of the histories."""
    order = batch.rows.argsort(stable=True)
    ordered = batch.rows[order]
    first, last = (torch.searchsorted(ordered, batch.hit_rows, right=right) for right in (False, True))
    counts = last - first
    pair = torch.repeat_interleave(counts)
    within = torch.arange(len(pair), device=pair.device) - (counts.cumsum(0) - counts)[pair]
    return order[first[pair] + within], batch.hit_columns[pair]
