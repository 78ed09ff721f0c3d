"""Why an item was suggested: how much each item of the history added to its score, by leaving it out.

For a history h and an item b, the effect of the j-th item is s(b | h) − s(b | h without its j-th item). All shortened
histories go through the model in the same batches as everything else. A lone item cannot be left out, as no model
answers for an empty history; it is compared with the mean score over the most popular items in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions
from segue.data.vocabulary import as_ids
from segue.errors import ConfigError, DataError
from segue.inference.batches import LIMITS, answering, batches, require_finite, to_device
from segue.inference.people import Given, People, as_list, given_people, known_codes
from segue.models.base import Model

Scores = npt.NDArray[np.float32]

_ITEMS = 4_000_000
"""History items, summed over all shortened histories, that are held at once."""

REFERENCES = 32
"""How many popular items a lone item is compared with."""


@dataclass(frozen=True)
class Effects:
    """How much the items of histories added to the scores of p pairs of a history and an item.

    Attributes
    ----------
    scores
        (p,) float32 the scores themselves.
    pairs
        (m,) int64 which pair each effect belongs to, ascending.
    places
        (m,) int64 position in `Histories.items` of the history's item.
    effects
        (m,) float32, within a pair the largest first, equal ones newest first.
    """

    scores: Scores
    pairs: Int64
    places: Int64
    effects: Scores

    def strongest(self, top: int) -> Effects:
        """Only the `top` largest effects of each pair."""
        kept = np.arange(len(self.pairs)) - np.searchsorted(self.pairs, self.pairs) < top
        return Effects(self.scores, self.pairs[kept], self.places[kept], self.effects[kept])


def effects(model: Model, histories: Histories, rows: Int64, items: Int64, references: Int64) -> Effects:
    """The effect of every history item that the model reads, for several pairs at once.

    Parameters
    ----------
    model
        Any model.
    histories
        n histories, none of them empty. Each is read once, however many items are asked about.
    rows, items
        (p,) int64: which history, and which item code.
    references
        (r,) item codes that a lone item is compared with.
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    scores = np.zeros(len(rows), dtype=np.float32)
    found: list[tuple[Int64, Int64, Scores]] = []
    with answering(model):
        for first, last in _portions(model, histories):
            low, high = np.searchsorted(ordered, [first, last])
            if low == high:
                continue
            index = order[low:high]
            variants = _Variants(histories.select(slice(first, last)), model.max_history, references)
            scored = variants.scores(model, rows[index] - first, items[index])
            scores[index], pair, place, effect = variants.compare(rows[index] - first, scored)
            found.append((index[pair], place, effect))
    pairs, places, values = (np.concatenate(part) for part in zip(*found, strict=True)) if found else _NOTHING
    order = np.lexsort((-places, -values, pairs))
    return Effects(scores, pairs[order], places[order], values[order])


_NOTHING = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)


def _portions(model: Model, histories: Histories) -> Iterator[tuple[int, int]]:
    """Ranges of histories whose shortened copies together stay within the limit."""
    lengths = histories.lengths if model.max_history is None else np.minimum(histories.lengths, model.max_history + 1)
    cost = np.cumsum(lengths * (lengths + 1))
    first = 0
    while first < len(cost):
        spent = cost[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(cost, spent + _ITEMS, side="right")))
        yield first, last
        first = last


class _Variants:
    """All that the model is asked about n histories: each as it is, then without its newest item, its second newest, …

    A lone item is followed instead by one history per reference. The variants of a history stand together.

    Parameters
    ----------
    histories
        n histories.
    max_history
        How many of the newest items the model reads; only these are left out.
    references
        (r,) item codes.
    """

    def __init__(self, histories: Histories, max_history: int | None, references: Int64) -> None:
        # One item more than the model reads: it moves up when a newer one is left out.
        self.cut = histories if max_history is None else histories.last(max_history + 1)
        lengths = self.cut.lengths
        self.lone = lengths == 1
        self.shown = lengths if max_history is None else np.minimum(lengths, max_history)
        self.counts = 1 + np.where(self.lone, len(references), self.shown)
        self.offsets = offsets_of(self.counts)
        self.histories = self._build(references)

    def _build(self, references: Int64) -> Histories:
        cut = self.cut
        row = np.repeat(np.arange(len(cut)), self.counts)
        nth = positions(np.zeros_like(self.counts), self.counts)
        replaced = self.lone[row] & (nth > 0)
        # Variant 0 leaves out nothing: the position behind the newest item.
        left_out = np.where(replaced, cut.ends[row], cut.ends[row] - nth)
        lengths = cut.lengths[row] - ((nth > 0) & ~replaced)
        where = positions(cut.starts[row], cut.starts[row] + lengths)
        where += where >= np.repeat(left_out, lengths)
        items = cut.items[where]
        offsets = offsets_of(lengths)
        items[offsets[:-1][replaced]] = references[nth[replaced] - 1]
        times = None if cut.times is None else cut.times[where]
        return Histories(cut.users[row], items, offsets[:-1], offsets[1:], times)

    def scores(self, model: Model, rows: Int64, items: Int64) -> Scores:
        """Scores of `items` (p,) for all variants of `rows` (p,), pair by pair."""
        parts: list[Tensor] = []
        places: list[Int64] = []
        for index, queries in batches(model, self.histories, LIMITS.histories, LIMITS):
            places.append(index)
            parts.append(queries)
        queries = torch.cat(parts)[to_device(np.argsort(np.concatenate(places)), model.device)]
        variant = positions(self.offsets[rows], self.offsets[rows + 1])
        asked = np.repeat(items, self.counts[rows])
        scores = np.empty(len(variant), dtype=np.float32)
        for first in range(0, len(variant), LIMITS.pairs):
            part = slice(first, first + LIMITS.pairs)
            chosen = queries[to_device(variant[part], model.device)]
            found = model.score_items(chosen, to_device(asked[part], model.device)[:, None])
            require_finite(found)
            scores[part] = found[:, 0].cpu().numpy()
        return scores

    def compare(self, rows: Int64, scores: Scores) -> tuple[Scores, Int64, Int64, Scores]:
        """From the scores of all variants of `rows` (p,): full scores (p,); pair, place and effect of each item."""
        counts = self.counts[rows]
        offsets = offsets_of(counts)
        full = scores[offsets[:-1]]
        pair = np.repeat(np.arange(len(rows)), counts - 1)
        others = positions(offsets[:-1] + 1, offsets[1:])
        nth = others - offsets[pair]
        effect = full[pair] - scores[others]
        lone = self.lone[rows]
        kept = ~lone[pair] | (nth == 1)
        means = np.bincount(pair, effect, minlength=len(rows)) / np.maximum(counts - 1, 1)
        effect = np.where(lone[pair], means[pair], effect).astype(np.float32)
        place = self.cut.ends[rows[pair]] - nth
        return full, pair[kept], place[kept], effect[kept]


def asked_pairs(dataset: Dataset, users: Any, items: Any, histories: Given | None) -> tuple[People, Int64]:
    """People (p), repeats kept, and item codes (p,) to explain. Pairs with an unknown id are left out, with a warning.

    Raises
    ------
    ConfigError
        Neither users nor histories.
    DataError
        The numbers of people and items differ, and neither is one.
    UnknownIdError
        None of the people or none of the items is known.
    """
    if users is None and histories is None:
        raise ConfigError("explain needs people: give users or histories.")
    asked = as_ids(as_list(items) if items is not None else dataset.catalogue.ids)
    codes = dataset.catalogue.encode(asked)
    known_codes(dataset.catalogue, asked, "items", "left out")
    if histories is not None:
        people = given_people(dataset, histories)
    else:
        listed = as_ids(as_list(users))
        known_codes(dataset.users, listed, "users", "left out")
        user_codes = dataset.users.encode(listed)
        people = People(dataset.users.decode(user_codes), dataset.histories(user_codes))
    n, m = len(people), len(codes)
    if n != m and 1 not in (n, m):
        raise DataError(
            f"{n:,} people and {m:,} items make no pairs: give as many of one as of the other, or one of either."
        )
    pairs = np.arange(max(n, m) if min(n, m) else 0)
    person, item = pairs * (n > 1), pairs * (m > 1)
    kept = codes[item] > 0
    return people.select(person[kept]), codes[item[kept]]


def reason_frame(
    model: Model, dataset: Dataset, pairs: People, items: Int64, references: Int64, top: int | None
) -> pl.DataFrame:
    """The effects of histories on pairs of people (p) and item codes (p,), as a frame with raw ids.

    Columns: user, item, score, because, position, time (if the histories have times), effect. Pairs without a history
    have no rows.
    """
    met = np.flatnonzero(pairs.met)
    people, items = pairs.select(met), items[met]
    asked = people.histories
    # The same history is read once, however many items are asked about.
    keys = np.stack([asked.users, asked.starts, asked.ends])
    _, first, rows = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    found = effects(model, asked.select(first), rows.reshape(-1), items, references)
    if top is not None:
        found = found.strongest(top)
    columns: dict[str, Any] = {
        "user": people.ids.gather(found.pairs),
        "item": dataset.catalogue.decode(items[found.pairs]),
        "score": found.scores[found.pairs],
        "because": dataset.catalogue.decode(asked.items[found.places]),
        "position": found.places - asked.starts[found.pairs] + 1,
    }
    if asked.times is not None:
        columns["time"] = asked.times[found.places]
    return pl.DataFrame({**columns, "effect": found.effects})
