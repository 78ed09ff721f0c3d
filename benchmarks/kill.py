"""SIGKILL at random points of prepare, train, refit, recommend, save and simulate: nothing is lost, nothing stays.

    python benchmarks/kill.py [--kills 200] [--seed 0] [--only prepare train]

Each command runs in a process of its own, half of the time over the output of an earlier one. It is killed after a
random time, or just before a random call that opens, renames or removes a file. Afterwards the output must be the old
one or the new one, the same command must complete with the new one, and no other file may be left. The result goes to
benchmarks/results/kill.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads do not survive a fork

import common
import torch
import torch._dynamo

# Imported before the processes are forked, so that each starts at once. No library may start threads before that.
import segue
import segue.cli.main
import segue.cli.prepare
import segue.cli.simulate
import segue.cli.train
import segue.data.simulation.simulate
from segue.data.simulation.planted import Planted
from segue.files import sha256
from segue.inference.checkpoint import LAST, load_best, load_checkpoint
from segue.locks import collect
from segue.training.fit import fit

Step = Callable[[Path], None]
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree", "ctypes.dlsym")
SECONDS = 300
"""Longest time of a step; one that takes longer counts as dead."""
OLD, NEW, NONE, BEGUN = "old", "new", "none", "begun"


@dataclass(frozen=True)
class Job:
    """One command: its input, its old and its new output, and a description of the output that is there."""

    name: str
    make_input: Step
    old: Step
    new: Step
    state: Callable[[Path], str]


def run_command(*words: str) -> None:
    """Run a segue command in this process."""
    code = segue.cli.main.main([*words])
    if code:
        raise RuntimeError(f"segue {' '.join(words)} ended with {code}")


# ---- the commands ---------------------------------------------------------------------------------------------------


def write_log(folder: Path, seed: int = 0) -> None:
    """Write a log of 60 users, each with 8 interactions with 25 items."""
    rng = random.Random(seed)
    rows = [f"{user},{rng.randrange(25)},{1_577_836_800 + 60 * step}" for user in range(60) for step in range(8)]
    (folder / f"log{seed}.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")


def write_logs(folder: Path) -> None:
    """Write two logs."""
    write_log(folder, 0)
    write_log(folder, 1)


def make_data(folder: Path) -> None:
    """Write a log and its Dataset."""
    write_log(folder)
    run_command("prepare", str(folder / "log0.csv"), "--out", str(folder / "data"), "--quiet")


def make_run(folder: Path) -> None:
    """Write a Dataset and a Recommender."""
    make_data(folder)
    split = segue.leave_last_out(segue.Dataset.open(folder / "data"))
    fit(segue.Markov(), split, quiet=True).save(folder / "model")


def prepare(seed: int) -> Step:
    """Prepare one of two logs."""
    return lambda folder: run_command(
        "prepare", str(folder / f"log{seed}.csv"), "--out", str(folder / "out"), "--quiet"
    )


def train(*more: str) -> Step:
    """Train a small model, or continue its training."""
    options = ["--model.width", "8", "--model.blocks", "1", "--training.epochs", "4", "--training.cpu", "--quiet"]
    options += ["--training.keep-every", "2", "--training.save-every-steps", "2", "--training.batch-size", "32", *more]
    return lambda folder: run_command("train", str(folder / "data"), "--out", str(folder / "out"), *options, "--resume")


def export(k: int) -> Step:
    """Write lists of a length, in parts of 10 users."""

    def step(folder: Path) -> None:
        segue.load(folder / "model").export(folder / "out.csv", segue.EVERYONE, k=k, chunk=10)

    return step


def save(note: str) -> Step:
    """Save a Recommender with a note."""

    def step(folder: Path) -> None:
        recommender = segue.load(folder / "model")
        recommender.metadata["note"] = note
        recommender.save(folder / "out")

    return step


def simulate(seed: int, out: str) -> Step:
    """Simulate shoppers."""
    options = ["--users", "70", "--sessions", "4", "--partition", "64", "--quiet", "--seed", str(seed)]
    return lambda folder: run_command("simulate", "--out", str(folder / out), *options)


def nothing(folder: Path) -> None:
    """Make no old output."""


def data_state(folder: Path) -> str:
    """Fingerprint of the Dataset that is there."""
    collect(folder)
    return segue.Dataset.open(folder / "out").fingerprint if (folder / "out").exists() else NONE


def saved_state(folder: Path) -> str:
    """Note of the Recommender that is there."""
    collect(folder)
    return str(segue.load(folder / "out").metadata["note"]) if (folder / "out").exists() else NONE


def run_state(folder: Path) -> str:
    """Checksum of the weights of the finished run; the states and best weights of one that is not must open."""
    run = folder / "out"
    for part in (run, run / "refit"):
        if (part / LAST).is_file():
            _, note = load_checkpoint(part / LAST)
            if note["state"]["best_epoch"]:
                load_best(part)
    if (run / "recommender").exists():
        segue.load(run)
        return sha256(run / "recommender" / "weights.safetensors")
    return BEGUN if run.exists() else NONE


def file_state(folder: Path) -> str:
    """Checksum of the file that is there."""
    return sha256(folder / "out.csv") if (folder / "out.csv").exists() else NONE


def simulated_state(out: str) -> Callable[[Path], str]:
    """Return the state of a simulation: its sessions together with their truth."""

    def state(folder: Path) -> str:
        collect(folder)
        path = folder / out
        if not path.exists():
            return f"{NONE} {(folder / 'out.truth.npz').exists()}"
        sessions = segue.Dataset.open(path).fingerprint if path.is_dir() else sha256(path)
        return f"{sessions} {Planted.load(folder / 'out.truth.npz').market.seed}"

    return state


JOBS = {
    job.name: job
    for job in (
        Job("prepare", write_logs, prepare(1), prepare(0), data_state),
        Job("train", make_data, nothing, train(), run_state),
        Job("refit", make_data, nothing, train("--refit"), run_state),
        Job("recommend", make_run, export(2), export(5), file_state),
        Job("save", make_run, save("old"), save("new"), saved_state),
        Job("simulate", nothing, simulate(1, "out.csv"), simulate(2, "out.csv"), simulated_state("out.csv")),
        Job("simulate-dataset", nothing, simulate(1, "out"), simulate(2, "out"), simulated_state("out")),
    )
}


# ---- processes ------------------------------------------------------------------------------------------------------


def start(step: Callable[[], Any], answer: Path | None = None, die_at: int | None = None) -> int:
    """Start a step in a process of its own and return its number.

    Parameters
    ----------
    step
        The step. Its result is written to `answer` as JSON, and with it the number of file events.
    answer
        File for the result, or for the traceback of an error.
    die_at
        Number of the file event before which the process kills itself.
    """
    pid = os.fork()
    if pid:
        return pid
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    torch.set_num_threads(1)
    signal.alarm(SECONDS)
    events = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal events
        if event in EVENTS:
            events += 1
            if events == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        content = {"result": step(), "events": events}
    except BaseException:
        content = {"error": traceback.format_exc()}
    if answer is not None:
        answer.write_text(json.dumps(content))
    os._exit(1 if "error" in content else 0)


def finish(step: Callable[[], Any]) -> dict[str, Any]:
    """Run a step in a process of its own and return its result, its events and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        answer, began = Path(folder) / "answer.json", time.perf_counter()
        os.waitpid(start(step, answer), 0)
        found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {"error": "the process died"}
    return {**found, "seconds": time.perf_counter() - began}


def listing(folder: Path) -> list[str]:
    """Names of all files and folders within a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def measure(job: Job, folder: Path, *, over_old: bool) -> dict[str, Any]:
    """Run a job without a kill: its states before and after, its listing, events and seconds."""
    finish(lambda: job.make_input(folder))
    if over_old:
        finish(lambda: job.old(folder))
    before = finish(lambda: job.state(folder))["result"]
    whole = finish(lambda: job.new(folder))
    if "error" in whole:
        raise RuntimeError(f"{job.name}: {whole['error']}")
    after = finish(lambda: job.state(folder))["result"]
    return {**whole, "before": before, "after": after, "listing": listing(folder)}


def kill_once(job: Job, whole: dict[str, Any], rng: random.Random, *, over_old: bool, by_event: bool) -> dict[str, Any]:
    """Kill a job once at a random point, check what is there, and run it again."""
    with tempfile.TemporaryDirectory(prefix="segue-kill-") as scratch:
        folder = Path(scratch)
        finish(lambda: job.make_input(folder))
        if over_old:
            finish(lambda: job.old(folder))
        die_at = rng.randint(1, whole["events"]) if by_event else None
        pid = start(lambda: job.new(folder), die_at=die_at)
        if die_at is None:
            time.sleep(rng.random() * whole["seconds"])
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        report: dict[str, Any] = {"job": job.name, "over_old": over_old, "event": die_at}
        report["killed"] = os.WIFSIGNALED(status)
        left = finish(lambda: job.state(folder))
        if "error" in left:
            return {**report, "fault": f"what the kill left does not open: {left['error']}"}
        names = {whole["after"]: NEW, whole["before"]: OLD if over_old else NONE, BEGUN: BEGUN}
        report["state"] = names.get(left["result"], "neither")
        if report["state"] == "neither":
            return {**report, "fault": f"the output is neither old nor new: {left['result']}"}
        again = finish(lambda: job.new(folder))
        if "error" in again:
            return {**report, "fault": f"the same command does not complete: {again['error']}"}
        now = finish(lambda: job.state(folder)).get("result")
        if now != whole["after"]:
            return {**report, "fault": f"the same command ends with another output: {now}"}
        extra = sorted(set(listing(folder)) ^ set(whole["listing"]))
        return {**report, **({"fault": f"left behind: {extra}"} if extra else {})}


def campaign(kills: int, seed: int, only: list[str]) -> dict[str, Any]:
    """Kill every job in turn, and count what was left."""
    rng, rows, wholes = random.Random(seed), [], {}
    for number in range(kills):
        job, over_old = JOBS[only[number % len(only)]], bool(number // len(only) % 2)
        if (job.name, over_old) not in wholes:
            with tempfile.TemporaryDirectory(prefix="segue-kill-") as scratch:
                wholes[job.name, over_old] = measure(job, Path(scratch), over_old=over_old)
        by_event = bool(number // len(only) // 2 % 2) or rng.random() < 0.3
        rows.append(kill_once(job, wholes[job.name, over_old], rng, over_old=over_old, by_event=by_event))
    states = {
        name: {state: sum(row.get("state") == state for row in rows if row["job"] == name) for state in
               (OLD, NONE, BEGUN, NEW)}
        for name in only
    }  # fmt: skip
    return {
        "kills": kills,
        "killed_before_the_end": sum(row["killed"] for row in rows),
        "states_after_the_kill": states,
        "seconds_without_a_kill": {
            name: round(whole["seconds"], 2) for (name, over_old), whole in wholes.items() if not over_old
        },
        "faults": [row for row in rows if "fault" in row],
    }


def main() -> None:
    """Run the campaign and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--print-only", action="store_true", help="write no file of results")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the result")
    arguments = parser.parse_args()
    began = time.perf_counter()
    result = {
        "what": "SIGKILL at random points of segue's commands; what was left, and whether the same command completes",
        "date": common.today(),
        "versions": common.versions("torch", "polars"),
        "hardware": common.machine(),
        "seed": arguments.seed,
        **campaign(arguments.kills, arguments.seed, arguments.only),
        "seconds": round(time.perf_counter() - began),
    }
    written = None if arguments.print_only else common.write("kill", result, arguments.out)
    print(json.dumps(result, indent=2) if written is None else written.read_text())
    sys.exit(bool(result["faults"]))


if __name__ == "__main__":
    main()
