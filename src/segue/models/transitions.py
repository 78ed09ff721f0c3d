"""Transitions: an addition to the scores of items that followed the newest items in other histories.

A model with vectors has to learn each pair of items from its examples, and on sparse data it forgets most of them; a
table of counts does not. With transitions the score of an item i after the newest items j₀, j₁, j₂ (newest first) is

    score(i) + w · log(1 + c(i)),    c(i) = Σ_d 0.5^d · C[j_d, i],

in which C[j, i] counts how often i followed j in the histories of the training, at most three places behind, each
further place with half of the weight. w is learnt together with the vectors. This is a log-linear mixture of the model
and a Markov chain (Klakow, *Log-linear interpolation of language models*, ICSLP 1998).

**Each target is left out of its own count.** In the training data every target follows its history at least once,
namely there. A model that saw this occurrence would learn to trust the table more than it can on new histories. So the
occurrence itself is subtracted (leaving one out: Ney, Essen & Kneser, *On the estimation of "small" probabilities by
leaving-one-out*, IEEE TPAMI 1995), and a pair that was seen once adds nothing to its own target.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, positions
from segue.data.transitions import DECAY, STEPS, TransitionCounts, newest_items, summed
from segue.errors import ConfigError
from segue.models.negatives import SOFTMAXES
from segue.nn.buffers import take_saved_sizes

Floats = npt.NDArray[np.float32]

FEW = 30
"""Average number of interactions of an item up to which models take transitions into account, unless the settings say
otherwise."""
MOST_COUNTED = 5_000_000
"""Number of interactions up to which they do so: those of 20 million interactions can take 4 GB while they are counted,
and 0.4 GB of the saved model."""

_FIRST_WEIGHT = 0.5
_MOST_ITEMS = 1 << 24


def resolved(transitions: bool | None, dataset: Dataset, possible: bool = True) -> bool:
    """Setting of transitions: as given or, if not, True if they are `possible`, the items have few interactions, and
    the log is not large.

    Whoever has seen an item often can learn what follows it; of a rare item only the counts remember it.
    """
    if transitions is not None:
        return transitions
    if not possible or dataset.n_interactions > MOST_COUNTED or dataset.n_items >= _MOST_ITEMS:
        return False
    return dataset.n_interactions <= FEW * int(np.count_nonzero(dataset.item_counts()))


def check_transitions(transitions: bool | None, loss: str | None, targets: str, repeats: bool | None) -> None:
    """Raise a ConfigError if transitions are set with a loss that is no softmax, with sessions or with repeats."""
    if not transitions:
        return
    if loss is not None and loss not in SOFTMAXES:
        raise ConfigError(
            f"transitions=True goes with a softmax, and loss={loss!r} is none: expected {' or '.join(SOFTMAXES)}."
        )
    if targets != "item":
        raise ConfigError(f"transitions=True counts from one item to the next, and targets={targets!r} are none.")
    if repeats:
        raise ConfigError("transitions=True and repeats=True both add to the scores: leave one out.")


class TransitionBatch(NamedTuple):
    """Logarithms of counts for the n targets of a training batch.

    Attributes
    ----------
    own
        (n,) float32 log(1 + c) of each target, without its own occurrence.
    rows, columns
        (m,) int64 pairs of a target and a shared negative that followed its newest items.
    values
        (m,) float32 log(1 + c) of these negatives.
    """

    own: Tensor
    rows: Tensor
    columns: Tensor
    values: Tensor


NO_TRANSITIONS = TransitionBatch(torch.zeros(0), *(torch.zeros(0, dtype=torch.int64),) * 2, torch.zeros(0))
"""Transitions of a batch of a model without them."""


class TransitionExamples:
    """Maker of the transitions of training batches.

    Parameters
    ----------
    dataset
        Training view of a Dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.counts = TransitionCounts.of(dataset)
        self._backwards = self.counts.backwards()
        side = dataset.n_items + 1
        self._pairs = np.repeat(np.arange(side) * side, np.diff(self.counts.offsets)) + self.counts.followers
        self.items, self.n_items = dataset.items, dataset.n_items

    def batch(self, begins: Int64, ends: Int64, targets: Int64, negatives: Int64 | None) -> TransitionBatch:
        """Return the transitions of a batch.

        Parameters
        ----------
        begins, ends
            (n,) histories [begin, end) before each target, as positions in the Dataset. The target stands at the end.
        targets
            (n,) items.
        negatives
            (k,) shared negatives; all items in the order of their codes if None.
        """
        newest = newest_items(self.items, begins, ends)
        own = self._of_targets(newest, targets) - _own_occurrence(newest)
        rows, columns, values = self._after(newest) if negatives is None else self._among(newest, negatives)
        arrays = np.log1p(np.maximum(own, 0)).astype(np.float32), rows, columns, np.log1p(values).astype(np.float32)
        return TransitionBatch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _of_targets(self, newest: Int64, targets: Int64) -> npt.NDArray[np.float64]:
        """Counts c (n,) of the targets (n,) after the items (n, STEPS)."""
        keys = newest * (self.n_items + 1) + targets[:, None]
        places = np.minimum(np.searchsorted(self._pairs, keys), len(self._pairs) - 1)
        counts = np.where(self._pairs[places] == keys, self.counts.counts[places], 0)
        total: npt.NDArray[np.float64] = counts @ DECAY ** np.arange(STEPS)
        return total

    def _after(self, newest: Int64) -> tuple[Int64, Int64, Floats]:
        """Rows (m,), columns (m,) and counts c (m,) of all items that followed the items (n, STEPS)."""
        rows, places, weights = self.counts.entries(newest)
        keys = rows * self.n_items + self.counts.followers[places] - 1
        keys, values = summed(keys, weights * self.counts.counts[places], len(newest) * self.n_items)
        return *np.divmod(keys, self.n_items), values

    def _among(self, newest: Int64, negatives: Int64) -> tuple[Int64, Int64, Floats]:
        """Rows (m,), columns (m,) and counts c (m,) of the negatives that followed the items (n, STEPS).

        A negative is looked up in the items that it followed: most have few, whereas those behind the items are many.
        """
        rows, steps = np.nonzero(newest)
        items = newest[rows, steps]
        order = np.argsort(items, kind="stable")
        items, rows, weights = items[order], rows[order], (DECAY ** steps[order].astype(np.float32)).astype(np.float32)
        first, last = self._backwards.offsets[negatives], self._backwards.offsets[negatives + 1]
        places = positions(first, last)
        leaders = self._backwards.followers[places]
        distinct, begins, numbers = np.unique(items, return_index=True, return_counts=True)
        low, times = np.zeros((2, self.n_items + 1), dtype=np.int64)
        low[distinct], times[distinct] = begins, numbers
        low, times = low[leaders], times[leaders]
        found = positions(low, low + times)
        columns = np.repeat(np.repeat(np.arange(len(negatives)), last - first), times)
        values = np.repeat(self._backwards.counts[places], times) * weights[found]
        keys, values = summed(rows[found] * len(negatives) + columns, values, len(newest) * len(negatives))
        return *np.divmod(keys, len(negatives)), values


def _own_occurrence(newest: Int64) -> npt.NDArray[np.float64]:
    """Part (n,) of the count c of the item behind these newest items (n, STEPS) that it has from standing there."""
    equal = (newest[:, :, None] == newest[:, None, :]) & (newest > 0)[:, None]
    weights = DECAY ** np.arange(STEPS)
    counts: npt.NDArray[np.float64] = (equal * (weights[:, None] * weights)).sum((1, 2))
    return counts


class Transitions(nn.Module):
    """Additions w · log(1 + c) to the scores of items that followed the newest items.

    Parameters
    ----------
    n_items
        Size of the catalogue.

    Buffers
    -------
    offsets, followers, counts
        See `TransitionCounts`.
    """

    offsets: Tensor
    followers: Tensor
    counts: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        if n_items >= _MOST_ITEMS:
            raise ConfigError(f"transitions=True takes fewer than {_MOST_ITEMS:,} items, and there are {n_items:,}.")
        self.weight = nn.Parameter(torch.tensor(_FIRST_WEIGHT))
        self.register_buffer("offsets", torch.zeros(n_items + 2, dtype=torch.int64))
        self.register_buffer("followers", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("counts", torch.zeros(0))

    def prepare(self, dataset: Dataset) -> None:
        """Count the transitions between the visible interactions."""
        device = self.weight.device
        for name, array in TransitionCounts.of(dataset)._asdict().items():
            setattr(self, name, torch.from_numpy(array).to(device))

    def grow_from(self, former: Self) -> None:
        """Take the counts of a model for fewer items; nothing has followed the new ones."""
        added = len(self.offsets) - len(former.offsets)
        self.offsets = torch.cat([former.offsets, former.offsets[-1:].expand(added)])
        self.followers, self.counts = former.followers.clone(), former.counts.clone()

    def table(self) -> TransitionCounts:
        """The counts as arrays."""
        return TransitionCounts(*(tensor.cpu().numpy() for tensor in (self.offsets, self.followers, self.counts)))

    def arrays(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """Items (n, r) that followed the newest ones, and their log(1 + c) as (n, r, 1) float32."""
        items, logs = self.table().after(histories)
        return torch.from_numpy(items), torch.from_numpy(logs[..., None])

    def queries(self, queries: Tensor, items: Tensor, logs: Tensor) -> Tensor:
        """Append to queries (n, width) the items (n, r) and their additions, in pairs: (n, width + 2 r)."""
        added = self.weight * logs[..., 0]
        return torch.cat([queries, torch.stack([items.to(added.dtype), added], dim=-1).flatten(1)], dim=1)

    def add(self, target_scores: Tensor, negative_scores: Tensor, batch: TransitionBatch) -> tuple[Tensor, Tensor]:
        """Scores (n,) of the targets and (n, k) of the negatives, with the additions."""
        added = (self.weight * batch.values).to(negative_scores.dtype)
        places = batch.rows, batch.columns  # no pair stands there twice
        return target_scores + self.weight * batch.own, negative_scores.index_put(places, added, accumulate=True)

    def fault(self) -> str | None:
        """Fault of the counts, in words; None if there is none."""
        return self.table().fault()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_saved_sizes(self, state_dict, prefix, "followers", "counts")
        super()._load_from_state_dict(state_dict, prefix, *args)
