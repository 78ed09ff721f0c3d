"""Lists and evaluations on a real cluster of two nodes. Steps kill the program and a node in the middle."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import segue
from segue.engines.engine import Engine
from segue.engines.workers import run_parts
from segue.errors import ConfigError, EngineError
from segue.training.checkpoint import load_checkpoint
from tests.engines import jobs
from tests.engines.processes import is_alive
from tests.scaling.clusters import Nodes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* of the targets"),
    pytest.mark.skipif(sys.platform != "linux", reason="several nodes on one machine need Linux"),
]

SHARDS = 120


def trained(folder: Path) -> Path:
    """A trained run of 5,000 users."""
    data = segue.simulate(5_000, 4, seed=1).dataset()
    training = segue.Training(epochs=1, cpu=True, batch_size=512)
    config = segue.SASRec(width=8, blocks=1, max_length=10, windows="newest")
    segue.fit(config, segue.leave_last_out(data), training=training, out=folder / "run", quiet=True)
    return folder / "run"


@pytest.mark.slow
def test_two_nodes(tmp_path: Path) -> None:
    """One cluster for all steps, which take the time of its start."""
    pytest.importorskip("ray")
    folders = [tmp_path / name for name in ("nodes", "lists", "figures", "version", "shards", "training")]
    for folder in folders:
        folder.mkdir()
    with Nodes(folders[0]) as nodes:
        if not nodes.are_separate:
            warnings.warn("no namespaces can be made here: the nodes share a network and an address", stacklevel=1)
        with ThreadPoolExecutor() as beside:
            training = beside.submit(trained, tmp_path)
            nodes.start(0)
            nodes.start(1)
            run = training.result()
        lists_after_a_killed_program_and_a_killed_node(nodes, run, folders[1])
        nodes.start(1)
        an_evaluation_whose_node_is_killed(nodes, run, folders[2])
        nodes.start(1)
        a_preparation_whose_node_is_killed(nodes, folders[4])
        nodes.start(1)
        a_training_whose_node_is_killed(nodes, folders[5])
        a_node_with_another_version_is_named(nodes, folders[3])
        nothing_is_left(nodes)


def command(nodes: Nodes, *words: object) -> list[str]:
    """A command of segue with two workers of the cluster."""
    typed = [sys.executable, "-m", "segue", *map(str, words)]
    return [*typed, "--engine", "ray", "--processes", "2", "--address", nodes.address]


def ended(program: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = program.communicate(timeout=300)
    return program.returncode, output, errors


def until(condition: Callable[[], bool], program: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def parts(folder: Path) -> dict[str, int]:
    """Part → the time when it was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("part-*")}


def lists_after_a_killed_program_and_a_killed_node(nodes: Nodes, run: Path, tmp_path: Path) -> None:
    words = ["recommend", run, "--all", "--k", 5, "--out", tmp_path / "lists", "--shards", SHARDS]
    lists = tmp_path / "lists"
    program = nodes.popen(command(nodes, *words), cwd=tmp_path)
    until(lambda: len(parts(lists)) >= 5, program)
    nodes.kill_program(program)
    first = parts(lists)
    assert len(first) < SHARDS

    program = nodes.popen(command(nodes, *words), cwd=tmp_path)
    until(lambda: len(parts(lists)) > len(first) and bool(nodes.workers(1)), program)
    nodes.kill(1)
    assert not (lists / "lists.json").exists(), "the job ended before the node was killed"
    code, _, errors = ended(program)
    assert code == 0, errors
    kept = parts(lists)
    assert {name: kept[name] for name in first} == first  # parts of the killed program were not made again
    manifest = json.loads((lists / "lists.json").read_text())
    assert len(manifest["files"]) == SHARDS and manifest["n"] == 5_000

    segue.load(run).export(tmp_path / "one.parquet", segue.EVERYONE, k=5, shards=SHARDS)
    one = pl.read_parquet(tmp_path / "one.parquet")
    assert_frame_equal(pl.read_parquet(lists / "part-*.parquet"), one, check_exact=True)


def an_evaluation_whose_node_is_killed(nodes: Nodes, run: Path, tmp_path: Path) -> None:
    program = nodes.popen(command(nodes, "evaluate", run, "--json"), cwd=tmp_path)
    until(lambda: bool(nodes.workers(1)), program)
    nodes.kill(1)
    code, output, errors = ended(program)
    assert code == 0, errors
    recommender = segue.load(run)
    split = segue.leave_last_out(recommender.dataset)
    alone = json.loads(json.dumps(segue.evaluate(recommender, split.test).to_dict()))
    found = json.loads(output)
    assert found["metrics"] == alone["metrics"]  # bit for bit
    assert found["intervals"] == alone["intervals"]


def a_preparation_whose_node_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        columns = {name: rng.integers(0, high, 2_000) for name, high in (("user", 900), ("item", 400), ("time", 10**6))}
        pl.DataFrame(columns).write_parquet(tmp_path / "log" / f"{number:02}.parquet")
    words = ["prepare", tmp_path / "log", "--out", tmp_path / "data", "--shards", 6, "--k-core", 5, "--quiet"]
    program = nodes.popen(command(nodes, *words), cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob(".data.*/piece-*"))) >= 5 and bool(nodes.workers(1)), program)
    nodes.kill(1)
    assert not (tmp_path / "data").exists(), "the job ended before the node was killed"
    code, _, errors = ended(program)
    assert code == 0, errors
    whole = segue.prepare(tmp_path / "log", k_core=5)
    assert segue.Shards.open(tmp_path / "data").merged().fingerprint == whole.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log"]


TRAINING = [
    "--model", "sasrec", "--model.width", "8", "--model.blocks", "1", "--model.loss", "sampled-softmax",
    "--model.negatives", "7", "--model.repeats", "false", "--training.batch-size", "2", "--training.cpu",
    "--training.epochs", "4", "--training.divide-tables", "--training.save-every-steps", "3",
    "--training.validation-exclude-seen", "false",
]  # fmt: skip


def a_training_whose_node_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    """It ends with the bits of a training by processes of one machine, once the node is back."""
    data = segue.simulate(60, 6).dataset().save(tmp_path / "data")
    words = ["train", data, *TRAINING, "--out"]
    alone = [sys.executable, "-m", "segue", *map(str, words), str(tmp_path / "planned"), "--processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    planned = subprocess.Popen(alone, env=environment, text=True, **pipes)  # while the workers of Ray start
    program = nodes.popen(command(nodes, *words, tmp_path / "killed"), cwd=tmp_path)
    begun = tmp_path / "killed" / "metrics.csv"
    until(lambda: begun.exists() and bool(nodes.workers(1, "RayTrainWorker")), program)
    nodes.kill(1)
    nodes.start(1)
    for one in (planned, program):
        code, _, errors = ended(one)
        assert code == 0, errors
    assert segue.load(tmp_path / "killed").metadata["training"]["epochs"] == 4
    for name in ("last.safetensors", "best.safetensors"):
        (expected, note), (resumed, other) = (load_checkpoint(tmp_path / run / name) for run in ("planned", "killed"))
        assert expected.keys() == resumed.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, resumed[key]), (name, key)
        histories = [[row | {"seconds": None} for row in one["state"]["history"]] for one in (note, other)]
        assert histories[0] == histories[1]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data", "killed", "planned"]


SCRIPT = """
from segue.engines.engine import Engine
from segue.engines.workers import run_parts
from tests.engines import jobs

# So many that the worker of the other node starts before the first one has done them all.
list(run_parts(jobs.with_process, range(600), Engine("ray", processes=2, address={address!r})))
"""


def a_node_with_another_version_is_named(nodes: Nodes, tmp_path: Path) -> None:
    older = tmp_path / "older" / "segue"
    older.mkdir(parents=True)
    (older / "__init__.py").write_text('__version__ = "0.0.1"\n')
    nodes.kill(1)
    nodes.start(1, environment={"PYTHONPATH": str(older.parent)})
    program = nodes.popen([sys.executable, "-c", SCRIPT.format(address=nodes.address)], cwd=tmp_path)
    code, _, errors = ended(program)
    assert code == 1
    assert "has segue 0.0.1, and this process has segue" in errors and "install the same version" in errors


def nothing_is_left(nodes: Nodes) -> None:
    networks: Sequence[str] = nodes.networks
    folder = nodes.folder
    processes = nodes.processes()
    assert processes
    nodes.close()
    assert not folder.exists()
    deadline = time.monotonic() + 20
    while any(is_alive(process) for process in processes):
        assert time.monotonic() < deadline, "processes of the nodes are still there"
        time.sleep(0.05)
    if nodes.are_separate:
        left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert not [name for name in networks if name in left]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "256.0.0.1:6379"])
def test_an_address_that_does_not_answer(address: str) -> None:
    pytest.importorskip("ray")
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"does not answer \(.*ray start --head"):
        list(run_parts(jobs.squared, range(2), Engine("ray", address=address)))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_an_address_of_something_else(answer: bytes) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(answer)
            time.sleep(7)  # and no more
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(EngineError, match=r"does not answer \(timed out\)|something else listens there"):
            list(run_parts(jobs.squared, range(2), Engine("ray", address=address)))


@pytest.mark.parametrize("address", ["nowhere", "ray://here:10001", "here:x"])
def test_an_address_that_is_none(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="expected host:port"):
        list(run_parts(jobs.squared, range(2), Engine("ray", address=address)))
