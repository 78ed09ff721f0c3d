"""Inputs of PARSRec for sessions in progress: users, baskets, and the items of earlier sessions."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segue.data.histories import NOW, Histories
from segue.data.ragged import Int64
from segue.models.parsrec.examples import first_since, history_rows, history_starts
from segue.models.repeats import repeat_inputs


class BasketInputs(NamedTuple):
    """Inputs of n sessions in progress, the longest basket first.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = unknown.
    items
        (n, length) int64 items of the baskets in order, 0 behind the last.
    lengths
        (n,) int64 number of items of each basket, descending.
    sizes
        (n,) int64 number of items in each history, with repeats.
    offsets, columns, values
        Histories as rows of a sparse matrix (n, n_items + 1) in CSR form.
    back
        (n,) int64 row of each history, in their original order.
    repeated, features
        Repeats of the histories, in their original order; see `RepeatInputs`.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    sizes: Tensor
    offsets: Tensor
    columns: Tensor
    values: Tensor
    back: Tensor
    repeated: Tensor
    features: Tensor


def basket_inputs(
    histories: Histories, history_sessions: int | None, history_time: int | None = None, repeats: bool = False
) -> tuple[BasketInputs, Int64]:
    """Inputs of n histories, and the positions (n, length) of the items of the baskets, -1 behind the last.

    `history_time` limits histories with times. The session in progress begins with the first item of the basket. An
    empty basket begins at the time of the question, or at the newest time of the history if that is not known.
    """
    begins = histories.ends if histories.baskets is None else histories.baskets
    lengths = histories.ends - begins
    order = np.argsort(-lengths, kind="stable")
    chosen, begins, lengths = histories.select(order), begins[order], lengths[order]
    columns = np.arange(int(lengths.max(initial=0)))
    positions = np.where(columns < lengths[:, None], begins[:, None] + columns, -1)
    codes = np.where(positions >= 0, histories.items[positions], 0).astype(np.int64) if len(columns) else positions
    starts = history_starts(chosen.starts, begins, chosen.session_offsets, history_sessions)
    if history_time is not None and chosen.times is not None and len(chosen.times):
        starts = first_since(chosen.times, starts, begins, _session_times(chosen, begins) - history_time)
    rows = history_rows(replace(chosen, starts=starts, ends=begins, baskets=None))
    back = np.argsort(order)
    arrays = (chosen.users, codes, lengths, begins - starts)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    tensors += [*rows, torch.from_numpy(back), *repeat_inputs(histories, repeats)]
    return BasketInputs._make(tensors), positions[back]


def _session_times(histories: Histories, begins: Int64) -> Int64:
    """Time (n,) at which each session in progress begins; `begins` (n,) are the positions of the baskets."""
    assert histories.times is not None
    last = len(histories.times) - 1
    newest = histories.times[np.clip(begins - 1, 0, last)]
    asked = np.full(len(begins), NOW) if histories.as_of is None else histories.as_of
    times = np.where(asked == NOW, newest, asked)
    return np.where(histories.ends > begins, histories.times[np.minimum(begins, last)], times)
