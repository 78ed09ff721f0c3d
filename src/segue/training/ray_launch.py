"""Training by workers of a Ray cluster: Ray Train's TorchTrainer starts them, and starts them again after a failure.

The loop is that of several processes. A worker finds its rank in the environment, as under torchrun, and the process
group of torch.distributed is there. If a worker dies, Ray ends the others and starts all of them again, wherever there
is room. They go on from the last state in the folder of the run, which all nodes must see.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segue import errors
from segue.engines.cluster import joined
from segue.engines.engine import Engine
from segue.errors import ConfigError, EngineError, SegueError
from segue.files import read_json, real, write_json
from segue.training.run_manifest import RUN

MOST_FAILURES = 3
"""Failures of workers after which a training ends with an error; each failure before is followed by a resume."""

_FAULT = "fault"
_SIOCGIFADDR = 0x8915
"""Number of the request for an interface's address on Linux (netdevice(7))."""
Work = Callable[[bool], None]
"""Function that trains in a worker; its argument says whether the run in the folder is to be resumed."""


def launch_on_ray(work: Work, run: Path, engine: Engine, cpu: bool = False) -> None:
    """Train in the workers of a Ray cluster, and wait for the end.

    Parameters
    ----------
    work
        Picklable function that trains into the folder. It is called in every worker, again after a failure.
    run
        Folder of the run, which all nodes see. A run that it holds is resumed.
    engine
        Number of workers, and address of the cluster.
    cpu
        Leave GPUs alone. Otherwise each worker has one, if the cluster has so many.

    Raises
    ------
    ConfigError
        Ray is not installed.
    EngineError
        The cluster does not answer, a node has another version of segue, or workers failed too often.
    SegueError
        The training raised it.
    KeyboardInterrupt
        Ctrl-C came. The workers are ended; the run can be resumed from its last state.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    with joined(engine) as ray:
        try:
            train: Any = importlib.import_module("ray.train")
            ray_torch: Any = importlib.import_module("ray.train.torch")
        except ImportError as error:
            raise ConfigError(f"engine='ray' trains with Ray Train ({error}): pip install 'segue[ray]'.") from None
        target = real(run)
        # Ray keeps its own notes there while the training runs. All nodes must see them too.
        notes = target.with_name(f".{target.name}.segue-ray")
        has_gpus = not cpu and ray.cluster_resources().get("GPU", 0) >= engine.processes
        trainer = ray_torch.TorchTrainer(
            partial(_train, work, str(target), str(notes), str(Path.cwd()), version("segue")),
            train_loop_config={},
            scaling_config=train.ScalingConfig(num_workers=engine.processes, use_gpu=has_gpus),
            torch_config=None if has_gpus else _by_gloo(ray_torch.TorchConfig),
            run_config=train.RunConfig(
                name=target.name,
                storage_path=str(notes),
                failure_config=train.FailureConfig(max_failures=MOST_FAILURES),
                logging_config=train.LoggingConfig(log_level="ERROR"),
            ),
        )
        notes.mkdir(parents=True, exist_ok=True)
        try:
            outcome = _wait_for(trainer.fit)
            fault = _fault(notes)
        finally:
            shutil.rmtree(notes, ignore_errors=True)
    if fault is not None:
        raise fault
    if isinstance(outcome, Exception):
        raise EngineError(
            f"the workers of the training failed more than {MOST_FAILURES} times, the last time with:\n{outcome}\n"
            f"The last state is in {run}; --resume goes on from there."
        )


def _wait_for(call: Callable[[], Any]) -> Any:
    """Result or exception of a call in a thread, so that Ctrl-C is ours and not Ray's."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    return results[0]


def _train(work: Work, run: str, notes: str, folder: str, own_version: str, options: dict[str, Any]) -> None:
    """Train in one worker.

    An error of segue would come again with every attempt. So it is noted down, and the next attempt ends at once; to
    return it would leave the other workers waiting.
    """
    import torch.distributed as dist

    if Path(folder).is_dir():
        os.chdir(folder)  # for paths that are relative
    facts = [(Path(run) / RUN).is_file(), _fault(Path(notes)) is not None]
    if dist.is_initialized():  # one process decides for all
        dist.broadcast_object_list(facts, src=0)
    begun, failed = facts
    if failed:
        return
    try:
        if version("segue") != own_version:
            raise EngineError(
                f"the node {os.uname().nodename} of the Ray cluster has segue {version('segue')}, and the training was "
                f"started with segue {own_version}: install the same version on all nodes."
            )
        work(begun)
    except SegueError as error:
        content = {"error": type(error).__name__, "message": str(error)}
        write_json(Path(notes) / f"{_FAULT}-{os.environ.get('RANK', '0')}.json", content)
        raise


def _by_gloo(config: Any) -> Any:
    """Ray's configuration of torch.distributed, with gloo, for workers that choose their network interface before.

    By itself gloo takes the address that the name of the machine has, which often is one that no other machine reaches.
    """
    by_ray = config().backend_cls

    def on_start(self: Any, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_choose_interface)
        by_ray.on_start(self, worker_group, backend_config)

    backend = type("Backend", (by_ray,), {"on_start": on_start})
    return type("Config", (config,), {"backend_cls": backend})(backend="gloo")


def _choose_interface() -> None:
    """Let gloo talk through the interface that has the address of this node, unless the environment names one."""
    ray_util: Any = importlib.import_module("ray.util")
    name = network_interfaces().get(ray_util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def network_interfaces() -> dict[str, str]:
    """IPv4 address → name of a network interface of this machine; empty where it cannot be read."""
    try:
        import fcntl
    except ImportError:
        return {}
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = name.encode()[:15].ljust(256, b"\0")
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, request)
            except OSError:  # it has no address
                continue
            found[socket.inet_ntoa(answer[20:24])] = name
    return found


def _fault(notes: Path) -> SegueError | None:
    """Error of segue that a worker noted down; None without any."""
    for file in sorted(notes.glob(f"{_FAULT}-*.json")):
        content = read_json(file)
        kind = getattr(errors, str(content.get("error")), SegueError)
        return kind(str(content.get("message"))) if issubclass(kind, SegueError) else SegueError(content["message"])
    return None
