"""Attention weights of a model over the items of histories: as arrays, per part, and as a frame with raw ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.asking.users import RequestedUsers
from segue.inference.explaining.left_out import PART_KINDS, REPEATS, PartKind, Parts, parts_of
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, batch_rows
from segue.models.base import Model

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Attention weights over the items of n histories, as flat arrays.

    Attributes
    ----------
    rows, positions
        (m,) int64: row of the history, ascending, and position in `Histories.items`, ascending within a row.
    weights
        (m, blocks, heads) float32
    """

    rows: Int64
    positions: Int64
    weights: Weights

    def of_parts(self, histories: Histories, parts: Parts) -> npt.NDArray[np.float64]:
        """Weight (parts,) of each part, summed over its items, mean over blocks and heads; NaN without attention."""
        offsets = offsets_of(histories.lengths)
        flat = offsets[self.rows] + self.positions - histories.starts[self.rows]
        weights, attended = np.zeros(offsets[-1] + 1), np.zeros(offsets[-1] + 1, dtype=np.int64)
        weights[flat + 1] = self.weights.mean(axis=(1, 2), dtype=np.float64)
        attended[flat + 1] = 1
        begins = offsets[parts.rows] + parts.starts - histories.starts[parts.rows]
        ends = begins + parts.ends - parts.starts
        sums, counts = np.cumsum(weights), np.cumsum(attended)
        sums, counts = sums[ends] - sums[begins], counts[ends] - counts[begins]
        repeats = np.flatnonzero(parts.kinds == REPEATS)
        if len(repeats):
            group = parts.groups(histories, repeats)
            member = np.flatnonzero(group >= 0)
            group = group[member]
            sums[repeats] = np.bincount(group, weights[member + 1], minlength=len(repeats))
            counts[repeats] = np.bincount(group, attended[member + 1], minlength=len(repeats))
        return np.where(counts > 0, sums, np.nan)


def attention_weights(model: Scorer | Model, histories: Histories) -> AttentionWeights | None:
    """Attention weights of a model over n histories that are not empty; None if the model has no attention."""
    scorer = scorer_of(model)
    if type(scorer.model).attention is Model.attention:
        return None
    parts: list[tuple[Int64, Int64, Weights]] = []
    with torch.inference_mode():
        for index in batch_rows(scorer, histories, LIMITS.histories, LIMITS):
            attention = scorer.attention(histories.select(index))
            if attention is None:
                return None
            row, column = np.nonzero(attention.places >= 0)
            weights = attention.weights.permute(0, 3, 1, 2)[torch.from_numpy(row), torch.from_numpy(column)]
            parts.append((index[row], attention.places[row, column], weights.cpu().numpy()))
    rows, positions, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((positions, rows))
    return AttentionWeights(rows[order], positions[order], values[order])


def attention_frame(scorer: Scorer, catalogue: Vocabulary, users: RequestedUsers) -> pl.DataFrame:
    """Attention weights of each user's history, per block and head, as a frame with raw ids.

    Columns: user, block, head, kind, because, position, weight. Users without a history have no rows.

    Raises
    ------
    ConfigError
        The model has no attention.
    """
    served = users.select(np.flatnonzero(users.served_by(scorer)))
    histories = served.histories
    attention = attention_weights(scorer, histories) if len(served) else None
    if attention is None:
        if len(served):
            raise ConfigError(
                f"the model {scorer.config.name!r} has no attention: use explain(…), which leaves parts out and works "
                "with every model."
            )
        attention = AttentionWeights(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 1, 1), np.float32))
    kinds: tuple[PartKind, ...] = ("item", "basket") if histories.baskets is not None else ("item",)
    parts = parts_of(histories, kinds, None)
    # Every item is one part, and both are in the order of rows and positions.
    offsets = np.cumsum(histories.lengths) - histories.lengths
    part = offsets[attention.rows] + attention.positions - histories.starts[attention.rows]
    _, blocks, heads = attention.weights.shape
    row = np.repeat(np.arange(len(part)), blocks * heads)
    block, head = (np.tile(grid.ravel() + 1, len(part)) for grid in np.indices((blocks, heads)))
    order = np.lexsort((parts.starts[part[row]], head, block, attention.rows[row]))
    row = row[order]
    return pl.DataFrame(
        {
            "user": served.ids.gather(attention.rows[row]),
            "block": block[order].astype(np.int32),
            "head": head[order].astype(np.int32),
            "kind": pl.Series(PART_KINDS, dtype=pl.String).gather(parts.kinds[part[row]]),
            "because": catalogue.decode(histories.items[attention.positions[row]]),
            "position": parts.numbers[part[row]],
            "weight": attention.weights.reshape(-1)[order],
        }
    )
