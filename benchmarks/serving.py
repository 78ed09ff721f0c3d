"""Rates and latencies of `segue serve`: lists, events, overload, a reload, kills, a soak, peers, and the start.

    python benchmarks/serving.py --parts lists events overload reload kills start --rates 500 1000 --engine torch
    python benchmarks/serving.py --parts kills-postgresql soak peers

The server runs in its own process, and the load comes from this one, on the same machine. The model is `SASRec()` on
Amazon Games (23,715 items; one epoch, since speed does not depend on the weights). Requests for lists (k 10) come at
random times (exponential gaps) and do not wait for each other; a latency counts from the moment at which a request was
due. Every tenth one follows an event of the same user. All lists have been made ahead when the load begins; with
`--kept 0` none is, and the model answers every request. With `--engine onnx` the server runs the exported model. The
peers are the same model behind a Starlette function that calls `recommend`, in threads, and behind LitServe, if it is
installed; they get no events. The result goes to results/serving.json, part by part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

import segue

PARTS = ("lists", "events", "overload", "reload", "kills", "kills-postgresql", "start", "soak", "peers")
USERS = 31_013
PEERS = {
    "starlette": """
import sys, threading, uvicorn, segue, torch
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

torch.set_num_threads(1)
recommender = segue.load(sys.argv[1])

async def recommend(request):
    body = await request.json()
    frame = await run_in_threadpool(recommender.recommend, [body["user"]], k=body["k"])
    return JSONResponse({"items": frame.select("item", "score").to_dicts()})

app = Starlette(routes=[Route("/v1/recommend", recommend, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
""",
    "litserve": """
import sys, litserve, segue, torch

class Api(litserve.LitAPI):
    def setup(self, device):
        torch.set_num_threads(1)
        self.recommender = segue.load(sys.argv[1])

    def decode_request(self, request):
        return request

    def predict(self, request):
        return self.recommender.recommend([request["user"]], k=request["k"])

    def encode_response(self, frame):
        return {"items": frame.select("item", "score").to_dicts()}

if __name__ == "__main__":  # it starts processes that import this file
    litserve.LitServer(Api(api_path="/v1/recommend"), accelerator="cpu").run(port=int(sys.argv[2]), log_level="warning")
""",
}
"""Programs of the peers, with the folder of the run and the port as arguments."""


class Server:
    """A `segue serve` in its own process."""

    def __init__(self, run: Path, store: Path | str, *options: str) -> None:
        address = store if isinstance(store, str) else f"sqlite:///{store}"
        words = ["serve", str(run), "--store", address, "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": str(Path(segue.__file__).parent.parent)}
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "segue", *words], stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r":(\d+) \(API", line)
            if found:
                self.port = int(found[1])
                break
        self.seconds = time.perf_counter() - self.begun

    def wait_for_lists(self, number: int) -> float:
        """Wait until so many lists are kept, and return the seconds."""
        begun = time.perf_counter()
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
                found = re.search(rb"^segue_kept_lists{.*} (.*)$", answer.read(), re.M)
            if found is not None and float(found[1]) >= number:
                return time.perf_counter() - begun
            time.sleep(0.2)

    def folders(self) -> list[Path]:
        """Folders in /proc of the model process and of the HTTP process that it started."""
        stats = Path("/proc").glob("[0-9]*/stat")
        own = str(self.process.pid)
        return [Path("/proc") / own, *(path.parent for path in stats if _fields(path)[1:2] == [own])]

    def cpu(self) -> float:
        """Seconds of processor time."""
        fields = [_fields(folder / "stat") for folder in self.folders()]
        return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Memory in MB: what both processes share counts for each in part."""
        sizes = [re.search(r"^Pss:\s+(\d+)", (one / "smaps_rollup").read_text(), re.M) for one in self.folders()]
        return sum(int(size[1]) for size in sizes if size is not None) // 1024

    def end(self, how: int = signal.SIGTERM) -> None:
        """Stop the server."""
        self.process.send_signal(how)
        self.process.wait()


def _fields(stat: Path) -> list[str]:
    """Fields of a process behind its name; none if it has ended."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Connection(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self) -> None:
        self.content = b""
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request that waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError())

    def data_received(self, data: bytes) -> None:
        """Read an answer."""
        self.content += data
        head, blank, body = self.content.partition(b"\r\n\r\n")
        if blank and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            self.content = b""
            assert self.answer is not None
            self.answer.set_result((int(head[9:12]), body))

    def send(self, path: str, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; the future has status and body."""
        self.answer = asyncio.get_running_loop().create_future()
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return self.answer


async def connections(port: int, number: int) -> list[Connection]:
    """Open connections."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(number)]


async def lists(port: int, rate: float, seconds: float, number: int = 64, with_events: bool = True) -> dict[str, Any]:
    """Ask for lists at a rate, and return statuses and latencies."""
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for connection in await connections(port, number):
        free.put_nowait(connection)
    rng, latencies, statuses = random.Random(0), [], Counter[int]()

    async def ask(due: float, count: int) -> None:
        connection, user = await free.get(), rng.randrange(1, USERS + 1)
        if connection.transport.is_closing():  # the server ends connections that nobody uses for some seconds
            (connection,) = await connections(port, 1)
        if with_events and count % 10 == 0:
            event = f'{{"user": {user}, "item": {rng.randrange(1, 23_716)}}}'.encode()
            statuses[(await connection.send("events", event))[0]] += 1
            due = time.perf_counter()
        status, _ = await connection.send("recommend", f'{{"user": {user}, "k": 10}}'.encode())
        free.put_nowait(connection)
        statuses[status] += 1
        if status == 200:
            latencies.append(time.perf_counter() - due)

    begun, own, due, tasks = time.perf_counter(), cpu(), 0.0, []
    while (due := due + rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(begun + due, len(tasks))))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begun
    quantiles = np.quantile(latencies, [0.5, 0.9, 0.99]) * 1000
    return {
        "rate": rate,
        "lists_per_second": round(len(latencies) / took, 1),
        "statuses": {str(status): count for status, count in statuses.items()},
        **{name: round(float(value), 2) for name, value in zip(("p50_ms", "p90_ms", "p99_ms"), quantiles, strict=True)},
        "cores_of_the_load": round((cpu() - own) / took, 2),
    }


async def events(port: int, clients: int, size: int, seconds: float) -> dict[str, Any]:
    """Store events from several clients, each waiting for its answers."""
    done = 0

    async def client(connection: Connection, number: int) -> None:
        nonlocal done
        rng, end = random.Random(number), time.perf_counter() + seconds
        while time.perf_counter() < end:
            batch = [
                f'{{"user": {rng.randrange(1, USERS + 1)}, "item": {rng.randrange(1, 23_716)}}}' for _ in range(size)
            ]
            status, _ = await connection.send("events", f"[{', '.join(batch)}]".encode())
            assert status == 200
            done += size

    begun = time.perf_counter()
    opened = await connections(port, clients)
    await asyncio.gather(*(client(connection, number) for number, connection in enumerate(opened)))
    return {"clients": clients, "size": size, "events_per_second": round(done / (time.perf_counter() - begun), 1)}


async def killed(
    server: Server, acknowledged: list[str], turn: int, after: float, first: Callable[[], None] | None = None
) -> None:
    """Send events until the server is killed, `first` something else, and note those that were acknowledged."""

    async def client(connection: Connection, number: int) -> None:
        for count in range(1_000_000):
            name = f"{turn}-{number}-{count}"
            body = f'{{"user": "{number}", "item": {count % 100 + 1}, "event_id": "{name}"}}'.encode()
            try:
                if (await connection.send("events", body))[0] == 200:
                    acknowledged.append(name)
            except ConnectionError:
                return

    tasks = [asyncio.create_task(client(one, number)) for number, one in enumerate(await connections(server.port, 8))]
    await asyncio.sleep(after)
    if first is not None:
        await asyncio.to_thread(first)
    server.process.kill()
    await asyncio.gather(*tasks)
    server.process.wait()


def peers(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists of other services around the same model, at the highest of the rates that each of them holds."""
    results: dict[str, Any] = {}
    for name, program in PEERS.items():
        if importlib.util.find_spec(name) is None:
            results[name] = "not installed"
            continue
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": str(Path(segue.__file__).parent.parent)}
        script = run.parent / f"{name}_peer.py"
        script.write_text(program)
        command = [sys.executable, str(script), str(run), str(port)]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            asyncio.run(lists(port, 20, 3, with_events=False))
            rates = {f"{rate:g}": asyncio.run(lists(port, rate, arguments.seconds, with_events=False))
                     for rate in arguments.peer_rates}  # fmt: skip
            results[name] = rates
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a peer may have started others
            process.wait()
    return results


async def kills_of_postgres(run: Path, kills: int) -> dict[str, Any]:
    """Kill the server and the processes of PostgreSQL in turn, and compare the store with what was acknowledged."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import psycopg

    from tests.serving.servers import Postgres

    database, rng, acknowledged = Postgres(), random.Random(0), list[str]()
    try:
        for turn in range(kills):
            server = Server(run, database.address)
            if turn % 2:
                await killed(server, acknowledged, turn, rng.random(), database.kill)
                database.start()
            else:
                await killed(server, acknowledged, turn, rng.random())
        with psycopg.connect(database.address) as connection:
            rows = [name for (name,) in connection.execute("SELECT event_id FROM events")]
    finally:
        database.close()
    lost, twice = len(set(acknowledged) - set(rows)), len(rows) - len(set(rows))
    return {"kills": kills, "of_the_database": kills // 2, "acknowledged": len(acknowledged), "lost": lost,
            "twice": twice}  # fmt: skip


def cpu() -> float:
    """Seconds of processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def fill(store: Path, number: int) -> None:
    """Write many events to an empty store, without waiting for the disk."""
    from segue.serving.store.sqlite import SQLiteStore

    SQLiteStore(store).close()
    rng, connection = random.Random(0), sqlite3.connect(store)
    connection.execute("PRAGMA synchronous = OFF")
    statement = "INSERT INTO events (event_id, kind, user_id, item_id, time, received) VALUES (?, 0, ?, ?, ?, 0)"
    connection.executemany(
        statement,
        ((f"{row:016x}", str(rng.randrange(1, 10**6)), str(rng.randrange(1, 23_716)), row) for row in range(number)),
    )
    connection.commit()
    connection.close()


def measured(part: str, run: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Result of one part."""
    store = folder / f"{part}.db"
    engine = ["--engine", arguments.engine, "--kept", str(arguments.kept)]
    if part == "peers":
        return peers(run, arguments)
    if part == "kills-postgresql":
        return asyncio.run(kills_of_postgres(run, arguments.kills))
    if part == "start":
        fill(store, arguments.stored)
    if part == "kills":
        rng, acknowledged = random.Random(0), list[str]()
        for turn in range(arguments.kills):
            asyncio.run(killed(Server(run, store, *engine), acknowledged, turn, rng.random()))
        rows = [name for (name,) in sqlite3.connect(store).execute("SELECT event_id FROM events")]
        lost, twice = len(set(acknowledged) - set(rows)), len(rows) - len(set(rows))
        return {"kills": arguments.kills, "acknowledged": len(acknowledged), "lost": lost, "twice": twice}
    server = Server(run, store, "--watch", "0.5", *engine)
    try:
        if part == "start":
            return {"events": arguments.stored, "seconds": round(server.seconds, 1), "memory_mb": server.memory()}
        asyncio.run(lists(server.port, 200, 2))
        kept = min(arguments.kept, USERS)
        ahead = {"lists_made_ahead": kept, "seconds_to_make_them": round(server.wait_for_lists(kept), 1)}
        before = server.cpu()
        begun = time.perf_counter()
        if part == "events":
            result: Any = {"batches": asyncio.run(events(server.port, 4, 100, arguments.seconds))}
            result["single"] = asyncio.run(events(server.port, 16, 1, arguments.seconds))
        elif part == "reload":
            result = {"before": asyncio.run(lists(server.port, arguments.rate / 2, arguments.seconds))}
            os.utime(run / ("recommender.json" if arguments.engine == "torch" else "onnx.json"))
            result["during"] = asyncio.run(lists(server.port, arguments.rate / 2, arguments.seconds))
        elif part == "overload":
            result = {"twice": asyncio.run(lists(server.port, 2 * arguments.rate, arguments.seconds, 512))}
            time.sleep(1)
            result["a_second_later"] = asyncio.run(lists(server.port, arguments.rate / 2, arguments.seconds))
        elif part == "soak":
            memory = []
            for _ in range(10):
                result = asyncio.run(lists(server.port, arguments.rate / 2, arguments.soak / 10))
                memory.append(server.memory())
            result |= {"seconds": arguments.soak, "memory_mb_over_time": memory}
        else:
            result = {}
            for rate in arguments.rates:
                begun_part, spent = time.perf_counter(), server.cpu()
                own = asyncio.run(lists(server.port, rate, arguments.seconds))
                used = server.cpu() - spent
                own["cores_of_the_server"] = round(used / (time.perf_counter() - begun_part), 2)
                own["cpu_us_per_request"] = round(1e6 * used / sum(own["statuses"].values()))
                result[f"{rate:g}"] = own
        cores = round((server.cpu() - before) / (time.perf_counter() - begun), 2)
        return result | ahead | {"cores_of_the_server": cores, "memory_mb": server.memory()}
    finally:
        server.end()


def main() -> None:
    """Run the requested parts; each is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--run", type=Path, help="folder of a saved model on Games; trained when not given")
    parser.add_argument("--engine", choices=("torch", "onnx"), default="torch")
    parser.add_argument("--kept", type=int, default=100_000, help="users whose lists the server keeps")
    parser.add_argument("--rate", type=float, default=1_000, help="the rate that the server holds")
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 1_000], help="rates of the part lists")
    parser.add_argument("--peer-rates", type=float, nargs="+", default=[50, 100, 200])
    parser.add_argument("--soak", type=float, default=100, help="seconds of the soak")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stored", type=int, default=10_000_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="segue-serving-"))
    try:
        run = folder / "games"
        if arguments.run is not None:
            shutil.copytree(arguments.run, run)
        else:
            split = segue.leave_last_out(common.dataset("games"))
            segue.fit(segue.SASRec(), split, training=segue.Training(epochs=1), quiet=True).save(run)
        if arguments.engine == "onnx":
            segue.load(run).to_onnx(folder / "exported", with_data=True)
            run = folder / "exported"
        for part in arguments.parts:
            result = measured(part, run, folder, arguments)
            key = part if arguments.engine == "torch" else f"{part}-onnx"
            key = key if arguments.kept else f"{key}-none-kept"
            print(key, result, flush=True)
            content = common.read("serving") or {"what": " ".join((__doc__ or "").partition("\n\n")[0].split())}
            common.write("serving", content | {key: result | common.provenance()})
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
