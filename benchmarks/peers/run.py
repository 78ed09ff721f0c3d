"""segue and its rivals on the same data, split, seed and number of threads; one evaluator for everybody.

    python benchmarks/peers/run.py --data ml-100k                              # everybody, one after the other
    python benchmarks/peers/run.py --data games --peer rectools-bce --epochs 6

Each rival runs in its own environment, made from the package index (see `environments.py`), and gets plain files; it
gives back lists of ten, seconds and memory (`handover.py`). segue.evaluate_lists measures the lists, and ir-measures
measures them again. By default a model is trained on all but the last two items of each user and looked at every
`--check` epochs; the epoch with the best NDCG@10 on the last but one item is chosen, and the model is trained anew on
all but the last item, and tested on that. `--check 0` trains for `--epochs`, without a choice. Every rival is kept as
it ends, in results/peers_<data>.json; `--table` prints what is there.
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
    """A system in one setting."""

    environment: str | None
    """Its folder under the environments; None is the Python that runs this."""
    setting: str
    """What its script is told."""
    epochs: dict[str, int]
    """How long it is trained at most on each dataset, unless told otherwise."""
    check: int
    """How many epochs pass between two looks, unless told otherwise; on MovieLens 100K, whose epochs are a few steps,
    five times as many where it is trained for a hundred."""

    @property
    def script(self) -> Path:
        """What runs."""
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
    """Train one model on one view of the data and have it look at the parts every `check` epochs (0: at the end)."""
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
            env=os.environ | settings,  # RecBole writes where it stands
            stdout=subprocess.DEVNULL,
        )
        if done.returncode:
            raise SystemExit(f"{peer.script.name} ended with {done.returncode}; its messages are above.")
        return judge.Answer.read(folder, checks, parts)


def _hand_over(path: Path, data: segue.Dataset, users: Any = None) -> None:
    """What is visible, as codes; times are places in the history, so that nobody breaks ties in another way."""
    shown = data.to_frame()
    frame = pl.DataFrame({"user": data.users.encode(shown["user"]), "item": data.catalogue.encode(shown["item"])})
    if users is not None:
        frame = frame.filter(pl.col("user").is_in(pl.Series(users).implode()))
    frame.with_columns(time=pl.int_range(1, pl.len() + 1).over("user")).write_csv(path)


def run(name: str, options: argparse.Namespace, split: segue.Split) -> dict[str, Any]:
    """One rival: choose the epoch on validation, unless told not to; train as long on all but the last item; test."""
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
    """Speed and memory over the trainings of one rival; recommending is timed on the test users."""
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
    """A Dataset of that many users alone, drawn from the seed, for trying things out."""
    if users is None or users >= data.n_users:
        return data
    frame = data.to_frame()
    kept = frame["user"].unique(maintain_order=True).sample(users, seed=seed)
    return segue.prepare(frame.filter(pl.col("user").is_in(kept.implode())), duplicates="keep")


def add_circumstances(parser: argparse.ArgumentParser) -> None:
    """What `ask` needs to know besides the data: seed, threads, environments."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--envs", type=Path, default=environments.DEFAULT, help="where the environments are kept")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=common.DATA, default="ml-100k")
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--epochs", type=int, help="train at most so long; each peer has its own number otherwise")
    parser.add_argument("--check", type=int, help="epochs between two looks at the validation part; 0 chooses nothing")
    parser.add_argument("--no-refit", dest="refit", action="store_false", help="test the model that was chosen")
    parser.add_argument("--validation-users", type=int, default=5_000, help="how many users choose the epoch")
    parser.add_argument("--users", type=int, help="only so many users, to try things out; nothing is stored")
    add_circumstances(parser)
    parser.add_argument("--install", action="store_true", help="only make the environments")
    parser.add_argument("--table", action="store_true", help="only print the table of what is stored")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for; each rival is kept as it ends."""
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
