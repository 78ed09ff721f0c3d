"""Encoders as one operation: a trace of `Model.encode` runs without Python between its steps.

A trace gives the same numbers, in less than half of the time for few histories, and other threads can work meanwhile.
It is used only if its queries equal those of the model, bit for bit, for histories of many lengths. Encoders that
depend on the data in other ways are not equal, or cannot be traced; they stay as they are.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.inference.scorer import Scorer

log = logging.getLogger("segue.serving")

_PROBES = ((1, 1), (1, 2), (2, 1), (3, 7), (1, 40), (8, 12), (5, 64), (32, 20))
"""Numbers of histories, and their greatest lengths, with which a trace is compared."""


@dataclass(frozen=True, eq=False)
class TracedScorer(Scorer):
    """Scorer whose encoder is a trace.

    Attributes
    ----------
    trace
        Function of the tensors of the inputs.
    """

    trace: Any = None

    def queries(self, histories: Histories) -> Tensor:
        """Encode n histories as queries (n, …)."""
        with torch.inference_mode():
            queries: Tensor = self.trace(*self.model.inputs(histories))
            return queries


def traced(scorer: Scorer, dataset: Dataset) -> Scorer:
    """The Scorer with a traced encoder, if its queries are equal; else the Scorer as it is."""
    if scorer.device.type != "cpu" or scorer.max_history is None:
        return scorer
    probes = [_histories(scorer, dataset, n, length) for n, length in _PROBES]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about each step that a trace fixes: the comparison decides
            example = scorer.model.inputs(probes[3])
            kind = type(example)
            trace: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
                lambda *tensors: scorer.model.encode(kind(*tensors)), tuple(example), check_trace=False
            )
            candidate = TracedScorer(scorer.model, scorer.items, trace)
            same = all(torch.equal(candidate.queries(one), scorer.queries(one)) for one in 3 * probes)
    except Exception as error:
        log.info("the encoder of %s is not traced: %s", scorer.config.name, type(error).__name__)
        return scorer
    return candidate if same else scorer


def _histories(scorer: Scorer, dataset: Dataset, n: int, length: int) -> Histories:
    """Random histories of n users, from 1 to `length` items long."""
    rng = np.random.default_rng(n * 100 + length)
    lengths = rng.integers(1, length + 1, n)
    lengths[0] = length
    items = [rng.integers(1, scorer.n_items + 1, one) for one in lengths]
    histories = Histories.from_lists(items, rng.integers(0, dataset.n_users + 1, n).astype(np.int64))
    if dataset.times is None:
        return histories
    times = np.cumsum(rng.integers(0, 10_000, len(histories.items))).astype(np.int64)
    return Histories(histories.users, histories.items, histories.starts, histories.ends, times)
