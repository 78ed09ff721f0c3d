"""Ranks of targets and lists of many histories by the workers of an engine, bit for bit those of a single process.

The scores of a history are rounded a little differently in another batch. So the parts are made of the batches that a
single process would make, and a worker makes the same ones again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions
from segue.engines.base import Workers
from segue.engines.engine import Engine
from segue.engines.workers import holding, workers
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import LIMITS, Limits, batch_rows
from segue.inference.scoring.popular import check_k
from segue.inference.scoring.ranking import distinct, rows_among_all, rows_among_candidates, target_ranks, top_k

_PARTS_PER_WORKER = 6
"""Parts for each worker: enough for the workers to end at about the same time."""


@contextmanager
def ranker(scorer: Scorer, engine: Engine | None) -> Iterator[Ranker]:
    """Yield a Ranker whose workers hold the Scorer and end with the context; this process alone without an engine."""
    if engine is None or engine.alone:
        yield Ranker(scorer)
        return
    with workers(engine, holding(scorer)) as crew:
        yield Ranker(scorer, crew, engine.processes)


@dataclass(frozen=True, eq=False)
class Ranker:
    """The functions `target_ranks` and `top_k` of one Scorer, by several workers.

    Attributes
    ----------
    scorer
        The Scorer.
    crew
        Workers with the Scorer as their state; None for this process.
    n_workers
        Number of workers.
    limits
        Sizes of batches and buffers.
    """

    scorer: Scorer
    crew: Workers | None = None
    n_workers: int = 1
    limits: Limits = LIMITS

    def target_ranks(
        self,
        histories: Histories,
        targets: Histories,
        *,
        exclude_seen: bool = True,
        seen: Histories | None = None,
        only: Histories | None = None,
        among: npt.NDArray[np.bool_] | None = None,
        candidates: Int64 | None = None,
    ) -> Int64:
        """Rank of each target among the candidates of its history, as `ranking.target_ranks` gives it."""
        options: dict[str, Any] = {"exclude_seen": exclude_seen, "among": among}
        if self.crew is None:
            return target_ranks(self.scorer, histories, targets, seen=seen, only=only, candidates=candidates, **options)
        if candidates is None:
            rows = rows_among_all(self.scorer, self.limits, len(histories))
        else:
            rows = rows_among_candidates(distinct(targets)[0], candidates, self.limits)
        offsets = offsets_of(targets.lengths)
        ranks = np.zeros(offsets[-1], dtype=np.int64)
        parts, limits = self._parts(histories, rows), replace(self.limits, histories=rows)

        def questions() -> Iterator[_Question]:
            for index in parts:
                by_row = {"targets": targets, "seen": seen, "only": only}
                own = {name: None if one is None else one.select(index).compact() for name, one in by_row.items()}
                drawn = {"candidates": None if candidates is None else candidates[index]}
                yield _Question(histories.select(index).compact(), {**options, **own, **drawn}, limits)

        for number, found in self.crew.run(_ranks, questions()):
            index = parts[number]
            ranks[positions(offsets[index], offsets[index + 1])] = found
        return ranks

    def top_k(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Int64:
        """Codes (n, k) int64 of the k best items of each of n histories, as `ranking.top_k` gives them."""
        if self.crew is None:
            return top_k(self.scorer, histories, k, exclude_seen=exclude_seen, limits=self.limits)[0]
        check_k(k, self.scorer.n_items)
        codes = np.zeros((len(histories), k), dtype=np.int64)
        rows = rows_among_all(self.scorer, self.limits, len(histories))
        parts, limits = self._parts(histories, rows), replace(self.limits, histories=rows)
        options = {"k": k, "exclude_seen": exclude_seen}
        questions = (_Question(histories.select(index).compact(), options, limits) for index in parts)
        for number, found in self.crew.run(_lists, questions):
            codes[parts[number]] = found
        return codes

    def _parts(self, histories: Histories, rows: int) -> list[Int64]:
        """Rows of each part: those of some batches, which follow each other in a single process, too."""
        batches = list(batch_rows(self.scorer, histories, rows, self.limits))
        number = min(len(batches), _PARTS_PER_WORKER * self.n_workers)
        ends = [len(batches) * part // number for part in range(number + 1)] if number else [0]
        parts: list[Int64] = []
        for start, end in pairwise(ends):
            part = np.concatenate(batches[start:end])
            if parts and 1 in (len(part), len(parts[-1])):  # a question about one history takes another way
                parts[-1] = np.concatenate([parts[-1], part])
            else:
                parts.append(part)
        return parts


@dataclass(frozen=True, eq=False)
class _Question:
    """Histories of a part, the further arguments, and limits with which its batches are those of the whole."""

    histories: Histories
    options: dict[str, Any]
    limits: Limits


def _ranks(scorer: Scorer, part: _Question) -> Int64:
    return target_ranks(scorer, part.histories, **part.options, limits=part.limits)


def _lists(scorer: Scorer, part: _Question) -> Int64:
    return top_k(scorer, part.histories, **part.options, limits=part.limits)[0]
