"""Explanations as frames with raw ids: which pairs are asked about, which kinds of reasons, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.sources import HistorySource
from segue.data.vocabulary import Vocabulary, as_ids
from segue.errors import ConfigError, DataError, nearest
from segue.inference.asking.baskets import Basket, asked_people
from segue.inference.asking.users import Given, People, as_list, known_codes
from segue.inference.explaining.effects import MEASURES, Looks, Measure, effects, looks
from segue.inference.explaining.left_out import BASKET, ITEM, KINDS, USER, Kind, parts_of
from segue.inference.scorer import Scorer

By = Kind | Literal["neighbour"] | Sequence[Kind | Literal["neighbour"]]
"""What reasons are asked for; "neighbour" of models of ratings only, and they have no other."""


def asked_pairs(
    dataset: Dataset,
    source: HistorySource,
    users: Any,
    items: Any,
    histories: Given | None,
    basket: Basket | None,
    when: int | None = None,
) -> tuple[People, Int64]:
    """People (p), repeats kept, and item codes (p,) to explain. Pairs with an unknown id are left out, with a warning.

    Raises
    ------
    ConfigError
        Neither users nor histories nor a basket, or a basket that does not fit the people.
    DataError
        The numbers of people and items differ, and neither is one.
    UnknownIdError
        None of the people or none of the items is known.
    """
    asked = as_ids(as_list(items) if items is not None else source.catalogue.ids)
    codes = source.catalogue.encode(asked)
    known_codes(source.catalogue, asked, "items", "left out")
    people, place = asked_once(dataset, source, users, histories, basket, when)
    n, m = len(place), len(codes)
    if n != m and 1 not in (n, m):
        raise DataError(
            f"{n:,} people and {m:,} items make no pairs: give as many of one as of the other, or one of either."
        )
    pairs = np.arange(max(n, m) if min(n, m) else 0)
    person, item = place[pairs * (n > 1)], codes[pairs * (m > 1)]
    kept = (person >= 0) & (item > 0)
    return people.select(person[kept]), item[kept]


def asked_once(
    dataset: Dataset,
    source: HistorySource,
    users: Any,
    histories: Given | None,
    basket: Basket | None,
    when: int | None = None,
) -> tuple[People, Int64]:
    """People, each once, and who of them each of those asked for is (n,), -1 for an unknown one."""
    if users is None and histories is None and basket is None:
        raise ConfigError("an explanation needs people: give users, histories or a basket.")
    people = asked_people(dataset, source, users, histories, basket, "skip", when)
    if users is None or not len(people):
        return people, np.arange(len(people), dtype=np.int64)
    return people, Vocabulary.in_order(people.ids).encode(as_ids(as_list(users))) - 1


def asked_kinds(scorer: Scorer, histories: Histories, by: By | None) -> tuple[Kind, ...]:
    """What to leave out: what `by` says, or else what there is to be left out of these histories.

    Raises
    ------
    ConfigError
        There is no such kind, or the model or the histories have nothing of it.
    """
    sessions, basket = histories.session_offsets is not None, histories.baskets is not None
    if by is None:
        if not basket:
            return ("item",)
        there = {"item": False, "basket": True, "session": sessions, "user": scorer.model.personal}
        return tuple(kind for kind in KINDS if there[kind])
    kinds: Iterable[str] = [by] if isinstance(by, str) else by
    chosen = tuple(kind for kind in KINDS if kind in set(kinds))
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"by={kind!r}: {nearest(kind, KINDS)}")
    if not chosen:
        raise ConfigError(f"by names no kind of reason: give some of {', '.join(KINDS)}.")
    if "basket" in chosen and not basket:
        raise ConfigError("by='basket' needs a session in progress: give basket=….")
    if "session" in chosen and not sessions:
        raise ConfigError("by='session' needs histories with sessions: those of a Dataset that was prepared with them.")
    if "user" in chosen and not scorer.model.personal:
        raise ConfigError(f"by='user': the model {scorer.config.name!r} answers by the history alone.")
    return chosen


def check_measure(measure: str) -> None:
    """Raise a ConfigError unless there is such a measure."""
    if measure not in MEASURES:
        raise ConfigError(f"measure={measure!r}: {nearest(measure, MEASURES)}")


def reason_frame(
    scorer: Scorer,
    catalogue: Vocabulary,
    pairs: People,
    items: Int64,
    references: Int64,
    *,
    by: By | None = None,
    measure: Measure = "score",
    top: int | None = None,
) -> pl.DataFrame:
    """The effects of what was read on pairs of people (p) and item codes (p,), as a frame with raw ids.

    Columns: user, item, score, kind, because, position, items, time (if the histories have times), attention (if the
    model has it), effect. Pairs without a history have no rows.
    """
    met = np.flatnonzero(pairs.met_by(scorer))
    people, items = pairs.select(met), items[met]
    asked = people.histories
    kinds = asked_kinds(scorer, asked, by)
    distinct, rows = _distinct(asked)
    found = effects(scorer, distinct, rows, items, references, kinds, measure)
    if top is not None:
        found = found.strongest(top)
    parts, which = found.parts, found.which
    kind = parts.kinds[which]
    single = (kind == ITEM) | (kind == BASKET)
    columns: dict[str, Any] = {
        "user": people.ids.gather(found.pairs),
        "item": catalogue.decode(items[found.pairs]),
        "score": found.scores[found.pairs],
        "kind": pl.Series(KINDS, dtype=pl.String).gather(kind),
        "because": _where(single, catalogue.decode(_at(asked.items, parts.starts[which], single))),
        "position": _where(kind != USER, pl.Series(parts.numbers[which])),
        "items": parts.lengths[which],
    }
    if asked.times is not None:
        columns["time"] = _where(kind != USER, pl.Series(_at(asked.times, parts.starts[which], kind != USER)))
    seen = looks(scorer, distinct) if len(distinct) else None
    if seen is not None:
        columns["attention"] = pl.Series(seen.of_parts(distinct, parts)[which], nan_to_null=True).cast(pl.Float32)
    return pl.DataFrame({**columns, "effect": found.effects})


def attention_frame(scorer: Scorer, catalogue: Vocabulary, people: People) -> pl.DataFrame:
    """What the model looked at for each person, per block and head, as a frame with raw ids.

    Columns: user, block, head, kind, because, position, weight. People without a history have no rows.

    Raises
    ------
    ConfigError
        The model has no attention.
    """
    met = people.select(np.flatnonzero(people.met_by(scorer)))
    histories = met.histories
    seen = looks(scorer, histories) if len(met) else None
    if seen is None:
        if len(met):
            raise ConfigError(
                f"the model {scorer.config.name!r} has no attention: explain(…) leaves parts out, which serves all."
            )
        seen = Looks(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 1, 1), np.float32))
    kinds: tuple[Kind, ...] = ("item", "basket") if histories.baskets is not None else ("item",)
    parts = parts_of(histories, kinds, None)
    # Parts are in the order of rows and places, and so is what was seen: each of it is one of the parts.
    offsets = np.cumsum(histories.lengths) - histories.lengths
    part = offsets[seen.rows] + seen.places - histories.starts[seen.rows]
    _, blocks, heads = seen.weights.shape
    row = np.repeat(np.arange(len(part)), blocks * heads)
    block, head = (np.tile(grid.ravel() + 1, len(part)) for grid in np.indices((blocks, heads)))
    order = np.lexsort((parts.starts[part[row]], head, block, seen.rows[row]))
    row = row[order]
    return pl.DataFrame(
        {
            "user": met.ids.gather(seen.rows[row]),
            "block": block[order].astype(np.int32),
            "head": head[order].astype(np.int32),
            "kind": pl.Series(KINDS, dtype=pl.String).gather(parts.kinds[part[row]]),
            "because": catalogue.decode(histories.items[seen.places[row]]),
            "position": parts.numbers[part[row]],
            "weight": seen.weights.reshape(-1)[order],
        }
    )


def _distinct(histories: Histories) -> tuple[Histories, Int64]:
    """The different ones among histories (p), and which of them each is: what is asked about often is read once."""
    keys = [histories.users, histories.starts, histories.ends]
    keys += [] if histories.baskets is None else [histories.baskets]
    _, first, rows = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
    return histories.select(first), rows.reshape(-1)


def _at(values: npt.NDArray[Any], places: Int64, valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Values (m,) at places (m,) where these are valid, and anything elsewhere."""
    return values[np.where(valid, places, 0)] if len(values) else np.zeros(len(places), dtype=values.dtype)


def _where(valid: npt.NDArray[np.bool_], values: pl.Series) -> pl.Series:
    """The values, null where not valid."""
    return values if valid.all() else pl.select(pl.when(pl.Series(valid)).then(values)).to_series()
