"""Reasons for recommendations: the kinds of parts to leave out, and their effects as a frame with raw ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, nearest
from segue.inference.asking.users import RequestedUsers
from segue.inference.explaining.attention import attention_weights
from segue.inference.explaining.effects import MEASURES, Measure, effects
from segue.inference.explaining.left_out import BASKET, ITEM, PART_KINDS, REPEATS, USER, PartKind
from segue.inference.explaining.repeats import repeat_columns
from segue.inference.scorer import Scorer

By = PartKind | Literal["neighbour"] | Sequence[PartKind | Literal["neighbour"]]
"""Kinds of reasons. Models of ratings have the kind "neighbour" and no other; other models have all others."""


def part_kinds(scorer: Scorer, histories: Histories, by: By | None) -> tuple[PartKind, ...]:
    """Kinds of parts to leave out: those of `by`, or a default that fits the model and the histories.

    Raises
    ------
    ConfigError
        A kind does not exist, or the model or the histories have no such parts.
    """
    sessions, basket = histories.session_offsets is not None, histories.baskets is not None
    if by is None:
        if not basket:
            return ("repeats",) if scorer.model.repeats_together else ("item",)
        together = scorer.model.repeats_together
        default = {
            "item": False,
            "basket": True,
            "session": sessions,
            "user": scorer.model.personal,
            "repeats": together,
        }
        return tuple(kind for kind in PART_KINDS if default[kind])
    kinds: Iterable[str] = [by] if isinstance(by, str) else by
    chosen = tuple(kind for kind in PART_KINDS if kind in set(kinds))
    for kind in kinds:
        if kind not in PART_KINDS:
            raise ConfigError(f"by={kind!r}: {nearest(kind, PART_KINDS)}")
    if not chosen:
        raise ConfigError(f"by names no kind of reason: give some of {', '.join(PART_KINDS)}.")
    if "basket" in chosen and not basket:
        raise ConfigError("by='basket' needs a session in progress: give basket=….")
    if "session" in chosen and not sessions:
        raise ConfigError("by='session' needs histories with sessions: those of a Dataset that was prepared with them.")
    if "user" in chosen and not scorer.model.personal:
        raise ConfigError(f"by='user': the model {scorer.config.name!r} answers by the history alone.")
    return chosen


def check_measure(measure: str) -> None:
    """Raise a ConfigError for an unknown measure."""
    if measure not in MEASURES:
        raise ConfigError(f"measure={measure!r}: {nearest(measure, MEASURES)}")


def reason_frame(
    scorer: Scorer,
    catalogue: Vocabulary,
    pairs: RequestedUsers,
    items: Int64,
    references: Int64,
    *,
    by: By | None = None,
    measure: Measure = "score",
    top: int | None = None,
) -> pl.DataFrame:
    """Effects of the parts of histories on p pairs of users and item codes (p,), as a frame with raw ids.

    Columns: user, item, score, kind, because, position, items, time (if the histories have times), attention (if the
    model has it), times, steps_ago and time_ago (with repeats), effect. Pairs without a history have no rows.
    """
    served = np.flatnonzero(pairs.served_by(scorer))
    users, items = pairs.select(served), items[served]
    histories = users.histories
    kinds = part_kinds(scorer, histories, by)
    distinct, rows = _distinct(histories)
    result = effects(scorer, distinct, rows, items, references, kinds, measure)
    if top is not None:
        result = result.strongest(top)
    parts, part = result.parts, result.part_rows
    kind = parts.kinds[part]
    one_item = (kind == ITEM) | (kind == BASKET) | (kind == REPEATS)
    columns: dict[str, Any] = {
        "user": users.ids.gather(result.pairs),
        "item": catalogue.decode(items[result.pairs]),
        "score": result.scores[result.pairs],
        "kind": pl.Series(PART_KINDS, dtype=pl.String).gather(kind),
        "because": _null_unless(one_item, catalogue.decode(_gather(histories.items, parts.starts[part], one_item))),
        "position": _null_unless(kind != USER, pl.Series(parts.numbers[part])),
        "items": parts.lengths[part],
    }
    if histories.times is not None:
        times = pl.Series(_gather(histories.times, parts.starts[part], kind != USER))
        columns["time"] = _null_unless(kind != USER, times)
    attention = attention_weights(scorer, distinct) if len(distinct) else None
    if attention is not None:
        columns["attention"] = pl.Series(attention.of_parts(distinct, parts)[part], nan_to_null=True).cast(pl.Float32)
    if "repeats" in kinds:
        is_repeat = kind == REPEATS
        of_repeats = repeat_columns(distinct, parts)
        columns |= {name: _null_unless(is_repeat, pl.Series(values[part])) for name, values in of_repeats.items()}
    return pl.DataFrame({**columns, "effect": result.effects})


def _distinct(histories: Histories) -> tuple[Histories, Int64]:
    """Distinct ones among p histories, and the row (p,) of each history among them."""
    keys = [histories.users, histories.starts, histories.ends]
    keys += [] if histories.baskets is None else [histories.baskets]
    _, first, rows = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
    return histories.select(first), rows.reshape(-1)


def _gather(values: npt.NDArray[Any], index: Int64, valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Values (m,) at `index` (m,); any value if not valid."""
    return values[np.where(valid, index, 0)] if len(values) else np.zeros(len(index), dtype=values.dtype)


def _null_unless(valid: npt.NDArray[np.bool_], values: pl.Series) -> pl.Series:
    """Values (m,), with null if not valid."""
    return values if valid.all() else pl.select(pl.when(pl.Series(valid)).then(values)).to_series()
