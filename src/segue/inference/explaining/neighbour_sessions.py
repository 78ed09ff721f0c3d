"""Reasons of models of nearest sessions: the past sessions that speak for an item, as a frame with raw ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.asking.users import RequestedUsers
from segue.inference.explaining.effects import Measure
from segue.inference.explaining.neighbours import NEIGHBOUR
from segue.inference.explaining.reasons import By
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import require_finite, to_device
from segue.models.session_neighbours import SessionNeighboursModel

_PAIRS = 256
"""Pairs that are explained at once."""


def asks_for_neighbours(scorer: Scorer, by: By | None, measure: Measure) -> bool:
    """Return True if `by` names the nearest sessions of a model that has them.

    Raises
    ------
    ConfigError
        `by` names them for another model or beside other kinds, or the measure is not the score.
    """
    kinds = [] if by is None else [by] if isinstance(by, str) else list(by)
    if NEIGHBOUR not in kinds:
        return False
    if not isinstance(scorer.model, SessionNeighboursModel):
        raise ConfigError(
            f"by={NEIGHBOUR!r}: the model {scorer.config.name!r} has no neighbours to show: expected vsknn, vstan or a "
            "model of ratings. Leave `by` out, or give 'item' or 'repeats'."
        )
    if set(kinds) != {NEIGHBOUR}:
        raise ConfigError(
            f"by={kinds}: past sessions have other columns than parts of the history. Give {NEIGHBOUR!r} alone."
        )
    if measure != "score":
        raise ConfigError(
            f"measure={measure!r}: the effect of a past session is its term in the score: leave `measure` out."
        )
    return True


def session_frame(
    scorer: Scorer, dataset: Dataset, catalogue: Vocabulary, pairs: RequestedUsers, items: Int64, top: int | None = None
) -> pl.DataFrame:
    """Past sessions that speak for the items of p pairs of users and item codes (p,).

    Columns: user, item, score, kind, because, position, items, time (if the Dataset has times), similarity, common,
    share, effect; pair by pair, the largest effect first, equal ones newest first.
    """
    served = np.flatnonzero(pairs.served_by(scorer))
    users, items = pairs.select(served), items[served]
    parts = [
        _part(scorer, dataset, catalogue, users.select(slice(low, low + _PAIRS)), items[low : low + _PAIRS], top)
        for low in range(0, max(len(items), 1), _PAIRS)
    ]
    return pl.concat(parts, how="vertical")


def _part(
    scorer: Scorer, dataset: Dataset, catalogue: Vocabulary, users: RequestedUsers, items: Int64, top: int | None
) -> pl.DataFrame:
    model = scorer.model
    assert isinstance(model, SessionNeighboursModel)
    spoken = model.spoken_for(users.histories, items)
    scores = scorer.score_items(scorer.queries(users.histories), to_device(items[:, None], scorer.device))
    require_finite(scores)
    order = np.lexsort((spoken.sessions, -spoken.terms, spoken.pairs))
    totals = np.bincount(spoken.pairs, spoken.terms, minlength=len(items))
    if top is not None:
        ordered = spoken.pairs[order]
        order = order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < top]
    rows, sessions = spoken.pairs[order], spoken.sessions[order]
    owners = model.session_users.cpu().numpy().astype(np.int64)
    lengths = np.diff(model.matrix("sessions").indptr).astype(np.int64)
    common = catalogue.decode(spoken.common)
    shared = pl.Series(np.repeat(np.arange(len(spoken.pairs)), np.diff(spoken.offsets)))
    lists = pl.DataFrame({"session": shared, "common": common}).group_by("session", maintain_order=True).agg("common")
    columns: dict[str, Any] = {
        "user": users.ids.gather(rows),
        "item": catalogue.decode(items[rows]),
        "score": scores[:, 0].cpu().numpy()[rows],
        "kind": pl.repeat(NEIGHBOUR, len(order), dtype=pl.String, eager=True),
        "because": dataset.users.decode(owners[sessions]),
        "position": _numbers(owners)[sessions],
        "items": lengths[sessions],
    }
    if dataset.times is not None:
        columns["time"] = model.session_times.cpu().numpy()[sessions]
    columns |= {
        "similarity": spoken.similarities[order],
        "common": lists["common"].gather(order),  # a neighbour has a common item or more
        "share": spoken.terms[order] / totals[rows],
        "effect": spoken.terms[order],
    }
    return pl.DataFrame(columns)


def _numbers(owners: Int64) -> Int64:
    """Number (s,) from 1 of each stored session among those of its user, oldest first; the first stored is newest."""
    order = np.argsort(owners[::-1], kind="stable")
    ordered = owners[::-1][order]
    numbers = np.empty(len(owners), dtype=np.int64)
    numbers[len(owners) - 1 - order] = np.arange(len(owners)) - np.searchsorted(ordered, ordered) + 1
    return numbers
