"""BERT4Rec: a bidirectional transformer that learns masked items (Sun et al., CIKM 2019).

*BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer*. Training masks a
share of the items of a window, and the model learns each of them from the items on both sides. A question appends a
mask to the history. So that the training knows such masks, some windows have their newest item masked alone: one for
every ten windows, as in the authors' program. The transformer is BERT's, with GELU and one more layer before the
scores.

Petrov & Macdonald, *A Systematic Review and Replicability Study of BERT4Rec for Sequential Recommendation* (RecSys
2022), reach the published figures only with a training much longer than most papers grant. Klenitskiy & Vasilev
(*Turning Dross Into Gold Loss*, RecSys 2023) find SASRec at least as good with the same loss. Here both have the same
losses. Four things differ from the authors' program:

- by default the norms of a block stand before its parts, which learns small data in fewer epochs; `norm="paper"` has
  BERT's;
- positions count back from the newest one, which is that of the mask in a question;
- the scores have no bias for each item;
- windows of a long history overlap by one item, and all items are read: `max_length` items and the mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, positions
from segue.models.negatives import SharedNegatives
from segue.models.next_item import (
    HistoryInputs,
    NextItemBatch,
    NextItemExamples,
    NextItemLoss,
    position_rows,
    usual_batch,
)
from segue.models.repeats import NO_REPEATS
from segue.models.sequence_model import SequenceConfig, SequenceEncoder, SequenceModel
from segue.models.transitions import NO_TRANSITIONS
from segue.nn.dropout import Dropout
from segue.nn.transformer import FeedForward, check_heads
from segue.settings import Count, Share

_EPSILON = 1e-12


@dataclass(frozen=True)
class BERT4Rec(SequenceConfig):
    """Bidirectional transformer that learns masked items (Sun et al., CIKM 2019).

    Examples
    --------
    >>> segue.BERT4Rec(width=32, masked=0.4).heads
    2
    """

    name: ClassVar[str] = "bert4rec"
    may_change_on_start: ClassVar[frozenset[str]] = SequenceConfig.may_change_on_start | {"masked", "newest_every"}
    published_training: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "schedule": "linear",
        "warmup_steps": 100,
        "clip_norm": 5.0,
        "batch_size": 256,
        "averaging": 0.0,
    }

    heads: Count = 2
    """Attention heads; must divide the width."""
    norm: Literal["paper", "pre"] = "pre"
    """Layer norms of a block: "paper" (after each residual), or "pre" (inputs)."""
    inner_width: Count | None = None
    """Width inside the feed-forward layers; four times that of the hidden states when not given."""
    masked: Share = 0.2
    """Share of the items of a window that training masks, at least one."""
    newest_every: Count = 10
    """Windows with random masks for each window whose newest item alone is masked."""

    def check(self) -> None:
        """Raise a ConfigError if the heads do not divide the width, or two settings do not go together."""
        check_heads(self.width, self.heads)
        super().check()

    @classmethod
    def as_published(cls, width: int = 64, masked: float = 0.2, max_length: int = 199) -> Self:
        """Return the settings of the authors' program for MovieLens 1M (`run_ml-1m.sh`): 200 positions with the mask.

        For Beauty they mask 0.6 of the items, and for Steam 0.4, both with 50 positions. Their sampled windows overlap
        by half.
        """
        return cls(
            width=width,
            masked=masked,
            max_length=max_length,
            loss="softmax",
            similarity="dot",
            norm="paper",
            repeats=False,
        )

    def build(self, n_users: int, n_items: int) -> BERT4RecModel:
        """Return a new module with random weights."""
        return BERT4RecModel(self.for_catalogue(n_items), n_users, n_items)


class BERT4RecModel(SequenceModel):
    """Module of `BERT4Rec`: x = E[items], or the mask, + P; blocks; h = norm(GELU(W x + b)) at the masks.

    score(i) = cos(h, E[i]) / temperature, or ⟨h, E[i]⟩.
    """

    config: BERT4Rec
    encoder: BidirectionalEncoder

    def __init__(self, config: BERT4Rec, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items, BidirectionalEncoder(config))

    def examples(self, dataset: Dataset) -> MaskedExamples:
        """Return windows of the histories, with masks according to the settings."""
        return MaskedExamples(dataset, self.config, self.loss, self.items.candidates())

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Rows of the item table: all items of the windows, targets, negatives and items of the histories."""
        rows = super().rows_read(units, terms)
        return {table: n + units * self.config.max_length for table, n in rows.items()}

    def hidden_states(self, vectors: Tensor, items: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width); items with code 0 before the end of a row are masked."""
        states: Tensor = self.encoder(torch.where(items[:, :, None] == 0, self.encoder.mask, vectors), lengths)
        return states

    def read_inputs(self, batch: NextItemBatch) -> Tensor:
        """Positions (m,) in `items.flatten()` of the inputs that are not masked."""
        return torch.nonzero(batch.items.flatten())[:, 0]

    def newest_states(self, inputs: HistoryInputs) -> Tensor:
        """Hidden states (n, width) of a mask behind each history."""
        items = F.pad(inputs.items, (0, 1))
        vectors = torch.where(items[:, :, None] == 0, self.encoder.mask, self.items(items))
        return self.encoder.newest(vectors, inputs.lengths + 1)


# ---- the encoder ----------------------------------------------------------------------------------------------------


class BidirectionalBlock(nn.Module):
    """Attention of all items to all items and a feed-forward, each with a residual and a norm.

    Parameters
    ----------
    width, heads, inner, dropout
        Sizes; `inner` is the width inside the feed-forward.
    before
        The norms are those of the inputs of both parts, instead of norms after the residuals as in BERT.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float, before: bool) -> None:
        super().__init__()
        self.heads, self.before = heads, before
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.feed_forward = FeedForward(width, inner, "gelu", dropout)
        self.feed_forward_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """Map x (b, length, width) to the same shape; padding (b, length) is True behind the end of a row."""
        if self.before:
            x = x + self._attended(self.attention_norm(x), padding)
            return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]
        x = self.attention_norm(x + self._attended(x, padding))
        return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]

    def _attended(self, x: Tensor, padding: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.query_key_value(x).chunk(3, dim=-1))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(width // self.heads)
        weights = scores.masked_fill(padding[:, None, None], float("-inf")).softmax(-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).reshape(x.shape)
        out: Tensor = self.dropout(self.output(mixed))
        return out


class BidirectionalEncoder(SequenceEncoder):
    """Positions, norm, dropout, blocks and last layer of BERT4Rec.

    Parameters
    ----------
    config
        Settings of the model.

    Parameters of the module
    ------------------------
    mask
        (width,) vector of a masked item.
    """

    def __init__(self, config: BERT4Rec) -> None:
        super().__init__()
        width, self.length = config.width, config.max_length + 1
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Embedding(self.length, width)
        self.input_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.dropout = Dropout(config.dropout)
        inner = config.inner_width or 4 * width
        self.blocks = nn.ModuleList(
            BidirectionalBlock(width, config.heads, inner, config.dropout, config.norm == "pre")
            for _ in range(config.blocks)
        )
        self.final_norm = nn.LayerNorm(width, eps=_EPSILON) if config.norm == "pre" else nn.Identity()
        self.last = nn.Linear(width, width)
        self.last_norm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, vectors: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors; see `SequenceEncoder`. Times are not read."""
        x = vectors + self.positions(position_rows(lengths, vectors.shape[1], self.length))
        x = self.dropout(self.input_norm(x))
        padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        for block in self.blocks:
            x = block(x, padding)
        out: Tensor = self.last_norm(F.gelu(self.last(self.final_norm(x))))
        return out


# ---- training -------------------------------------------------------------------------------------------------------


class MaskedExamples(NextItemExamples):
    """Windows of the histories with masked items, which are the targets.

    The units are the windows, each with random masks, and then groups of `newest_every` windows of similar length. A
    group is one window, drawn anew each time, with its newest item masked alone.

    Parameters
    ----------
    dataset
        Training view of the Dataset.
    config
        Settings of the model.
    loss
        Loss, which decides the negatives.
    candidates
        (m,) codes of the items that may be negatives; all if None.
    """

    def __init__(self, dataset: Dataset, config: BERT4Rec, loss: NextItemLoss, candidates: Int64 | None = None) -> None:
        self.masked, self.newest_every = config.masked, config.newest_every
        super().__init__(
            dataset,
            config.max_length,
            loss,
            windows=config.windows,
            repeats=bool(config.repeats),
            candidates=candidates,
        )
        n = len(self.users)
        # A window is the inputs before the newest item and that item itself.
        self.window_ends, self.window_lengths = self.ends + 1, self.lengths + 1
        self.order = np.argsort(self.window_lengths, kind="stable")
        self.groups: Int64 = np.linspace(0, n, max(1, n // config.newest_every) + 1).astype(np.int64)
        longest = self.window_lengths[self.order[self.groups[1:] - 1]]
        self.lengths = np.concatenate([self.window_lengths, longest])
        self.weights = np.concatenate([self._masks(self.window_lengths), np.ones_like(longest)])
        self.usual_batch = max(1, usual_batch(len(self.lengths), int(self.weights.sum())))

    def batch(self, index: Int64, generator: np.random.Generator) -> NextItemBatch:
        """Return the windows of the units at `index`, with masks and negatives."""
        n = len(self.window_lengths)
        random = index < n
        windows = np.where(random, index, 0)
        group = index[~random] - n
        windows[~random] = self.order[generator.integers(self.groups[group], self.groups[group + 1])]
        users, lengths, ends = self.users[windows], self.window_lengths[windows], self.window_ends[windows]
        starts = ends - lengths
        width = int(lengths.max())
        items = Histories(users, self.dataset.items, starts, ends).padded(width)
        masks = self._drawn(lengths, width, generator)
        masks[~random] = np.arange(width) == lengths[~random, None] - 1
        rows, columns = np.nonzero(masks)
        places = starts[rows] + columns
        targets = items[masks]
        negatives, log_counts = self._draw(users[rows], targets, generator)
        arrays = (
            users,
            np.where(masks, 0, items),
            lengths,
            rows * width + columns,
            targets,
            negatives,
            log_counts,
            np.zeros(0, dtype=np.int64),
        )
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        repeats = NO_REPEATS
        if self.repeats is not None:
            if self.loss.name == "softmax":
                every = np.arange(1, self.dataset.n_items + 1)
                negatives = every if self.candidates is None else self.candidates
            begins, owners = self.dataset.starts[users[rows]], np.arange(len(places))
            repeats = self.repeats.batch(begins, places, owners, places, negatives, generator)
        return NextItemBatch._make([*tensors, repeats, NO_TRANSITIONS])

    def _masks(self, lengths: Int64) -> Int64:
        """Number (n,) of random masks of windows of these lengths (n,)."""
        return np.maximum(1, np.round(lengths * self.masked)).astype(np.int64)

    def _drawn(self, lengths: Int64, width: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Random masks (n, width) of windows of these lengths (n,), without repetition."""
        draws = generator.random((len(lengths), width))
        draws[np.arange(width) >= lengths[:, None]] = 2.0
        ranks = draws.argsort(axis=1).argsort(axis=1)
        masks: npt.NDArray[np.bool_] = ranks < self._masks(lengths)[:, None]
        return masks

    def _shared(self) -> SharedNegatives:
        """Shared negatives, with the expected counts of the targets of an epoch."""
        if not self.loss.in_batch:
            return super()._shared()
        items, n, lengths = self.dataset.items, self.dataset.n_items + 1, self.lengths + 1
        at_random = items[positions(self.ends + 1 - lengths, self.ends + 1)]
        masks = np.bincount(at_random, np.repeat(self._masks(lengths) / lengths, lengths), minlength=n)
        newest = np.bincount(items[self.ends], minlength=n) / self.newest_every
        return SharedNegatives(masks + newest, self.loss.negatives, self.loss.in_batch, self.candidates)
