"""Reasons for an expected rating: whose earlier ratings of the item decided it, as frames with raw ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.ragged import Int64
from segue.errors import ConfigError, nearest
from segue.inference.asking.users import People
from segue.inference.explaining.effects import Measure
from segue.inference.explaining.left_out import KINDS
from segue.inference.explaining.reasons import By
from segue.inference.scoring.batches import require_finite, to_device
from segue.models.base import Model
from segue.models.ratings import Neighbours, RatingModel

NEIGHBOUR = "neighbour"

_PAIRS = 1024
"""Pairs whose neighbours are asked for at once."""


def gives_reasons(model: Model) -> bool:
    """Whether `Recommender.explain` has reasons of this model: of ratings, one that looks at neighbours."""
    return not isinstance(model, RatingModel) or type(model).neighbours is not RatingModel.neighbours


def check_neighbours(model: RatingModel, by: By | None, measure: Measure) -> None:
    """Refuse questions that a model of ratings has no answer to.

    Raises
    ------
    ConfigError
        The model looks at no neighbours, `by` names something else, or the measure is not the score.
    """
    kinds = [NEIGHBOUR] if by is None else [by] if isinstance(by, str) else list(by)
    for kind in kinds:
        if kind in KINDS:
            raise ConfigError(
                f"by={kind!r}: the model {model.config.name!r} predicts ratings and reads no history. Its reasons are "
                f"who rated the item before: by={NEIGHBOUR!r}, or leave it out."
            )
        if kind != NEIGHBOUR:
            raise ConfigError(f"by={kind!r}: {nearest(kind, [NEIGHBOUR])}")
    if not kinds:
        raise ConfigError(f"by names no kind of reason: give {NEIGHBOUR}.")
    if measure != "score":
        raise ConfigError(
            f"measure={measure!r}: the score of {model.config.name!r} is an expected rating, of which there is no "
            "softmax over items: its effects are differences of the score."
        )
    if not gives_reasons(model):
        raise _without_neighbours(model)


def neighbour_frame(
    model: RatingModel, dataset: Dataset, pairs: People, items: Int64, top: int | None = None
) -> pl.DataFrame:
    """The neighbours that decided what is expected of pairs of people (p) and item codes (p,).

    Columns: user, item, score, kind, because, position, time (if there are times), rating, attention, agreement,
    decided, effect; pair by pair, the strongest effect first, equal ones newest first. Pairs without neighbours have no
    rows.

    Raises
    ------
    ConfigError
        The model looks at no neighbours.
    EvaluationError
        What it expects, or an effect, is not finite.
    """
    parts = [
        _part(model, dataset, pairs.select(slice(low, low + _PAIRS)), items[low : low + _PAIRS], top)
        for low in range(0, max(len(items), 1), _PAIRS)
    ]
    return pl.concat(parts, how="vertical")


def _part(model: RatingModel, dataset: Dataset, pairs: People, items: Int64, top: int | None) -> pl.DataFrame:
    histories = pairs.histories
    moments = np.full(len(pairs), NOW) if histories.moments is None else histories.moments
    asked = [to_device(array, model.device) for array in (histories.users, items, moments)]
    with torch.inference_mode():
        expected, found = model.rate(*asked).expected, model.neighbours(*asked)
    if found is None:
        raise _without_neighbours(model)
    require_finite(expected[:, None])
    require_finite(torch.from_numpy(found.effects)[:, None])
    scores = expected.cpu().numpy()
    order = _order(found, top)
    rows = found.rows[order]
    columns: dict[str, Any] = {
        "user": pairs.ids.gather(rows),
        "item": dataset.catalogue.decode(items[rows]),
        "score": scores[rows],
        "kind": pl.repeat(NEIGHBOUR, len(order), dtype=pl.String, eager=True),
        "because": dataset.users.decode(found.users[order]),
        "position": found.positions[order],
    }
    if found.times is not None:
        columns["time"] = found.times[order]
    weights, agreement = found.weights, found.agreement
    nothing = pl.repeat(None, len(order), dtype=pl.Float32, eager=True)
    columns |= {
        "rating": found.ratings[order],
        "attention": nothing if weights is None else weights[order].mean(axis=1, dtype=np.float64).astype(np.float32),
        "agreement": nothing if agreement is None else agreement[order],
        "decided": found.decided[order],
        "effect": found.effects[order],
    }
    return pl.DataFrame(columns)


def _order(found: Neighbours, top: int | None) -> Int64:
    """Places of the neighbours to be shown: pair by pair, the strongest effect first; equal ones newest first."""
    order = np.lexsort((-found.positions, -np.abs(found.effects), found.rows))
    if top is None:
        return order
    rows = found.rows[order]
    return order[np.arange(len(rows)) - np.searchsorted(rows, rows) < top]


def _without_neighbours(model: RatingModel) -> ConfigError:
    return ConfigError(
        f"the model {model.config.name!r} looks at no single ratings when it predicts one, so it has no reasons to "
        "give: explain needs a model of ratings with neighbours, such as arerec."
    )
