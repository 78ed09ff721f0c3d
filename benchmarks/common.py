"""Parts that the benchmarks share: public datasets, facts about the machine, and results that grow run by run."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segue

if TYPE_CHECKING:
    import torch

RESULTS = Path(__file__).parent / "results"
DATA = {"games": "amazon-games/Video.txt", "beauty": "amazon-beauty/Beauty.txt", "ml-100k": "ml-100k/u.data"}
SESSIONS = "parsrec/synthetic.txt"
BASKETS = "complete-journey/transactions.parquet"

NOTEBOOK = segue.SASRec.as_published(width=100, dropout=0.1, max_length=50)
"""Setting of Microsoft's notebook: one-negative BCE, two blocks, one head."""
NOTEBOOK_TRAINING = segue.Training(batch_size=128, averaging=0.0, patience=None)
"""Training options of that notebook, except the optimizer's β2."""


def dataset(name: str, **filters: Any) -> segue.Dataset:
    """Public dataset in the folder that SEGUE_TEST_DATA names; `filters` as for `segue.prepare`."""
    return segue.prepare(data_folder() / DATA[name], duplicates="keep", **filters)


def session_dataset() -> segue.Dataset:
    """Simulated sessions that come with PARSRec's program: 1,024 users with 100 each, 2,000 items."""
    return segue.prepare(data_folder() / SESSIONS)


def basket_dataset() -> segue.Dataset:
    """A year of grocery baskets, "The Complete Journey": households and products with five interactions or more."""
    return segue.prepare(
        data_folder() / BASKETS,
        user="household_id",
        item="product_id",
        session="basket_id",
        time="transaction_timestamp",
        rating=False,
        k_core=5,
    )


def data_folder() -> Path:
    """Folder of the public datasets."""
    folder = os.environ.get("SEGUE_TEST_DATA")
    if not folder:
        raise SystemExit(
            "Set SEGUE_TEST_DATA to the folder that holds " + ", ".join([*DATA.values(), SESSIONS, BASKETS]) + "."
        )
    return Path(folder)


def machine() -> dict[str, object]:
    """Hardware of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, segue and the named packages."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("segue", *packages)
    }


def today() -> str:
    """Date in the format of the results."""
    return dt.date.today().isoformat()


def provenance() -> dict[str, Any]:
    """Date, versions and hardware of a run."""
    import torch

    return {
        "date": today(),
        "versions": versions("torch", "numpy"),
        "hardware": machine() | {"threads": torch.get_num_threads()},
    }


def speed_of_products(
    size: int = 1024, device: str = "cpu", dtype: torch.dtype | None = None, repeats: int = 20
) -> float:
    """Floating-point operations per second of a product of two size × size matrices, the best of several."""
    import torch

    left, right = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        settle(device)
        begun = time.perf_counter()
        torch.mm(left, right)
        settle(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


def settle(device: str) -> None:
    """Wait until a GPU has finished its work; no clock is right before that."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `<name>.json` in the folder of results, or in another."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def read(name: str) -> dict[str, Any]:
    """Content of `results/<name>.json`; empty if the file is missing."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def add_run(name: str, what: str, run: dict[str, Any], key: tuple[str, ...] = ("model", "seed")) -> None:
    """Add one run to `results/<name>.json`, replacing an earlier one with the same key, and summarise all runs."""
    runs = read(name).get("runs", [])
    runs = [other for other in runs if any(other.get(part) != run[part] for part in key)]
    runs = sorted([*runs, run], key=lambda one: [str(one[part]) for part in key])
    by_model = {"summary": summary(runs)} if all("model" in one for one in runs) else {}
    write(name, {"what": what, **by_model, "runs": runs})


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of each model's metrics, for each part of a benchmark that has parts."""

    def label(run: dict[str, Any]) -> str:
        return f"{run['part']}: {run['model']}" if "part" in run else str(run["model"])

    found: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(map(label, runs)):
        rows = [run for run in runs if label(run) == model]
        figures: dict[str, float] = {"seeds": len(rows)}
        for part in ("validation", "test", "refit_test"):
            for metric in rows[0].get(part, {}):
                values = [row[part][metric] for row in rows]
                figures[f"{part} {metric}"] = round(statistics.mean(values), 4)
                if len(values) > 1:
                    figures[f"{part} {metric} sd"] = round(statistics.stdev(values), 4)
        found[model] = figures
    return found
