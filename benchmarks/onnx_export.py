"""Exported model beside torch on Games: equal lists, time of one list on one core, size of an environment.

    python benchmarks/onnx_export.py [--epochs 3]

The data are Amazon Video Games (23,715 items), and the model is `SASRec()` with seed 0, untrained (`--epochs 0`) or
trained for a few epochs on all but the last item of each user. Lists of ten items, without seen ones, are made for
all users by torch and by onnxruntime. Lists that differ are counted, and the largest gap between torch's scores at
the ranks that differ tells ties apart from errors. One by one, `OnnxScorer.top_k` answers 2,000 users on one thread,
with every item of the catalogue; p50 and p99 are over these. The environment is a new one with numpy, onnxruntime and
segue without its other requirements; its size is that of `site-packages` without pip.
The result goes to results/onnx_export.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import common
import numpy as np
import torch

import segue
from segue.inference.onnx.reading import OnnxScorer
from segue.inference.scoring.ranking import top_k

K, ONE_BY_ONE = 10, 2_000
ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys, segue
reader = segue.OnnxRecommender(sys.argv[1])
assert len(reader.recommend([reader.items.ids[:3]])[0]) == 10 and "torch" not in sys.modules
"""


def lists(recommender: segue.Recommender, folder: Path) -> dict[str, object]:
    """Equality of the lists of all users, and times one by one."""
    scorer, data = OnnxScorer.open(folder), recommender.dataset
    users = np.flatnonzero(data.lengths)
    histories = data.histories(users)
    expected, scores = top_k(recommender.scorer, histories, K)
    codes, own = scorer.top_k(histories, K)
    differ = (codes != expected).any(1)
    same_items = (np.sort(codes, 1) == np.sort(expected, 1)).all(1)
    chosen = np.random.default_rng(0).choice(len(users), ONE_BY_ONE, replace=False)
    taken = []
    for row in chosen:
        one = histories.select(np.array([row]))
        begun = time.perf_counter()
        scorer.top_k(one, K)
        taken.append(time.perf_counter() - begun)
    half, rare = (round(1e3 * float(np.quantile(taken[50:], share)), 3) for share in (0.5, 0.99))
    return {
        "users": len(users),
        "items": data.n_items,
        "users_with_the_same_ten_items": int(same_items.sum()),
        "users_with_another_order_or_item": int(differ.sum()),
        "largest_difference_of_scores": float(np.abs(own - scores)[codes == expected].max()),
        "largest_gap_at_differing_ranks": float(np.abs(own - scores)[codes != expected].max(initial=0)),
        "p50_ms": half,
        "p99_ms": rare,
    }


def environment(folder: Path) -> dict[str, object]:
    """Size of an environment that reads the export, in megabytes."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place) / "bin" / "python"
        pinned = ["-c", str(ROOT / "constraints.txt")]
        install = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*install, *pinned, "numpy", "onnxruntime"], check=True)
        subprocess.run([*install, "--no-deps", str(ROOT)], check=True)
        subprocess.run([str(python), "-c", PROGRAM, str(folder)], check=True, env={})
        packages = next((Path(place) / "lib").glob("python*")) / "site-packages"
        sizes: dict[str, int] = {}
        for file in packages.rglob("*"):
            name = file.relative_to(packages).parts[0]
            if file.is_file() and not name.startswith(("pip", "setuptools")) and "__pycache__" not in file.parts:
                sizes[name] = sizes.get(name, 0) + file.stat().st_size
        largest = sorted(sizes, key=lambda name: -sizes[name])[:6]
        return {"mb": round(sum(sizes.values()) / 1e6), "largest_mb": {n: round(sizes[n] / 1e6) for n in largest}}


def main() -> None:
    """Train, export, compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="0 leaves the model untrained")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "onnx-games", help="run and export")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, exported = options.folder / "run", options.folder / "exported"
    if not exported.exists():
        split = segue.leave_last_out(common.dataset("games"))
        if options.epochs:
            training = segue.Training(epochs=options.epochs, seed=0, cpu=True)
            recommender = segue.fit(segue.SASRec(), split, training=training)
        else:
            torch.manual_seed(0)
            config = segue.SASRec().resolved(split.train)
            model = config.build(split.train.n_users, split.train.n_items)
            model.prepare(split.train)
            recommender = segue.Recommender(model, split.train)
        recommender.save(run)
        recommender.to_onnx(exported)
    result = {
        "protocol": " ".join(str(__doc__).split("\n\n")[2].split()),
        "seed": 0,
        "epochs": options.epochs,
        "lists": lists(segue.load(run), exported),
        "environment": environment(exported),
        "machine": common.machine(),
        "versions": common.versions("numpy", "torch", "onnx", "onnxruntime", "onnxscript"),
    }
    (common.RESULTS / "onnx_export.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    sys.exit(main())
