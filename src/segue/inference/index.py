"""Approximate search: the items with the largest products with a query, without a look at the whole catalogue.

The index is a graph of near neighbours (HNSW, Malkov & Yashunin 2020, by the package usearch). It proposes candidates,
and the model scores them exactly, so only the choice of the candidates is approximate. The largest product is turned
into the nearest neighbour by one more coordinate, √(M² − |x|²), with M the largest norm of an item vector (Bachrach et
al., RecSys 2014).

This module imports no torch, so that exports can be read without it.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64
from segue.errors import ConfigError, StorageError
from segue.files import atomic_folder, read_manifest, whole_number, write_manifest

Floats = npt.NDArray[np.float32]

MANIFEST = "index.json"
FORMAT_VERSION = 1
_KIND = "index"
_GRAPH = "graph.usearch"
_DEGREE = 16
"""Neighbours of a node of the graph."""
_EFFORT = 128
"""Candidates that are looked at for each new node."""
_EFFORTS = (16, 32, 64, 128, 256, 512, 1024)
"""Candidates that a search may look at; the smallest number with the recall that was asked for is taken."""
_ERRORS = 2
"""Standard errors by which the recall of the chosen effort must exceed the one asked for."""
_K = 10
"""Length of the lists whose recall is measured."""
_GROWTH = 4
"""Factor by which a search grows if rules leave too few candidates."""
_SHARE = 8
"""A list that a search for one in so many items does not fill is ranked exactly."""
_TINY = 1e-30
_FEW = 64
"""Queries from which a search starts several threads."""
_EVEN = 1e-3
"""Vectors whose norms differ by no more than this share need no further coordinate."""


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Index of the item vectors of a model, for catalogues of several hundred thousand items.

    `Recommender.build_index` makes one, and `recommend(…, index=…)` uses it. It needs `pip install 'segue[ann]'`.

    Attributes
    ----------
    graph
        The graph; its keys are item codes.
    n_items
        Number of item codes of the catalogue; cold items among them are not in the graph.
    width
        Width of the item vectors.
    fingerprint
        Hash of the item vectors.
    effort
        Number of candidates that a search looks at.
    recall
        Measured share of the ten best items that a search finds.

    Examples
    --------
    >>> data = segue.simulate(40, 6).dataset()
    >>> training = segue.Training(epochs=1, cpu=True)
    >>> recommender = segue.fit(segue.SASRec(width=8, blocks=1), data, training=training, quiet=True)
    >>> index = recommender.build_index(recall=0.5)
    >>> len(recommender.recommend(7, k=5, index=index))
    5
    """

    graph: Any
    n_items: int
    width: int
    fingerprint: str
    effort: int
    recall: float

    @classmethod
    def build(
        cls, vectors: Floats, queries: Floats, cold: Int64 | None = None, recall: float = 0.98, threads: int = 0
    ) -> ItemIndex:
        """Build the graph, and choose the effort by the recall on half of the queries; the other half measures it.

        Parameters
        ----------
        vectors
            (n_items + 1, width) float32 item vectors; row 0 is not used.
        queries
            (q, width) float32 queries, such as those of a sample of the users.
        cold
            (m,) codes of items to leave out.
        recall
            Share of the ten best items that a search should find.
        threads
            Number of threads; 0 for all cores.

        Raises
        ------
        ConfigError
            usearch is not installed, or there are fewer than two queries.
        """
        if len(queries) < 2:
            raise ConfigError(f"the recall is measured on queries: expected 2 or more, found {len(queries)}.")
        codes = np.arange(1, len(vectors), dtype=np.int64)
        if cold is not None and len(cold):
            codes = np.setdiff1d(codes, cold)
        points = _lifted(vectors)
        graph = _usearch().Index(
            ndim=points.shape[1], metric="ip", dtype="f16", connectivity=_DEGREE, expansion_add=_EFFORT
        )
        graph.add(codes.astype(np.uint64), points[codes], threads=threads)
        index = cls(graph, len(vectors) - 1, vectors.shape[1], fingerprint_of(vectors), _EFFORTS[0], 0.0)
        index._measure(vectors, queries, codes, recall)
        return index

    def _measure(self, vectors: Floats, queries: Floats, codes: Int64, wanted: float) -> None:
        """Choose the effort on the queries of even rows; measure the recall on the others."""
        best = _exact(vectors, queries, codes)

        def found(rows: slice) -> npt.NDArray[np.float64]:
            """Share of the best items of each query among its candidates."""
            candidates = self.candidates(queries[rows], 2 * best.shape[1])
            shares: npt.NDArray[np.float64] = (best[rows, :, None] == candidates[:, None, :]).any(2).mean(1)
            return shares

        for effort in _EFFORTS:
            object.__setattr__(self, "effort", effort)
            shares = found(slice(0, None, 2))
            if shares.mean() - _ERRORS * shares.std() / np.sqrt(len(shares)) >= wanted:
                break
        object.__setattr__(self, "recall", float(found(slice(1, None, 2)).mean()))

    def candidates(self, queries: Floats, n: int) -> Int64:
        """Codes (q, n) of the items with about the largest products with the queries (q, width); 0 = no item."""
        n = min(n, len(self.graph))
        effort = max(self.effort, n)
        if self.graph.expansion_search != effort:
            self.graph.expansion_search = effort
        lifted = np.zeros((len(queries), self.graph.ndim), dtype=np.float32)
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        lifted[:, : self.width] = queries / np.maximum(norms, _TINY)
        found = self.graph.search(lifted, n, threads=1 if len(queries) < _FEW else 0)
        if len(queries) == 1:
            codes = np.zeros((1, n), dtype=np.int64)
            codes[0, : len(found.keys)] = np.asarray(found.keys).ravel()
            return codes
        codes = np.asarray(found.keys).astype(np.int64)
        codes[np.arange(codes.shape[1]) >= np.asarray(found.counts)[:, None]] = 0
        return codes

    def top_k(
        self,
        queries: Floats,
        k: int,
        score: Callable[[Int64, Int64], Floats],
        excluded: Callable[[Int64, Int64], npt.NDArray[np.bool_]],
        exact: Callable[[Int64], tuple[Int64, Floats]],
        more: Int64 | None = None,
    ) -> tuple[Int64, Floats]:
        """Find the k best items for each query: candidates of the graph, scored and excluded exactly.

        A list that is not full gets more candidates. If it is not full with an eighth of the catalogue, it is ranked
        exactly.

        Parameters
        ----------
        queries
            (q, width).
        k
            Length of a list.
        score
            Function of rows (r,) and candidates (r, n) that gives their scores (r, n).
        excluded
            Function of rows (r,) and candidates (r, n) that tells which may not be in the list (r, n).
        exact
            Function of rows (r,) that gives codes and scores (r, k) of exact lists.
        more
            (q, m) further candidates of each query, 0 = none.

        Returns
        -------
        codes
            (q, k) int64, best first, equal scores by code; 0 if fewer than k items are left.
        scores
            (q, k) float32; −inf for code 0.
        """
        codes = np.zeros((len(queries), k), dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows, n = np.arange(len(queries)), 2 * k
        while len(rows):
            if _SHARE * n > len(self.graph):
                codes[rows], scores[rows] = exact(rows)
                break
            candidates = self.candidates(queries[rows], n)
            if more is not None:
                candidates = np.concatenate([candidates, more[rows]], axis=1)
            candidates = _without_repeats(candidates)
            values = score(rows, candidates)
            values[(candidates == 0) | excluded(rows, candidates)] = -np.inf
            codes[rows], scores[rows] = best_of(candidates, values, k)
            rows, n = rows[codes[rows, -1] == 0], _GROWTH * n
        return codes, scores

    def require(self, fingerprint: str | None, n_items: int) -> None:
        """Raise a ConfigError unless the index was built from item vectors with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise ConfigError(
                f"the index of {self.n_items:,} items was built from other item vectors than those of the model, which "
                f"has {n_items:,}: build it again, as by recommender.build_index()."
            )

    def save(self, path: str | Path, *, overwrite: bool | None = None) -> Path:
        """Write the index to a folder; an index that is there is replaced, unless `overwrite` is False.

        Raises
        ------
        StorageError
            `path` holds something that is no index.
        """
        with atomic_folder(Path(path), _KIND, overwrite) as folder:
            self.write(folder)
        return Path(path)

    def write(self, folder: Path) -> None:
        """Write the files of the index into a folder."""
        self.graph.save(str(folder / _GRAPH))
        content = {
            "items": self.n_items,
            "width": self.width,
            "item_vectors": self.fingerprint,
            "effort": self.effort,
            "recall": self.recall,
            "k": _K,
        }
        write_manifest(folder, MANIFEST, _KIND, FORMAT_VERSION, content)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> ItemIndex:
        """Open a folder that `save` wrote; `verify` compares checksums.

        Raises
        ------
        StorageError
            The folder is missing, damaged, altered, or of a newer format.
        ConfigError
            usearch is not installed.
        """
        folder = Path(path)
        manifest = read_manifest(folder, MANIFEST, _KIND, FORMAT_VERSION, verify=verify)
        numbers = {key: whole_number(manifest, key, folder / MANIFEST) for key in ("items", "width", "effort")}
        recall, fingerprint = manifest.get("recall"), manifest.get("item_vectors")
        if not isinstance(recall, float) or not isinstance(fingerprint, str):
            raise StorageError(f"{folder / MANIFEST} lacks the recall or the hash: it was damaged or edited.")
        try:
            graph = _usearch().Index.restore(str(folder / _GRAPH))
        except (RuntimeError, ValueError, OSError) as error:
            raise StorageError(f"{folder / _GRAPH} is no graph that usearch reads here: {error}") from None
        if graph is None or graph.ndim not in (numbers["width"], numbers["width"] + 1):
            raise StorageError(f"{folder / _GRAPH} is not the graph that {MANIFEST} describes: it was altered.")
        return cls(graph, numbers["items"], numbers["width"], fingerprint, numbers["effort"], recall)

    def __repr__(self) -> str:
        return f"ItemIndex({len(self.graph):,} items, recall@{_K} {self.recall:.4f}, effort {self.effort})"


def fingerprint_of(vectors: Floats) -> str:
    """Hash of item vectors."""
    return hashlib.sha256(np.ascontiguousarray(vectors, dtype=np.float32).data).hexdigest()


def best_of(codes: Int64, scores: Floats, k: int) -> tuple[Int64, Floats]:
    """The k best of candidates (n, m), by (score descending, code ascending); code 0 where the score is −inf."""
    order = np.lexsort((codes, -scores), axis=1)[:, :k]
    best, values = np.take_along_axis(codes, order, 1), np.take_along_axis(scores, order, 1)
    short = k - best.shape[1]
    if short > 0:
        best = np.pad(best, ((0, 0), (0, short)))
        values = np.pad(values, ((0, 0), (0, short)), constant_values=-np.inf)
    best[np.isneginf(values)] = 0
    return best, values


def _without_repeats(codes: Int64) -> Int64:
    """The same candidates (n, m), ascending, with 0 in place of repeats."""
    ordered = np.sort(codes, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = 0
    return ordered


def _lifted(vectors: Floats) -> Floats:
    """Vectors (n, width) divided by their largest norm; with one more coordinate if that makes their norms equal."""
    norms = np.linalg.norm(vectors, axis=1)
    largest = max(float(norms[1:].max(initial=0.0)), _TINY)
    scaled = (vectors / largest).astype(np.float32)
    if (norms[1:] >= (1 - _EVEN) * largest).all():
        return scaled
    lift = np.sqrt(np.maximum(1 - (norms / largest) ** 2, 0))
    return np.concatenate([scaled, lift[:, None]], axis=1).astype(np.float32)


def _exact(vectors: Floats, queries: Floats, codes: Int64) -> Int64:
    """Codes (q, ≤ 10) of the items with the largest products with the queries, among `codes`."""
    k = min(_K, len(codes))
    best = np.zeros((len(queries), k), dtype=np.int64)
    rows = max(1, (1 << 26) // max(1, len(codes)))
    table = vectors[codes]
    for first in range(0, len(queries), rows):
        products = queries[first : first + rows] @ table.T
        best[first : first + rows] = codes[np.argpartition(-products, k - 1, axis=1)[:, :k]]
    return best


def _usearch() -> Any:
    """The package usearch."""
    try:
        return importlib.import_module("usearch.index")
    except ImportError as error:
        raise ConfigError(
            f"an index needs the package usearch ({error}): pip install 'segue[ann]', or leave the index out."
        ) from None
