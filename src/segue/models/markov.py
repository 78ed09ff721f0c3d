"""Item-to-item Markov model: counts of transitions between items.

Items score high if they often followed the newest items of a history in other histories. A Dirichlet prior shrinks the
counts towards popularity (MacKay & Peto, *A hierarchical Dirichlet language model*, 1995; here the prior mean is the
popularity). So after an item without transitions the scores are the popularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.transitions import count_pairs
from segue.models.base import CountingModel, ModelConfig
from segue.models.popularity import popularity
from segue.models.scores import ItemScores
from segue.nn.buffers import take_saved_sizes
from segue.settings import Count, Positive, ShareAboveZero


@dataclass(frozen=True)
class Markov(ModelConfig):
    """Item-to-item Markov model: scores are smoothed probabilities of the next item after the newest items.

    Let c(a, b) be the sum of decay^(d-1) over all cases of b at d ≤ steps positions after a, and p(b) the popularity of
    b. Then

    P(b | a) = (c(a, b) + smoothing · p(b)) / (Σ c(a, ·) + smoothing)

    The score of b for a history is the mean of P(b | a) over its newest `steps` items a, weighted by decay^(d-1) for
    the d-th newest. `steps=1` is the first-order Markov chain.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.Markov(steps=2), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    steps: Count = 3
    """Largest distance between two items of a transition, and number of newest items that are read."""

    decay: ShareAboveZero = 0.5
    """Weight of each further position relative to the one before; with 1 all weigh the same."""

    smoothing: Positive = 5.0
    """Strength of the pull towards popularity, in observed transitions."""

    name: ClassVar[str] = "markov"

    def build(self, n_users: int, n_items: int) -> MarkovModel:
        """An empty module; `count` fills it."""
        return MarkovModel(self, n_users, n_items)


class MarkovInputs(NamedTuple):
    """The newest items of n histories.

    Attributes
    ----------
    newest
        (n, steps) int64 items, newest first; 0 if the history is shorter.
    """

    newest: Tensor


class MarkovModel(CountingModel):
    """Sparse transition counts, made dense only for the users and items of a batch.

    Buffers
    -------
    pairs
        (n_pairs,) int64 key of every observed pair, ascending: (code of a) × (n_items + 1) + (code of b).
    counts
        (n_pairs,) float32 counts c(a, b).
    totals
        (n_items + 1,) float32 sums Σ c(a, ·).
    shares
        (n_items + 1,) float32 popularity p.
    """

    counting_scores = True
    pairs: Tensor
    counts: Tensor
    totals: Tensor
    shares: Tensor

    def __init__(self, config: Markov, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.steps, self.decay, self.smoothing = config.steps, config.decay, config.smoothing
        self.max_history = config.steps
        self.register_buffer("pairs", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0))
        self.register_buffer("totals", torch.zeros(n_items + 1))
        self.register_buffer("shares", torch.zeros(n_items + 1))

    def count(self, dataset: Dataset) -> None:
        """Count the transitions between the visible interactions."""
        side = self.n_items + 1
        pairs, counts = count_pairs(dataset, self.steps, self.decay)
        totals = np.bincount(pairs // side, counts, minlength=side)
        device = self.device
        self.pairs = torch.from_numpy(pairs).to(device)
        self.counts = torch.from_numpy(counts.astype(np.float32)).to(device)
        self.totals = torch.from_numpy(totals.astype(np.float32)).to(device)
        self.shares = torch.from_numpy(popularity(dataset)).to(device)

    def inputs(self, histories: Histories) -> MarkovInputs:
        """The newest items of each history."""
        cut = histories.last(self.steps)
        position = cut.ends[:, None] - 1 - np.arange(self.steps)
        inside = position >= cut.starts[:, None]
        newest = np.where(inside, cut.items[np.where(inside, position, 0)], 0).astype(np.int64)
        return MarkovInputs(torch.from_numpy(newest))

    def encode(self, inputs: MarkovInputs) -> Tensor:
        """Return the newest items (n, steps), on which the scores depend."""
        return inputs.newest

    def scores(self) -> TransitionScores:
        """Smoothed probabilities of the next item after the newest items."""
        return TransitionScores(self)

    def item_vectors(self) -> Tensor:
        """Sparse COO (n_items + 1, n_items + 1) of P without smoothing: similar items have similar successors."""
        side = self.n_items + 1
        rows, columns = self.pairs // side, self.pairs % side
        values = self.counts / self.totals[rows]
        index = torch.stack([rows, columns])
        return torch.sparse_coo_tensor(index, values, (side, side), is_coalesced=True, check_invariants=False)

    def fault(self) -> str | None:
        """Pairs that are not in ascending order or not of items, and counts below 0."""
        side = self.n_items + 1
        if len(self.pairs) and (int(self.pairs.min()) < 0 or int(self.pairs.max()) >= side * side):
            return "pairs holds items that do not exist"
        if bool((self.pairs[1:] <= self.pairs[:-1]).any()):
            return "pairs does not rise"
        if any(bool((numbers < 0).any()) for numbers in (self.counts, self.totals, self.shares)):
            return "it holds numbers of interactions below 0"
        return None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_saved_sizes(self, state_dict, prefix, "pairs", "counts")
        super()._load_from_state_dict(state_dict, prefix, *args)


class TransitionScores(ItemScores):
    """Smoothed probabilities P, from the newest items (batch, steps) and the counts of a `MarkovModel`."""

    def __init__(self, model: MarkovModel) -> None:
        self.steps, self.decay, self.smoothing = model.steps, model.decay, model.smoothing
        self.pairs, self.counts, self.totals, self.shares = model.pairs, model.counts, model.totals, model.shares
        self._side = model.n_items + 1

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """P (batch, stop - start), from the newest items (batch, steps)."""
        if out is None:
            out = self.shares.new_empty((len(queries), stop - start))
        factors = self._factors(queries)
        torch.mul((factors.sum(1) * self.smoothing)[:, None], self.shares[start:stop], out=out)
        rows = torch.arange(len(queries), device=queries.device)
        for newest, factor in zip(queries.unbind(1), factors.unbind(1), strict=True):
            position, lengths = self._row_slices(newest, start, stop)
            row = torch.repeat_interleave(rows, lengths)
            column = self.pairs[position] % self._side - start
            # Within one step a (row, column) occurs once, so this is exact and in the same order on every device.
            out.index_put_((row, column), factor[row] * self.counts[position], accumulate=True)
        return out

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """P (batch, n) of `items` (batch, n), from the newest items (batch, steps)."""
        factors = self._factors(queries)
        scores = (factors.sum(1) * self.smoothing)[:, None] * self.shares[items]
        for newest, factor in zip(queries.unbind(1), factors.unbind(1), strict=True):
            scores += factor[:, None] * self._counts_of(newest[:, None] * self._side + items)
        return scores

    def _factors(self, queries: Tensor) -> Tensor:
        """Weight (batch, steps) of each newest item, divided by its total and that of the prior."""
        weights = self.decay ** torch.arange(self.steps, device=queries.device, dtype=torch.float32)
        weights = weights * (queries > 0)
        return weights / weights.sum(1, keepdim=True) / (self.totals[queries] + self.smoothing)

    def _row_slices(self, newest: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Positions in `pairs` of all (a, b), a in `newest` (batch,), start ≤ b < stop, and their number per a."""
        base = newest * self._side
        first = torch.searchsorted(self.pairs, base + start)
        lengths = torch.searchsorted(self.pairs, base + stop) - first
        shift = torch.repeat_interleave(first - lengths.cumsum(0) + lengths, lengths)
        return torch.arange(len(shift), device=newest.device) + shift, lengths

    def _counts_of(self, keys: Tensor) -> Tensor:
        """Counts c of the pairs with these keys (batch, n); 0 for a pair that was never observed."""
        if not len(self.pairs):
            return self.counts.new_zeros(keys.shape)
        position = torch.searchsorted(self.pairs, keys).clamp_(max=len(self.pairs) - 1)
        return torch.where(self.pairs[position] == keys, self.counts[position], 0.0)
