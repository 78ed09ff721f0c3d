"""Lists for everyone by workers: two against one, and an engine against the bare loop over the same parts.

    OMP_NUM_THREADS=1 python benchmarks/parts.py                # 200,000 users, 23,715 items; no other work meanwhile
    OMP_NUM_THREADS=1 python benchmarks/parts.py --users 20000 --print-only

Every way writes the same lists of ten items, part by part, to Parquet files:

- `bare`: a loop in this process, and nothing else: rank, make the frame, write the file;
- `alone`: `Recommender.export` in this process, with its locks, checksums and manifest;
- `processes-1`, `processes-2`: by processes of this machine, their start and imports included;
- `ray-1`, `ray-2`: by a Ray cluster of this machine; its start stands apart.

The ways take turns, each way as often as `--repeats` says, and the median counts. A part is that of users who follow
each other; its size is the default of folders. The model has random weights: its speed is that of a trained one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

import segue
from segue.data.ragged import offsets_of
from segue.data.vocabulary import Vocabulary
from segue.engines import workers as engines
from segue.engines.processes import Processes
from segue.inference import export
from segue.inference.asking.request import resolve_users
from segue.inference.export import Export
from segue.inference.recommender import Recommender
from segue.inference.scoring.lists import best_lists, list_frame
from segue.inference.scoring.popular import Rules
from segue.models.popularity import popularity

WAYS = ("bare", "alone", "processes-1", "processes-2", "ray-1", "ray-2")
K = 10


def made(users: int, items: int, length: int) -> Recommender:
    """A SASRec with random weights, and users with histories of 1 to 2 · `length` items, popular ones more often."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 2 * length, users)
    taken = np.minimum((items * rng.random(lengths.sum()) ** 3).astype(np.int32) + 1, items).astype(np.int32)
    dataset = segue.Dataset(
        items=taken,
        offsets=offsets_of(np.concatenate([[0], lengths])),
        users=Vocabulary(np.arange(users)),
        catalogue=Vocabulary(np.arange(items)),
    )
    return Recommender(segue.SASRec(repeats=False).build(users, items).eval(), dataset)


def bare(recommender: Recommender, folder: Path) -> None:
    """Write the lists by a plain loop."""
    data, scorer = recommender.dataset, recommender.scorer
    users = resolve_users(data, data, segue.EVERYONE, None, None, "skip", None)
    rules, shares = Rules(K), popularity(data)
    folder.mkdir()
    for number, part in enumerate(Export(folder).slices(len(users))):
        chosen = users.select(part)
        codes, scores = best_lists(scorer, chosen, rules, shares)
        list_frame(scorer, chosen, data.catalogue, codes, scores).write_parquet(folder / f"part-{number:06d}.parquet")


@contextmanager
def one_process() -> Iterator[None]:
    """Let a single process of its own do the parts; an Engine with one process takes this one."""
    original = export.run_parts

    def by_one(function: Any, parts: Any, _: Any, setup: Any = None) -> Any:
        with Processes(1, setup) as crew:
            yield from crew.run(function, parts)

    export.run_parts = by_one
    try:
        yield
    finally:
        export.run_parts = original


@contextmanager
def cluster(way: str) -> Iterator[float]:
    """Start a Ray cluster of this machine if a way needs it; yield the seconds that it took."""
    if not way.startswith("ray"):
        yield 0.0
        return
    import ray

    begun = time.perf_counter()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield time.perf_counter() - begun
    finally:
        ray.shutdown()


def written(way: str, recommender: Recommender, folder: Path) -> dict[str, float]:
    """Write the lists in one way; return wall-clock seconds, and those of the start of a cluster."""
    calls: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(recommender, folder),
        "alone": lambda: recommender.export(folder, segue.EVERYONE, k=K),
    }
    name, _, number = way.partition("-")
    with cluster(way) as start:
        begun = time.perf_counter()
        if way in calls:
            calls[way]()
        elif way == "processes-1":
            with one_process():
                recommender.export(folder, segue.EVERYONE, k=K)
        else:
            engine = segue.Engine("ray" if name == "ray" else "processes", processes=int(number))
            recommender.export(folder, segue.EVERYONE, k=K, engine=engine)
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "seconds_to_start_ray": start}


def rounded(run: dict[str, float]) -> dict[str, float]:
    """Seconds to two digits."""
    return {name: round(value, 2) for name, value in run.items()}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=23_715)
    parser.add_argument("--length", type=int, default=20, help="mean length of a history")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--print-only", action="store_true", help="write no result")
    options = parser.parse_args()
    assert engines.run_parts is export.run_parts
    recommender = made(options.users, options.items, options.length)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    lists: pl.DataFrame | None = None
    for _ in range(options.repeats):
        for way in options.ways:
            with tempfile.TemporaryDirectory(prefix="parts") as folder:
                runs[way].append(written(way, recommender, Path(folder) / "lists"))
                found = pl.read_parquet(Path(folder) / "lists" / "part-*.parquet")
                assert lists is None or found.equals(lists), f"{way} wrote other lists"
                lists = found
    medians = {way: statistics.median(run["seconds"] for run in ways) for way, ways in runs.items()}
    ratios = {
        f"{name}: {one} over {other}": round(medians[one] / medians[other], 3)
        for name, one, other in (
            ("overhead", "alone", "bare"),
            ("overhead", "processes-1", "bare"),
            ("overhead", "ray-1", "bare"),
            ("gain of two workers", "processes-1", "processes-2"),
            ("gain of two workers", "bare", "processes-2"),
            ("gain of two workers", "ray-1", "ray-2"),
        )
        if one in medians and other in medians
    }
    result = {
        "what": "Seconds to write lists of ten items for all users, by workers; the same lists in every way.",
        **common.provenance(),
        "users": options.users,
        "items": options.items,
        "mean_length": options.length,
        "users_per_part": 10_000,
        "model": recommender.model.config.to_dict(),
        "median_seconds": {way: round(value, 2) for way, value in medians.items()},
        "ratios": ratios,
        "runs": {way: [rounded(run) for run in ways] for way, ways in runs.items()},
    }
    print(json.dumps(result, indent=2))
    if not options.print_only:
        common.write("parts", result)


if __name__ == "__main__":
    main()
