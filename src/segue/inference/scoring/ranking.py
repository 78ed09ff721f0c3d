"""Exact top-k lists and exact ranks of targets, for any model, over the whole catalogue or over given candidates.

Ties have fixed rules. A top-k list orders equal scores by item code, ascending. A target ranks behind every other
candidate with the same score, so no model gains from equal scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions
from segue.errors import DataError
from segue.inference.asking.own_items import OwnItems
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import (
    LIMITS,
    Chunk,
    Limits,
    Sweep,
    batches,
    require_finite,
    require_histories,
    to_device,
)
from segue.inference.scoring.popular import check_k
from segue.models.base import Model

Progress = Callable[[int], None]
"""Function of the number of users that were answered since its last call."""

_ROWS_COMPARED = 64
"""Rows compared at once: few enough for the flags to stay in the cache, many enough to keep the cores busy."""

_BLOCK = 64
"""Scores in a block. The maximum of a block decides if its scores are searched for the best of a row."""
_MIN_REDUCTION = 8
"""Blocks are used if they reduce the number of scores to search by at least this factor."""

_MIN_BLOCKED = 50_000
"""Scores of a single row from which blocks are faster."""


def top_k(
    model: Scorer | Model,
    histories: Histories,
    k: int,
    *,
    exclude_seen: bool = True,
    seen: Histories | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    offset: npt.NDArray[np.float32] | None = None,
    own_allowed: OwnItems | None = None,
    own_denied: OwnItems | None = None,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> tuple[Int64, npt.NDArray[np.float32]]:
    """Find the k best items for each history, exactly; equal scores are ordered by item code.

    Parameters
    ----------
    model
        A Scorer, or a fitted model.
    histories
        n histories that are not empty.
    k
        Number of items, from 1 to the size of the catalogue.
    exclude_seen
        Leave out the items of `seen`.
    seen
        n full histories whose items are left out; None means `histories` themselves.
    allowed
        Mask (n_items + 1,) of the item codes that may be recommended; None means all.
    offset
        (n_items + 1,) float32 numbers to add to the scores; −inf for items that may not be recommended.
    own_allowed, own_denied
        Items of each of the n rows: the only ones that it may have, and those that it may not have.
    limits
        Sizes of batches and buffers.
    progress
        Called after each batch with the number of histories that were answered.

    Returns
    -------
    codes
        (n, k) int64 item codes, best first; 0 if fewer than k items are left.
    scores
        (n, k) float32; −inf for code 0.

    Raises
    ------
    ConfigError
        k is not from 1 to the size of the catalogue.
    DataError
        A history is empty.
    EvaluationError
        A score is NaN or infinite.
    """
    scorer = scorer_of(model)
    check_k(k, scorer.n_items)
    hidden = (histories if seen is None else seen) if exclude_seen else None
    if len(histories) == 1 and scorer.device.type == "cpu" and 4 * (scorer.n_items + 1) <= limits.buffer_bytes:
        allowed = _allowed_to_one(allowed, own_allowed, own_denied, scorer)
        return _top_k_of_one(scorer, histories, k, hidden, allowed, offset)
    codes = np.zeros((len(histories), k), dtype=np.int64)
    scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    with torch.inference_mode():
        denied = None if allowed is None else torch.from_numpy(~allowed).to(scorer.device)
        added = None if offset is None else torch.tensor(offset, device=scorer.device)
        sweep = Sweep(scorer, limits, len(histories))
        for index, queries in batches(scorer, histories, sweep.rows, limits):
            pairs = _pairs(hidden, index, scorer.device)
            own_hidden = _own_pairs(own_denied, index, scorer.device)
            only = _own_pairs(own_allowed, index, scorer.device)
            best: tuple[Tensor, Tensor] | None = None
            for chunk in sweep.chunks(queries):
                chunk.hide(*pairs)
                if added is not None:
                    chunk.scores.add_(added[chunk.start : chunk.stop])
                if denied is not None:
                    chunk.scores.masked_fill_(denied[chunk.start : chunk.stop], -torch.inf)
                if own_hidden is not None:
                    chunk.hide(*own_hidden[1:])
                if only is not None:
                    chunk.keep_only(*only)
                chunk_best = _best(chunk, k)
                best = chunk_best if best is None else _merge(best, chunk_best, k)
            assert best is not None
            width = best[0].shape[1]
            codes[index, :width], scores[index, :width] = best[0].cpu().numpy(), best[1].cpu().numpy()
            if progress is not None:
                progress(len(index))
    codes[np.isneginf(scores)] = 0
    return codes, scores


def target_ranks(
    model: Scorer | Model,
    histories: Histories,
    targets: Histories,
    *,
    exclude_seen: bool = True,
    seen: Histories | None = None,
    only: Histories | None = None,
    among: npt.NDArray[np.bool_] | None = None,
    candidates: Int64 | None = None,
    limits: Limits = LIMITS,
) -> Int64:
    """Rank of each target among the candidates of its history; 1 is best.

    The rank is one, plus the number of candidates that are not targets and score at least as high (ties count against
    the target), plus the number of other targets of the same history that score higher (equal ones by item code).

    Parameters
    ----------
    model
        A Scorer, or a fitted model.
    histories
        n histories that are not empty.
    targets
        n rows of target items. A repeated target counts as one target and gets the same rank each time.
    exclude_seen
        Items of `seen` are not candidates. A target among them cannot be recommended; its rank is `n_items + 1`, which
        no list reaches.
    seen
        n histories whose items are left out; None means `histories` themselves.
    only
        n rows of items: all others are no candidates, and a target among these has the rank `n_items + 1`, too. None
        means all items. It does not go with `candidates`.
    among
        (n_items + 1,) mask of the items that may be candidates, the same for all rows; None means all. It does not go
        with `candidates` either.
    candidates
        (n, c) int64 item codes of the candidates, 0 = none; None means the whole catalogue.
    limits
        Sizes of batches and buffers.

    Returns
    -------
    ranks
        (sum of the targets' lengths,) int64, in the order of `targets`, row by row.

    Raises
    ------
    DataError
        A history is empty, or the numbers of rows differ.
    EvaluationError
        A score is NaN or infinite.
    """
    if len(targets) != len(histories) or (candidates is not None and len(candidates) != len(histories)):
        raise DataError(f"{len(histories):,} histories need as many rows of targets and of candidates.")
    if among is not None and candidates is not None:
        raise DataError("items to rank are given as a mask and as candidates: expected one of the two.")
    if only is not None and (len(only) != len(histories) or candidates is not None):
        raise DataError(f"{len(histories):,} histories need as many rows of items to rank, and no candidates beside.")
    scorer = scorer_of(model)
    hidden = (histories if seen is None else seen) if exclude_seen else None
    unique_targets, inverse = distinct(targets)
    ranks = np.zeros(len(unique_targets.items), dtype=np.int64)
    others = None if among is None else torch.from_numpy(~among).to(scorer.device)
    with torch.inference_mode():
        if candidates is None:
            sweep = Sweep(scorer, limits, len(histories))
            rows = sweep.rows
        else:
            rows = rows_among_candidates(unique_targets, candidates, limits)
        for index, queries in batches(scorer, histories, rows, limits):
            part = unique_targets.select(index)
            pairs = _pairs(part, slice(None), scorer.device)
            hidden_pairs = _pairs(hidden, index, scorer.device)
            if candidates is None:
                kept = None if only is None else _pairs(only, index, scorer.device)
                scores, above = _among_all(sweep, queries, pairs, hidden_pairs, kept, others)
            else:
                scores, above = _among_candidates(scorer, queries, pairs, hidden_pairs, candidates[index])
            worst = scorer.n_items + 1
            ranks[positions(part.starts, part.ends)] = _ranks(pairs[0].cpu().numpy(), scores, above, worst)
    return ranks[inverse]


def rows_among_all(scorer: Scorer, limits: Limits, n: int) -> int:
    """Largest number of histories in a batch if n histories are ranked among all items."""
    width = min(scorer.n_items + 1, limits.chunk_items)
    return max(1, min(limits.histories, limits.buffer_bytes // (4 * width), n))


def rows_among_candidates(targets: Histories, candidates: Int64, limits: Limits) -> int:
    """Largest number of histories in a batch if their distinct targets are ranked among candidates (n, c)."""
    widest = int(targets.lengths.max(initial=0)) + candidates.shape[1]
    rows: int = max(1, min(limits.histories, limits.pairs // max(1, widest)))
    return rows


def distinct(targets: Histories) -> tuple[Histories, Int64]:
    """Rows without repeated items, ordered by item code.

    Returns
    -------
    items
        The same number of rows, without repeats.
    inverse
        Position of each item of `targets`, row by row, in the flat items of the result.
    """
    rows, items = targets.seen()
    stride = int(items.max(initial=0)) + 1
    keys, inverse = np.unique(rows * stride + items, return_inverse=True)
    offsets = offsets_of(np.bincount(keys // stride, minlength=len(targets)))
    return Histories(targets.users, (keys % stride).astype(np.int32), offsets[:-1], offsets[1:]), inverse


def _top_k_of_one(
    scorer: Scorer,
    histories: Histories,
    k: int,
    hidden: Histories | None,
    allowed: npt.NDArray[np.bool_] | None,
    offset: npt.NDArray[np.float32] | None = None,
) -> tuple[Int64, npt.NDArray[np.float32]]:
    """`top_k` of one history on the CPU, in the fewest operations: a service asks for one user at a time."""
    require_histories(scorer, histories)
    with torch.inference_mode():
        scores = scorer.score_all(scorer.queries(histories), 0, scorer.n_items + 1)
        flat = scores.numpy()[0]
        flat[0] = 0.0
        require_finite(scores)
        flat[0] = -np.inf
        if scorer.cold is not None:
            flat[scorer.cold.numpy()] = -np.inf
        if hidden is not None:
            flat[hidden.items[hidden.starts[0] : hidden.ends[0]]] = -np.inf
        if offset is not None:
            flat += offset
        if allowed is not None:
            flat[~allowed] = -np.inf
        largest = scores.topk(k + 1) if len(flat) < _MIN_BLOCKED else _largest(scores, k + 1)
        values, columns = largest[0].numpy()[0], largest[1].numpy()[0]
        if values[k - 1] == values[k] > -np.inf:
            columns = _best_of_tied(scores, torch.from_numpy(values[None, k - 1 : k]), k).numpy()[0]
            values = flat[columns]
            order = np.lexsort((columns, -values))
            columns, values = columns[order], values[order]
    best, values = columns[:k], values[:k]
    if (values[1:] == values[:-1]).any():
        order = np.lexsort((best, -values))
        best, values = best[order], values[order]
    if values[-1] == -np.inf:
        best = np.where(np.isneginf(values), 0, best)
    return best[None], values[None]


def _allowed_to_one(
    allowed: npt.NDArray[np.bool_] | None, own_allowed: OwnItems | None, own_denied: OwnItems | None, scorer: Scorer
) -> npt.NDArray[np.bool_] | None:
    """Mask (n_items + 1,) of the items that the only user may have; None for all."""
    if own_allowed is not None and own_allowed.named[0]:
        mask = np.zeros(scorer.n_items + 1, dtype=np.bool_)
        mask[own_allowed.pairs()[1]] = True
        allowed = mask if allowed is None else mask & allowed
    if own_denied is not None and own_denied.named[0]:
        allowed = np.ones(scorer.n_items + 1, dtype=np.bool_) if allowed is None else allowed.copy()
        allowed[own_denied.pairs()[1]] = False
    return allowed


def _pairs(histories: Histories | None, index: Int64 | slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (m,) and item codes (m,) of the histories at `index`, on the device; empty without histories."""
    if histories is None:
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return empty, empty
    rows, items = histories.select(index).seen()
    return to_device(rows, device), to_device(items, device)


def _own_pairs(lists: OwnItems | None, index: Int64, device: torch.device) -> tuple[Tensor, Tensor, Tensor] | None:
    """Rows with a list (r,), and rows (m,) and item codes (m,) of the lists at `index`; None without lists."""
    if lists is None:
        return None
    part = lists.select(index)
    rows, items = part.pairs()
    return to_device(np.flatnonzero(part.named), device), to_device(rows, device), to_device(items, device)


def _best(chunk: Chunk, k: int) -> tuple[Tensor, Tensor]:
    """Codes and scores (batch, ≤ k) of the best items of a chunk, by (score descending, code ascending)."""
    scores = chunk.scores
    width = scores.shape[1]
    values, columns = _largest(scores, min(k + 1, width))
    if width > k:
        # topk takes any of several equal scores at the end of the list; such rows are chosen again, by code.
        tied = torch.nonzero((values[:, k - 1] == values[:, k]) & (values[:, k] > -torch.inf)).flatten()
        if len(tied):
            columns[tied, :k] = _best_of_tied(scores[tied], values[tied, k - 1 : k], k)
        columns = columns[:, :k]
    columns = columns.sort(dim=1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return columns.gather(1, order) + chunk.start, values


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns (batch, k) as of `scores.topk(k)`; equal scores at the end of the list may be other ones.

    On a CPU it is faster to find the k blocks with the highest maxima first. A score outside these blocks is not above
    any of the k maxima, so it is not needed.
    """
    width = scores.shape[1]
    if scores.device.type != "cpu" or width < _MIN_REDUCTION * k * _BLOCK:
        return scores.topk(k)
    whole = width - width % _BLOCK
    highest = scores[:, :whole].unflatten(1, (-1, _BLOCK)).amax(2)  # type: ignore[no-untyped-call]
    blocks = highest.topk(k, sorted=False).indices
    columns = (_BLOCK * blocks[:, :, None] + torch.arange(_BLOCK)).flatten(1)
    columns = torch.cat([columns, torch.arange(whole, width).expand(len(scores), -1)], dim=1)
    values, chosen = scores.gather(1, columns).topk(k)
    return values, columns.gather(1, chosen)


def _best_of_tied(scores: Tensor, edge: Tensor, k: int) -> Tensor:
    """Columns (batch, k) of the scores above `edge` (batch, 1), then of the first scores equal to it."""
    earlier = -torch.arange(scores.shape[1], dtype=torch.float32, device=scores.device)
    keys = torch.where(scores == edge, earlier, -torch.inf).masked_fill_(scores > edge, torch.inf)
    return keys.topk(k).indices


def _merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Best k of two lists. All codes of the second are higher, so a stable sort keeps equal scores by code."""
    codes = torch.cat([first[0], second[0]], dim=1)
    values, order = torch.cat([first[1], second[1]], dim=1).sort(dim=1, descending=True, stable=True)
    return codes.gather(1, order)[:, :k], values[:, :k]


def _among_all(
    sweep: Sweep,
    queries: Tensor,
    targets: tuple[Tensor, Tensor],
    hidden: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor] | None,
    others: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Scores (t,) of the targets, −inf if hidden, and the number (t,) of other items that score at least as high.

    If some items are `kept`, all others are hidden. So are the items in the mask `others` (n_items + 1,).
    """
    rows, items = targets
    everyone = torch.arange(len(queries), device=rows.device)

    def hide(chunk: Chunk) -> None:
        if kept is not None:
            chunk.keep_only(everyone, *kept)
        if others is not None:
            chunk.scores.masked_fill_(others[chunk.start : chunk.stop], -torch.inf)
        chunk.hide(*hidden)

    scores = torch.full((len(rows),), -torch.inf, device=rows.device)
    above = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for chunk in sweep.chunks(queries):
        hide(chunk)
        inside = (items >= chunk.start) & (items < chunk.stop)
        scores[inside] = chunk.scores[rows[inside], items[inside] - chunk.start]
        if sweep.single_chunk:
            chunk.hide(*targets)
            above += _count(chunk.scores, rows, scores)
    if not sweep.single_chunk:
        for chunk in sweep.chunks(queries):
            hide(chunk)
            chunk.hide(*targets)
            above += _count(chunk.scores, rows, scores)
    return scores, above


def _count(scores: Tensor, rows: Tensor, thresholds: Tensor) -> Tensor:
    """Number (t,) int64 of scores in `scores[rows[i]]` that are at least `thresholds[i]`.

    A sum of float flags is several times faster than a sum of booleans, and exact for fewer than 2**24 columns.
    """
    counts = torch.empty(len(rows), dtype=torch.int64, device=scores.device)
    flags = torch.empty(min(_ROWS_COMPARED, len(rows)), scores.shape[1], device=scores.device)
    one_target_each = torch.equal(rows, torch.arange(len(scores), device=rows.device))
    for first in range(0, len(rows), _ROWS_COMPARED):
        part = slice(first, first + _ROWS_COMPARED)
        block = scores[part] if one_target_each else scores[rows[part]]
        flag = torch.ge(block, thresholds[part, None], out=flags[: len(block)])
        counts[part] = flag.sum(dim=1)
    return counts


def _among_candidates(
    scorer: Scorer,
    queries: Tensor,
    targets: tuple[Tensor, Tensor],
    hidden: tuple[Tensor, Tensor],
    candidates: Int64,
) -> tuple[Tensor, Tensor]:
    """Like `_among_all`, among the candidates (batch, c) of each history."""
    rows, items = targets
    stride = scorer.n_items + 1
    first = torch.searchsorted(rows, rows)
    columns = torch.arange(len(rows), device=rows.device) - first
    width = int(columns.max()) + 1 if len(columns) else 0
    target_table = torch.zeros(len(queries), width, dtype=torch.int64, device=rows.device)
    target_table[rows, columns] = items
    table = torch.cat([target_table, to_device(candidates, rows.device)], dim=1)
    scores = scorer.score_items(queries, table)
    scores = scores.masked_fill(table == 0, 0.0)
    require_finite(scores)
    keys = table + stride * torch.arange(len(table), device=rows.device)[:, None]
    excluded = torch.isin(keys, hidden[0] * stride + hidden[1]) | (table == 0)
    excluded[:, width:] |= torch.isin(keys[:, width:], rows * stride + items)
    if scorer.cold is not None:
        excluded |= torch.isin(table, scorer.cold)
    scores = scores.masked_fill(excluded, -torch.inf)
    return scores[rows, columns], _count(scores[:, width:].contiguous(), rows, scores[rows, columns])


def _ranks(rows: Int64, scores: Tensor, above: Tensor, worst: int) -> Int64:
    """Ranks (t,) from the scores of the targets and the counts `above` (t,); `worst` for hidden targets."""
    values = scores.cpu().numpy()
    order = np.lexsort((-values, rows))
    among_targets = np.empty(len(rows), dtype=np.int64)
    among_targets[order] = np.arange(len(rows)) - np.searchsorted(rows, rows[order])
    ranks = 1 + above.cpu().numpy() + among_targets
    ranks[np.isneginf(values)] = worst
    return ranks
