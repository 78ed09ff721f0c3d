"""Approximate search in a million item vectors: its recall, and its speed beside exact lists.

    OMP_NUM_THREADS=1 python benchmarks/index.py [--kinds clustered random] [--items 1000000]

Vectors have 64 columns and norm 1, as those of `SASRec()`. "clustered" vectors lie around 2,000 centres, and a query
lies around a centre, as a trained model makes them. "random" vectors and queries are uniform on the sphere, the hardest
case. The index is built with the defaults of `Recommender.build_index`: half of 2,000 queries choose the effort for a
recall of 0.98. The recall below is that of 1,000 further queries. One user is answered at a time, on one thread, k is
10, and the nine items of the history are left out. Exact lists are those of `Recommender.recommend` without an index;
"bare" are one product and `topk` of torch. The three take turns, and a ratio is that of the medians. The result goes to
results/index.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import common
import numpy as np
import numpy.typing as npt
import torch

from segue.data.histories import Histories
from segue.inference.index import ItemIndex
from segue.inference.scorer import Scorer
from segue.inference.scoring.indexed import top_k_by_index
from segue.inference.scoring.ranking import top_k
from segue.models.base import Model
from segue.models.scores import ProductScores

WIDTH, K, SEEN, CENTRES, ROUNDS, QUERIES = 64, 10, 9, 2_000, 100, 1_000
SPREAD = 0.5
"""Norm of the noise around a centre of norm 1."""

Floats = npt.NDArray[np.float32]


class Ready(Model):
    """Model with ready-made queries of user codes."""

    max_history = 1

    def __init__(self, queries: Floats, vectors: Floats) -> None:
        super().__init__(None, len(queries) - 1, len(vectors) - 1)  # type: ignore[arg-type]
        self.queries, self.vectors = torch.from_numpy(queries), torch.from_numpy(vectors)

    def inputs(self, histories: Histories) -> tuple[torch.Tensor]:
        """Codes of the users."""
        return (torch.from_numpy(histories.users),)

    def encode(self, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        """Queries of the users."""
        return self.queries[inputs[0]]

    def scores(self) -> ProductScores:
        """Products with the vectors."""
        return ProductScores(self.vectors)


def unit(vectors: Floats) -> Floats:
    """Vectors of norm 1."""
    out: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return out


def made(kind: str, n_items: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Item vectors (n_items + 1, width), and queries for building and for measuring."""
    n_queries = 2_000 + QUERIES

    def normal(n: int) -> Floats:
        return rng.standard_normal((n, WIDTH), dtype=np.float32)

    if kind == "random":
        return unit(normal(n_items + 1)), unit(normal(n_queries))
    centres = unit(normal(CENTRES))
    spread = np.float32(SPREAD / np.sqrt(WIDTH))
    vectors = centres[rng.integers(0, CENTRES, n_items + 1)] + spread * normal(n_items + 1)
    return unit(vectors), unit(centres[rng.integers(0, CENTRES, n_queries)] + spread * normal(n_queries))


def measured(kind: str, n_items: int, folder: Path, build_only: bool) -> dict[str, object]:
    """Recall, and the medians of exact and approximate lists in milliseconds."""
    rng = np.random.default_rng(0)
    vectors, queries = made(kind, n_items, rng)
    if not folder.exists():
        begun = time.process_time()
        ItemIndex.build(vectors, queries[:2_000], threads=1).save(folder)
        (folder.parent / f"{folder.name}.seconds").write_text(str(round(time.process_time() - begun)))
    if build_only:
        return {}
    index = ItemIndex.open(folder)
    built = int((folder.parent / f"{folder.name}.seconds").read_text())
    own = np.concatenate([np.zeros((1, WIDTH), dtype=np.float32), queries[2_000:]])
    scorer = Scorer.of(Ready(own, vectors))
    users = np.arange(1, QUERIES + 1)
    flat = rng.integers(1, n_items + 1, SEEN * QUERIES).astype(np.int32)
    histories = Histories(users, flat, SEEN * (users - 1), SEEN * users)
    exact = top_k(scorer, histories, K)[0]
    near = top_k_by_index(scorer, index, histories, K, seen=histories)[0]
    recall = float((exact[:, :, None] == near[:, None, :]).any(2).mean())
    seen = flat.reshape(QUERIES, SEEN)
    assert not (near[:, :, None] == seen[:, None, :]).any() and (near > 0).all()
    ways = {
        "bare": lambda one: torch.mm(scorer.queries(one), scorer.items.vectors.T).topk(K),
        "exact": lambda one: top_k(scorer, one, K),
        "index": lambda one: top_k_by_index(scorer, index, one, K, seen=one),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-3, ROUNDS):
        one = histories.select(np.array([number % QUERIES]))
        for name, ask in ways.items():
            before = time.perf_counter()
            ask(one)
            if number >= 0:
                taken[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "items": n_items,
        "recall_at_10": round(recall, 4),
        "recall_told_when_built": round(index.recall, 4),
        "effort": index.effort,
        "build_cpu_seconds": built,
        "graph_mb": round(index.graph.memory_usage / 1e6),
        **{f"{name}_ms": round(1e3 * value, 3) for name, value in medians.items()},
        "times_as_fast_as_exact": round(medians["exact"] / medians["index"], 1),
        "times_as_fast_as_bare": round(medians["bare"] / medians["index"], 1),
    }


def main() -> None:
    """Measure every kind, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["clustered", "random"])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--indexes", type=Path, default=Path("build/indexes"), help="folder of built indexes")
    parser.add_argument("--build-only", action="store_true", help="build the indexes, and measure in a second run")
    options = parser.parse_args()
    options.indexes.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = common.RESULTS / "index.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for kind in options.kinds:
        folder = options.indexes / f"{kind}-{options.items}"
        figures = measured(kind, options.items, folder, options.build_only)
        if options.build_only:
            continue
        print(kind, json.dumps(figures), flush=True)
        results[f"{kind} {options.items}"] = figures
        results["protocol"] = " ".join(str(__doc__).split("\n\n")[2].split())
        results |= {"machine": common.machine(), "versions": common.versions("numpy", "torch", "usearch", "numkong")}
        path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
