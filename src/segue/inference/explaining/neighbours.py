"""Reasons for expected ratings: the neighbours whose earlier ratings of the item decided it, as a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.ragged import Int64
from segue.errors import ConfigError, nearest
from segue.inference.asking.users import RequestedUsers
from segue.inference.explaining.effects import Measure
from segue.inference.explaining.left_out import PART_KINDS
from segue.inference.explaining.reasons import By
from segue.inference.scoring.batches import require_finite, to_device
from segue.models.base import Model
from segue.models.ratings import Neighbours, RatingModel

NEIGHBOUR = "neighbour"

_PAIRS = 1024
"""Pairs that are explained at once."""


def gives_reasons(model: Model) -> bool:
    """True if `Recommender.explain` has reasons for the model; a model of ratings needs neighbours for that."""
    return not isinstance(model, RatingModel) or type(model).neighbours is not RatingModel.neighbours


def check_neighbours(model: RatingModel, by: By | None, measure: Measure) -> None:
    """Refuse explanations that a model of ratings cannot give.

    Raises
    ------
    ConfigError
        The model has no neighbours, `by` names another kind of reason, or the measure is not the score.
    """
    kinds = [NEIGHBOUR] if by is None else [by] if isinstance(by, str) else list(by)
    for kind in kinds:
        if kind in PART_KINDS:
            raise ConfigError(
                f"by={kind!r}: the model {model.config.name!r} predicts ratings and reads no history. Its reasons are "
                f"users who rated the item before: give by={NEIGHBOUR!r}, or leave `by` out."
            )
        if kind != NEIGHBOUR:
            raise ConfigError(f"by={kind!r}: {nearest(kind, [NEIGHBOUR])}")
    if not kinds:
        raise ConfigError(f"by names no kind of reason: give {NEIGHBOUR}.")
    if measure != "score":
        raise ConfigError(
            f"measure={measure!r}: the score of {model.config.name!r} is an expected rating, which has no softmax over "
            "items. Its effects are differences of the score: leave `measure` out."
        )
    if not gives_reasons(model):
        raise _without_neighbours(model)


def neighbour_frame(
    model: RatingModel, dataset: Dataset, pairs: RequestedUsers, items: Int64, top: int | None = None
) -> pl.DataFrame:
    """Neighbours that decided the expected ratings of p pairs of users and item codes (p,).

    Columns: user, item, score, kind, because, position, time (if there are times), rating, attention, agreement,
    decided, effect; pair by pair, the strongest effect first, equal ones newest first. Pairs without neighbours have no
    rows.

    Raises
    ------
    ConfigError
        The model has no neighbours.
    EvaluationError
        An expected rating or an effect is not finite.
    """
    parts = [
        _part(model, dataset, pairs.select(slice(low, low + _PAIRS)), items[low : low + _PAIRS], top)
        for low in range(0, max(len(items), 1), _PAIRS)
    ]
    return pl.concat(parts, how="vertical")


def _part(model: RatingModel, dataset: Dataset, pairs: RequestedUsers, items: Int64, top: int | None) -> pl.DataFrame:
    histories = pairs.histories
    as_of = np.full(len(pairs), NOW) if histories.as_of is None else histories.as_of
    question = [to_device(array, model.device) for array in (histories.users, items, as_of)]
    with torch.inference_mode():
        expected, neighbours = model.rate(*question).expected, model.neighbours(*question)
    if neighbours is None:
        raise _without_neighbours(model)
    require_finite(expected[:, None])
    require_finite(torch.from_numpy(neighbours.effects)[:, None])
    scores = expected.cpu().numpy()
    order = _order(neighbours, top)
    rows = neighbours.rows[order]
    columns: dict[str, Any] = {
        "user": pairs.ids.gather(rows),
        "item": dataset.catalogue.decode(items[rows]),
        "score": scores[rows],
        "kind": pl.repeat(NEIGHBOUR, len(order), dtype=pl.String, eager=True),
        "because": dataset.users.decode(neighbours.users[order]),
        "position": neighbours.positions[order],
    }
    if neighbours.times is not None:
        columns["time"] = neighbours.times[order]
    weights, agreement = neighbours.weights, neighbours.agreement
    nulls = pl.repeat(None, len(order), dtype=pl.Float32, eager=True)
    columns |= {
        "rating": neighbours.ratings[order],
        "attention": nulls if weights is None else weights[order].mean(axis=1, dtype=np.float64).astype(np.float32),
        "agreement": nulls if agreement is None else agreement[order],
        "decided": neighbours.decided[order],
        "effect": neighbours.effects[order],
    }
    return pl.DataFrame(columns)


def _order(neighbours: Neighbours, top: int | None) -> Int64:
    """Rows of the frame as positions in `neighbours`: pair by pair, the strongest effect first, then the newest."""
    order = np.lexsort((-neighbours.positions, -np.abs(neighbours.effects), neighbours.rows))
    if top is None:
        return order
    rows = neighbours.rows[order]
    return order[np.arange(len(rows)) - np.searchsorted(rows, rows) < top]


def _without_neighbours(model: RatingModel) -> ConfigError:
    return ConfigError(
        f"the model {model.config.name!r} predicts ratings without neighbours, so it has no reasons to give: use a "
        "model of ratings with neighbours, such as arerec."
    )
