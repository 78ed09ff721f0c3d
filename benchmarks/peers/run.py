"""segue and other libraries on the same data, split, seed and number of threads, with one evaluator.

    python benchmarks/peers/run.py --data ml-100k                              # all systems, one after the other
    python benchmarks/peers/run.py --data games --peer rectools-bce --epochs 6

Each library runs in its own environment, made from the package index (see `environments.py`). It gets plain files and
returns lists of ten, seconds and memory (`handover.py`). segue.evaluate_lists measures the lists, and ir-measures
measures them again.

By default a model is trained on all but the last two items of each user and validated every `--check` epochs on the
last but one item. The epoch with the best NDCG@10 is chosen. The model is trained anew on all but the last item and
tested on that item. `--check 0` trains for `--epochs` without a choice. Every run is saved in results/peers_<data>.json
when it ends; `--table` prints the stored runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
import polars as pl

sys.path.insert(0, str(Path(__file__).parent.parent))
import common
import judge

import segue

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """System in one setting."""

    environment: str | None
    """Folder under the environments; None is the Python that runs this script."""
    setting: str
    """Setting for its script."""
    epochs: dict[str, int]
    """Default maximum of epochs on each dataset."""
    check: int
    """Default epochs between validations. On MovieLens 100K, with epochs of a few steps, validation is five times rarer
    for a system that is trained for a hundred epochs."""

    @property
    def script(self) -> Path:
        """Script of the system."""
        return HERE / f"peer_{self.environment or 'segue'}.py"


def _epochs(games: int, beauty: int, movies: int) -> dict[str, int]:
    return {"games": games, "beauty": beauty, "ml-100k": movies}


PEERS = {
    "segue": Peer(None, "defaults", _epochs(30, 60, 40), 5),
    "segue-notebook": Peer(None, "notebook", _epochs(12, 12, 100), 4),
    "rectools-bce": Peer("rectools", "bce", _epochs(6, 12, 100), 2),
    "rectools-softmax": Peer("rectools", "softmax", _epochs(4, 12, 40), 2),
    "rectools-ligr": Peer("rectools", "ligr", _epochs(2, 10, 20), 2),
    "replay-sasrec": Peer("replay", "ce", _epochs(4, 10, 40), 2),
    "recommenders-sasrec": Peer("recommenders", "sasrec", _epochs(10, 10, 100), 5),
    "recommenders-ssept": Peer("recommenders", "ssept", _epochs(10, 10, 100), 5),
    "recbole-sasrec": Peer("recbole", "defaults", _epochs(1, 1, 2), 1),
}
K = 10


def ask(
    peer: Peer,
    options: argparse.Namespace,
    train: segue.Dataset,
    parts: dict[str, segue.Holdout],
    epochs: int,
    check: int,
) -> judge.Answer:
    """Train one model on one view of the data and validate the parts every `check` epochs (0: at the end)."""
    python = sys.executable if peer.environment is None else environments.interpreter(peer.environment, options.envs)
    checks = sorted({*(range(check, epochs + 1, check) if check else ()), epochs})
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {name: str(options.threads) for name in names} | {"TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory(prefix="peers-") as place:
        folder = Path(place)
        _hand_over(folder / "train.csv", train)
        for name, holdout in parts.items():
            _hand_over(folder / f"{name}_histories.csv", holdout.training_view(), holdout.users)
            pl.DataFrame({"user": holdout.users}).write_csv(folder / f"{name}_users.csv")
        request = {
            "setting": peer.setting,
            "data": options.data,
            "epochs": epochs,
            "checks": checks,
            "n_users": train.n_users,
            "n_items": train.n_items,
            "seed": options.seed,
            "k": K,
            "parts": list(parts),
        }
        (folder / "request.json").write_text(json.dumps(request))
        done = subprocess.run(
            [str(python), str(peer.script), place],
            cwd=place,
            env=os.environ | settings,  # RecBole writes into the current folder
            stdout=subprocess.DEVNULL,
        )
        if done.returncode:
            raise SystemExit(f"{peer.script.name} ended with {done.returncode}; its messages are above.")
        return judge.Answer.read(folder, checks, parts)


def _hand_over(path: Path, data: segue.Dataset, users: Any = None) -> None:
    """Write the visible interactions as codes, with positions in the history as times, so that all libraries break ties
    equally."""
    shown = data.to_frame()
    frame = pl.DataFrame({"user": data.users.encode(shown["user"]), "item": data.catalogue.encode(shown["item"])})
    if users is not None:
        frame = frame.filter(pl.col("user").is_in(pl.Series(users).implode()))
    frame.with_columns(time=pl.int_range(1, pl.len() + 1).over("user")).write_csv(path)


def run(name: str, options: argparse.Namespace, split: segue.Split) -> dict[str, Any]:
    """Run one system: choose the epoch on validation, if requested; train as long on all but the last item; test."""
    peer = PEERS[name]
    epochs = options.epochs or peer.epochs[options.data]
    check = options.check if options.check is not None else peer.check * (5 if epochs >= 100 else 1)
    result: dict[str, Any] = {"peer": name, "seed": options.seed, "threads": options.threads, "data": options.data}
    answers = []
    if check:
        asked = split.validation.sample(options.validation_users, options.seed)
        parts = {"validation": asked} | ({} if options.refit else {"test": split.test})
        first = ask(peer, options, split.train, parts, epochs, check)
        rows = judge.curve(first, asked)
        best = max(rows, key=lambda row: row[judge.NDCG])
        epochs = int(best["epoch"])
        result |= {"curve": rows, "seconds_to_95_percent": judge.reached(rows, 0.95 * best[judge.NDCG])}
        answers.append(first)
        if not options.refit:
            result["test"] = judge.measure(first.lists["test", epochs], split.test)
    if options.refit or not check:
        answers.append(ask(peer, options, split.refit, {"test": split.test}, epochs, 0))
        result["refit_test"] = judge.measure(answers[-1].lists["test", epochs], split.test)
    chosen = "fixed" if not check else "chosen, trained again" if options.refit else "chosen"
    return result | {"protocol": chosen, "epochs": epochs} | measurements(answers) | common.provenance()


def measurements(answers: list[judge.Answer]) -> dict[str, Any]:
    """Speed and memory over the trainings of one system; recommending is timed on the test users."""
    last = answers[-1].report
    seconds = [second for answer in answers for second in answer.report["epoch_seconds"]]
    recommending = [row for row in last["recommending"] if row["part"] == "test"]
    return {
        "seconds_per_epoch": min(seconds),
        "epoch_seconds": seconds,
        "recommended_users": recommending[-1]["users"],
        "recommended_users_per_second": round(max(row["users"] / min(row["seconds"]) for row in recommending), 1),
        "sampled_users_per_second": last.get("sampled_evaluation_users_per_second"),
        **{part: max(answer.report[part] for answer in answers) for part in ("peak_memory_training", "peak_memory")},
        "cpu_seconds": round(sum(answer.report["cpu_seconds"] for answer in answers), 1),
        "settings": last["settings"],
        "peer_versions": last["versions"],
    }


def subset(data: segue.Dataset, users: int | None, seed: int) -> segue.Dataset:
    """Dataset of a sample of the users, drawn from the seed, for trials."""
    if users is None or users >= data.n_users:
        return data
    frame = data.to_frame()
    kept = frame["user"].unique(maintain_order=True).sample(users, seed=seed)
    return segue.prepare(frame.filter(pl.col("user").is_in(kept.implode())), duplicates="keep")


def add_circumstances(parser: argparse.ArgumentParser) -> None:
    """Add the options that `ask` needs besides the data: seed, threads, environments."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--envs", type=Path, default=environments.DEFAULT, help="folder of the environments")


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=common.DATA, default="ml-100k")
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--epochs", type=int, help="most epochs; each peer has its own default")
    parser.add_argument("--check", type=int, help="epochs between validations; 0 chooses nothing")
    parser.add_argument("--no-refit", dest="refit", action="store_false", help="test the chosen model")
    parser.add_argument("--validation-users", type=int, default=5_000, help="number of users who choose the epoch")
    parser.add_argument("--users", type=int, help="a sample of users, for trials; nothing is stored")
    add_circumstances(parser)
    parser.add_argument("--install", action="store_true", help="make the environments only")
    parser.add_argument("--table", action="store_true", help="print the stored runs only")
    return parser.parse_args()


def main() -> None:
    """Run the requested systems; each run is saved when it ends."""
    options = arguments()
    stored = f"peers_{options.data}"
    if options.install:
        for environment in dict.fromkeys(PEERS[name].environment for name in options.peer):
            if environment:
                environments.interpreter(environment, options.envs)
        return
    runs: list[dict[str, Any]] = []
    if not options.table:
        split = segue.leave_last_out(subset(common.dataset(options.data), options.users, options.seed))
        what = f"{common.DATA[options.data]}, leave-last-out, all items ranked, seen items left out"
        for name in options.peer:
            print(f"{name} on {options.data}", flush=True)
            runs.append(run(name, options, split))
            print(judge.table(runs[-1:]), flush=True)
            if not options.users:
                common.add_run(stored, what, runs[-1], key=("peer", "seed", "protocol", "threads"))
    if not options.users:
        runs = json.loads((common.RESULTS / f"{stored}.json").read_text())["runs"]
    print(judge.table(runs))


if __name__ == "__main__":
    main()
