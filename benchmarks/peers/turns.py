"""Speed of segue and other libraries in the same configuration, by turns, so that all meet the same minutes.

    python benchmarks/peers/turns.py --data games --rounds 3

In each round every system trains on the same data, in its own process, for about as long as the others. Its first
epoch, in which objects are made and compiled, does not count. It then makes lists for ten thousand users, three times,
and evaluates as Microsoft's library does, if it can. The order is reversed from one round to the next. Figures of a
round are compared only with each other. Leave the machine alone meanwhile. After each round all rounds so far are in
results/turns_<data>.json, beside those of other days; rounds of the same day are replaced. `run.py` measures accuracy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import run

sys.path.insert(0, str(Path(__file__).parent.parent))
import common

import segue

EPOCHS = {
    "games": {"segue-notebook": 11, "rectools-bce": 2, "recommenders-sasrec": 2},
    "ml-100k": {"segue-notebook": 30, "rectools-bce": 20, "recommenders-sasrec": 20},
}
"""Epochs of each system in a round."""
USERS = 10_000
"""Most users with lists."""
SHOWN = ("seconds_per_epoch", "recommended_users_per_second", "sampled_users_per_second")
"""Compared figures."""


def turn(name: str, options: argparse.Namespace, split: segue.Split) -> dict[str, Any]:
    """Figures of one system: means over its epochs except the first, and over its lists."""
    asked = {"test": split.test.sample(USERS, options.seed)}
    answer = run.ask(run.PEERS[name], options, split.refit, asked, EPOCHS[options.data][name], 0)
    report, made = answer.report, answer.report["recommending"][-1]
    return {
        "peer": name,
        "threads": options.threads,
        "seconds_per_epoch": round(statistics.mean(report["epoch_seconds"][1:]), 3),
        "epoch_seconds": report["epoch_seconds"],
        "recommended_users": made["users"],
        "recommended_users_per_second": round(made["users"] / statistics.mean(made["seconds"]), 1),
        "recommending_seconds": made["seconds"],
        "sampled_users_per_second": report.get("sampled_evaluation_users_per_second"),
        "peak_memory_training": report["peak_memory_training"],
        "settings": report["settings"],
        "peer_versions": report["versions"],
        **common.provenance(),
    }


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=EPOCHS, default="games")
    parser.add_argument("--rounds", type=int, default=3)
    run.add_circumstances(parser)
    parser.set_defaults(threads=1)  # as all rounds so far: rounds of other threads are not comparable
    return parser.parse_args()


def main() -> None:
    """Run the rounds; each is saved when it ends."""
    options = arguments()
    split = segue.leave_last_out(common.dataset(options.data))
    names = list(EPOCHS[options.data])
    what = f"{common.DATA[options.data]}, all but the last item of each user, in rounds, one after the other"
    runs = [turn for turn in common.read(f"turns_{options.data}").get("runs", []) if turn["date"] != common.today()]
    for number in range(1, options.rounds + 1):
        for name in names if number % 2 else reversed(names):
            runs.append({"round": number} | turn(name, options, split))
            print({key: runs[-1][key] for key in ("round", "peer", *SHOWN)}, flush=True)
        common.write(f"turns_{options.data}", {"what": what, "runs": runs})


if __name__ == "__main__":
    main()
