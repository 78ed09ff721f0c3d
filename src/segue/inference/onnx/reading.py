"""Answers of an exported model without torch: `OnnxScorer` of codes, and `OnnxRecommender` of raw ids.

numpy and onnxruntime are enough: `pip install --no-deps segue`, then `pip install numpy onnxruntime`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segue.arguments import checked, checked_except
from segue.data.histories import Histories
from segue.data.history_arrays import HistoryArrays, history_arrays
from segue.data.ragged import Int64, offsets_of, rows_of
from segue.data.transitions import STEPS, TransitionCounts
from segue.errors import ConfigError, DataError, EvaluationError, StorageError
from segue.files import read_manifest, whole_number
from segue.inference.index import ItemIndex, fingerprint_of
from segue.inference.onnx import folder as files
from segue.inference.onnx.best import best_of
from segue.inference.onnx.folder import Ids
from segue.settings import Count

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class OwnPairs(Protocol):
    """Lists of item codes of single rows (`segue.inference.asking.own_items.OwnItems`)."""

    @property
    def named(self) -> Bools:
        """Mask (n,) of the rows with a list."""
        ...

    def pairs(self) -> tuple[Int64, Int64]:
        """Rows (m,) and item codes (m,) of all lists."""
        ...

    def select(self, index: slice) -> OwnPairs:
        """Lists of some rows."""
        ...


_BUFFER = 1 << 24
"""Scores that are computed at once."""
_SHORTEST = 2
"""Fewest columns of the items of a history, as the export takes no row of one for free lengths."""


@dataclass(frozen=True, eq=False)
class OnnxScorer:
    """Exported model that turns histories into queries, and queries into scores, as a `Scorer` does with torch.

    It knows codes, and no raw ids. Nothing changes it, so any number of threads may use it at once.

    Attributes
    ----------
    name
        Name of the model.
    session
        Session of onnxruntime with the encoder.
    inputs
        Names of the inputs of the encoder.
    table
        (n_items + 1, width) float32 item vectors.
    n_users
        Number of user codes.
    max_length
        Number of newest items that the encoder reads.
    offset
        True if one more column of the queries is added to every score of its row.
    repeats
        True if the encoder writes pairs of an item code and an addition to its score behind the queries.
    transitions, transition_weight
        Counted transitions, and their weight in the scores; None without any. Their additions are written as pairs too.
    cold
        (m,) codes of items without a score; None without any.
    index
        Index for approximate search; None without one.
    product
        Session of onnxruntime with the product of queries and item vectors, several times faster than that of NumPy for
        a few queries; None in folders of older exports.
    """

    name: str
    session: Any
    inputs: tuple[str, ...]
    table: Floats
    n_users: int
    max_length: int
    offset: bool
    repeats: bool
    cold: Int64 | None = None
    index: ItemIndex | None = None
    product: Any = None
    transitions: TransitionCounts | None = None
    transition_weight: float = 0.0

    needs_history = True
    """The model needs a history: exported models have an encoder of histories."""

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 1, verify: bool = True) -> OnnxScorer:
        """Open a folder that `Recommender.to_onnx` wrote.

        Parameters
        ----------
        path
            The folder.
        threads
            Threads of each computation of the encoder.
        verify
            Compare checksums first.

        Raises
        ------
        StorageError
            The folder is missing, damaged, altered, or of a newer format.
        ConfigError
            onnxruntime is not installed.
        """
        folder = Path(path)
        manifest = read_manifest(folder, files.MANIFEST, files.KIND, files.FORMAT_VERSION, verify=verify)
        place = folder / files.MANIFEST
        numbers = {key: whole_number(manifest, key, place) for key in ("users", "items", "width", "max_length")}
        inputs, name = manifest.get("inputs"), manifest.get("model")
        flags = {key: manifest.get(key) for key in ("offset", "repeats", "indexed")}
        weight = manifest.get("transitions")
        known = isinstance(inputs, list) and set(inputs) <= set(files.INPUTS) and "items" in inputs
        known = known and (weight is None or isinstance(weight, float))
        if not known or not isinstance(name, str) or not all(isinstance(flag, bool) for flag in flags.values()):
            raise StorageError(f"{place} does not describe an encoder: it was damaged or edited.")
        table = files.read_array(folder / files.ITEMS, np.float32, (numbers["items"] + 1, numbers["width"]))
        cold = files.read_array(folder / files.COLD, np.int64, (None,))
        if len(cold) and not (cold.min() >= 1 and cold.max() <= numbers["items"]):
            raise StorageError(f"{folder / files.COLD} holds codes that are no items: it was damaged or edited.")
        index = ItemIndex.open(folder / files.INDEX, verify=verify) if flags["indexed"] else None
        if index is not None:
            index.require(fingerprint_of(table), numbers["items"])
        return cls(
            name,
            _session(folder / files.ENCODER, threads),
            tuple(inputs or ()),
            table,
            numbers["users"],
            numbers["max_length"],
            bool(flags["offset"]),
            bool(flags["repeats"]),
            cold if len(cold) else None,
            index,
            _session(folder / files.SCORES, threads) if (folder / files.SCORES).exists() else None,
            None if weight is None else _transitions(folder, numbers["items"]),
            weight or 0.0,
        )

    @property
    def n_items(self) -> int:
        """Number of item codes."""
        return len(self.table) - 1

    @property
    def max_history(self) -> int | None:
        """Number of newest items of a history that the model reads; None = all."""
        if self.repeats:
            return None
        return self.max_length if self.transitions is None else max(self.max_length, STEPS)

    @property
    def _has_pairs(self) -> bool:
        return self.repeats or self.transitions is not None

    def queries(self, histories: Histories) -> Floats:
        """Encode n histories, which must not be empty, as queries (n, …)."""
        lengths = histories.lengths
        if len(lengths) == 0 or lengths.min() < 1:
            raise DataError("a history is empty, or there is none: an encoder needs histories with items.")
        arrays = padded_inputs(
            history_arrays(histories, self.max_length, "ages" in self.inputs, self.repeats),
            self.max_length,
            self.repeats,
        )
        queries: Floats = self.session.run(None, {name: getattr(arrays, name) for name in self.inputs})[0]
        if self.transitions is None:
            return queries
        items, logs = self.transitions.after(histories)
        pairs = np.stack([items.astype(np.float32), np.float32(self.transition_weight) * logs], axis=-1)
        return np.concatenate([queries, pairs.reshape(len(queries), -1)], axis=1)

    def score_all(self, queries: Floats, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Scores (n, stop - start) float32 of the item codes start … stop - 1, written to `out` if it is given."""
        if self.product is not None and out is None and start == 0 and stop == len(self.table):
            scores: Floats = self.product.run(None, {files.OUTPUT: self._directions(queries)})[0]
        else:
            scores = np.matmul(self._directions(queries), self.table[start:stop].T, out=out)
        if self.offset:
            scores += queries[:, self._width, None]
        if self._has_pairs:
            codes, added = self._repeated(queries)
            if start == 0 and stop == len(self.table):  # no item stands there twice; code 0 has additions of 0
                scores[np.arange(len(scores))[:, None], codes] += added
            else:
                rows, columns = np.nonzero((codes >= max(start, 1)) & (codes < stop))
                scores[rows, codes[rows, columns] - start] += added[rows, columns]
        return scores

    def score_items(self, queries: Floats, items: Int64) -> Floats:
        """Scores (n, m) float32 of `items` (n, m)."""
        scores: Floats = np.einsum("nd,nmd->nm", self._directions(queries), self.table[items], optimize=True)
        if self.offset:
            scores += queries[:, self._width, None]
        if self._has_pairs:
            codes, added = self._repeated(queries)
            rows, columns = np.nonzero(codes)
            same = items[rows] == codes[rows, columns, None]
            np.add.at(scores, rows, np.where(same, added[rows, columns, None], 0))
        return scores

    def top_k(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        seen: Histories | None = None,
        allowed: Bools | None = None,
        offset: Floats | None = None,
        own_allowed: OwnPairs | None = None,
        own_denied: OwnPairs | None = None,
        approximate: bool = False,
    ) -> tuple[Int64, Floats]:
        """Find the k best items for each history; equal scores are ordered by item code.

        Parameters
        ----------
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
            (n_items + 1,) float32 numbers to add to the scores; −inf for items that may not be recommended. An
            approximate search ignores it, and the two below.
        own_allowed, own_denied
            Items of each of the n rows: the only ones that it may have, and those that it may not have.
        approximate
            Take candidates from the index.

        Returns
        -------
        codes
            (n, k) int64 item codes, best first; 0 if fewer than k items are left.
        scores
            (n, k) float32; −inf for code 0.

        Raises
        ------
        ConfigError
            k is not from 1 to the size of the catalogue, or the export has no index.
        DataError
            A history is empty.
        EvaluationError
            A score is NaN or infinite.
        """
        if not 1 <= k <= self.n_items:
            raise ConfigError(f"k={k} is the length of a list: expected 1 to {self.n_items:,}, the catalogue's size.")
        hidden = (histories if seen is None else seen) if exclude_seen else None
        if approximate:
            return self._by_index(histories, k, hidden, allowed)
        step = max(1, _BUFFER // (self.n_items + 1))
        if len(histories) <= step:
            return self._exact(self.queries(histories), k, hidden, allowed, offset, own_allowed, own_denied)
        codes = np.zeros((len(histories), k), dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for first in range(0, len(histories), step):
            part = slice(first, first + step)
            own = None if hidden is None else hidden.select(part)
            queries = self.queries(histories.select(part))
            lists = (None if one is None else one.select(part) for one in (own_allowed, own_denied))
            codes[part], scores[part] = self._exact(queries, k, own, allowed, offset, *lists)
        return codes, scores

    def _exact(
        self,
        queries: Floats,
        k: int,
        hidden: Histories | None,
        allowed: Bools | None,
        offset: Floats | None = None,
        own_allowed: OwnPairs | None = None,
        own_denied: OwnPairs | None = None,
    ) -> tuple[Int64, Floats]:
        """Codes and scores (n, k) of the best items of the whole catalogue."""
        scores = self.score_all(queries, 0, self.n_items + 1)
        scores[:, 0] = 0
        _require_finite(scores)
        scores[:, 0] = -np.inf
        if self.cold is not None:
            scores[:, self.cold] = -np.inf
        if hidden is not None:
            scores[hidden.seen()] = -np.inf
        if offset is not None:
            scores += offset
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if own_denied is not None:
            scores[own_denied.pairs()] = -np.inf
        if own_allowed is not None:
            rows, items = own_allowed.pairs()
            kept = scores[rows, items]
            scores[own_allowed.named] = -np.inf
            scores[rows, items] = kept
        return best_of(scores, k)

    def _by_index(
        self, histories: Histories, k: int, hidden: Histories | None, allowed: Bools | None
    ) -> tuple[Int64, Floats]:
        """Codes and scores (n, k) of the best candidates of the index."""
        if self.index is None:
            raise ConfigError("the export has no index: write it with index=True, or leave approximate out.")
        queries = self.queries(histories)
        stride = self.n_items + 1
        keys = np.zeros(0, dtype=np.int64)
        if hidden is not None:
            rows, items = hidden.seen()
            keys = np.unique(rows * stride + items)

        def score(rows: Int64, codes: Int64) -> Floats:
            values = self.score_items(queries[rows], codes)
            _require_finite(values[codes > 0])
            return values

        def excluded(rows: Int64, codes: Int64) -> Bools:
            banned = np.isin(rows[:, None] * stride + codes, keys)
            if self.cold is not None:
                banned |= np.isin(codes, self.cold)
            return banned if allowed is None else banned | ~allowed[codes]

        def exact(rows: Int64) -> tuple[Int64, Floats]:
            return self.top_k(
                histories.select(rows),
                k,
                exclude_seen=hidden is not None,
                seen=None if hidden is None else hidden.select(rows),
                allowed=allowed,
            )

        more = self._repeated(queries)[0] if self._has_pairs else None
        return self.index.top_k(self._directions(queries), k, score, excluded, exact, more)

    @property
    def _width(self) -> int:
        return int(self.table.shape[1])

    def _directions(self, queries: Floats) -> Floats:
        """Part (n, width) of the queries whose product with an item vector is its score."""
        return queries[:, : self._width]

    def _repeated(self, queries: Floats) -> tuple[Int64, Floats]:
        """Item codes (n, r), 0 = none, and additions (n, r)."""
        pairs = queries[:, self._width + self.offset :].reshape(len(queries), -1, 2)
        return pairs[..., 0].astype(np.int64), pairs[..., 1]


_checked = checked_except("histories", "users", "times", "allow", "deny")


class OnnxRecommender:
    """Recommendations for raw ids from an exported model, without torch.

    Parameters
    ----------
    folder
        Folder that `Recommender.to_onnx` or `segue export --to onnx` wrote.
    threads
        Threads of each computation of the encoder.
    verify
        Compare checksums first.

    Raises
    ------
    StorageError
        The folder is missing, damaged, altered, or of a newer format.
    ConfigError
        onnxruntime is not installed.

    Examples
    --------
    >>> data = segue.simulate(40, 6, names=True).dataset()
    >>> training = segue.Training(epochs=1, cpu=True)
    >>> recommender = segue.fit(segue.SASRec(width=8, blocks=1), data, training=training, quiet=True)
    >>> exported = segue.OnnxRecommender(recommender.to_onnx("exported"))
    >>> [len(answer) for answer in exported.recommend([["beer-03", "beer-04"], ["beer-07"]], k=2)]
    [2, 2]
    """

    @checked
    def __init__(self, folder: str | Path, *, threads: Count = 1, verify: bool = True) -> None:
        self.scorer = OnnxScorer.open(folder, threads=threads, verify=verify)
        self.items: Ids = files.read_ids(Path(folder) / files.ITEM_IDS, self.scorer.n_items)
        self._users = Path(folder) / files.USER_IDS

    @cached_property
    def users(self) -> Ids | None:
        """Users that the model knows; None if its answers depend on the histories alone."""
        return files.read_ids(self._users, self.scorer.n_users) if "users" in self.scorer.inputs else None

    @_checked
    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        k: Count = 10,
        users: Sequence[Any] | None = None,
        times: Sequence[Sequence[int]] | None = None,
        exclude_seen: bool = True,
        allow: Sequence[Any] | None = None,
        deny: Sequence[Any] | None = None,
        approximate: bool = False,
    ) -> list[list[tuple[int | str, float]]]:
        """Recommend the k items that are most likely to come next.

        Parameters
        ----------
        histories
            Raw ids of the items of each history, oldest first. Unknown items are left out.
        k
            Length of each list.
        users
            Raw id of the user of each history, for models with vectors of users; unknown users are allowed.
        times
            Times of the items, in the unit of the Dataset, for models that read times.
        exclude_seen
            Leave out the items of the history.
        allow, deny
            Raw ids of the only items that may be recommended, and of items that may not.
        approximate
            Take candidates from the index of the export.

        Returns
        -------
        list of lists of pairs
            Raw ids and scores, best first. The list of a history without a known item is empty.

        Raises
        ------
        ConfigError
            k is above the size of the catalogue, or the export has no index.
        DataError
            Users or times do not match the histories.
        """
        batch = self._histories(histories, users, times)
        rows = np.flatnonzero(batch.lengths)
        lists: list[list[tuple[int | str, float]]] = [[] for _ in range(len(batch))]
        if not len(rows):
            return lists
        codes, scores = self.scorer.top_k(
            batch.select(rows),
            k,
            exclude_seen=exclude_seen,
            allowed=self._allowed(allow, deny),
            approximate=approximate,
        )
        for row, own, values in zip(rows.tolist(), codes, scores.tolist(), strict=True):
            lists[row] = list(zip(self.items.decode(own[own > 0]), values, strict=False))
        return lists

    def _histories(self, histories: Any, users: Any, times: Any) -> Histories:
        """Histories of codes, without unknown items."""
        if isinstance(histories, str | Mapping) or any(isinstance(one, str | int) for one in histories):
            raise DataError("histories are lists of raw ids, one list for each user, such as [['tea', 'milk']].")
        lengths = np.array([len(one) for one in histories], dtype=np.int64)
        codes = self.items.encode([raw_id for one in histories for raw_id in one])
        flat_times = None
        if times is not None:
            if [len(one) for one in times] != lengths.tolist():
                raise DataError("times are lists of numbers, as long as the histories.")
            flat_times = np.array([time for one in times for time in one], dtype=np.int64)
        if users is not None and (isinstance(users, str) or len(users) != len(lengths)):
            raise DataError(f"{len(lengths):,} histories need as many users, in a list.")
        user_codes = np.zeros(len(lengths), dtype=np.int64)
        if users is not None and self.users is not None:
            user_codes = self.users.encode(users)
        known = codes > 0
        ends = offsets_of(lengths)
        counts = np.bincount(rows_of(ends[:-1], ends[1:])[known], minlength=len(lengths))
        offsets = offsets_of(counts)
        kept_times = None if flat_times is None else flat_times[known]
        return Histories(user_codes, codes[known].astype(np.int32), offsets[:-1], offsets[1:], kept_times)

    def _allowed(self, allow: Sequence[Any] | None, deny: Sequence[Any] | None) -> Bools | None:
        """Mask (n_items + 1,) of the items that may be recommended; None for all."""
        if allow is None and deny is None:
            return None
        mask = np.full(self.scorer.n_items + 1, allow is None)
        if allow is not None:
            mask[self.items.encode(allow)] = True
        if deny is not None:
            mask[self.items.encode(deny)] = False
        mask[0] = False
        return mask


def padded_inputs(arrays: HistoryArrays, max_length: int, repeats: bool) -> HistoryArrays:
    """The same arrays, with at least two columns of items (or `max_length`) and of repeats, by padding."""
    columns = max(0, min(_SHORTEST, max_length) - arrays.items.shape[1])
    if columns:
        arrays = arrays._replace(items=_widened(arrays.items, columns))
        if arrays.ages.shape[1]:
            unknown = arrays.ages[:, :1] < 0
            arrays = arrays._replace(ages=np.where(unknown, -1, _widened(arrays.ages, columns)))
    missing = max(0, _SHORTEST - arrays.repeated.shape[1]) if repeats else 0
    if missing:
        features = np.pad(arrays.features, ((0, 0), (0, missing), (0, 0)), constant_values=1)
        arrays = arrays._replace(repeated=_widened(arrays.repeated, missing), features=features)
    return arrays


def _transitions(folder: Path, n_items: int) -> TransitionCounts:
    """Counted transitions of an export."""
    places = {name: folder / files.TRANSITIONS.format(name) for name in TransitionCounts._fields}
    offsets = files.read_array(places["offsets"], np.int64, (n_items + 2,))
    followers = files.read_array(places["followers"], np.int32, (None,))
    counts = files.read_array(places["counts"], np.float32, (len(followers),))
    transitions = TransitionCounts(offsets, followers, counts)
    fault = transitions.fault()
    if fault is not None:
        raise StorageError(f"{folder}: {fault}: it was damaged or edited.")
    return transitions


def _widened(array: Int64, columns: int) -> Int64:
    return np.pad(array, ((0, 0), (0, columns)))


def _require_finite(scores: Floats) -> None:
    if not np.isfinite(scores).all():
        raise EvaluationError("the model gives scores that are not finite: it cannot rank with them.")


def _session(path: Path, threads: int) -> Any:
    """Session of onnxruntime with an encoder, on the CPU."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError(f"an exported model needs onnxruntime ({error}): pip install onnxruntime.") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each failure
        raise StorageError(f"{path} is no encoder that onnxruntime reads here: {error}") from None
