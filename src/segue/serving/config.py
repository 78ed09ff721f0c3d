"""Settings of the service: the same as flags, in YAML and in help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from segue.settings import Count, PathText, Positive, Settings, Size, between


@dataclass(frozen=True)
class ServiceConfig(Settings):
    """Service."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs --tokens."""

    port: Annotated[int, between(0, 65_535)] = 8000
    """Port; 0 takes a free one."""

    store: str = "sqlite:///events.db"
    """Store of the events: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE."""

    events_since: str | None = None
    """Put only events that were stored from this time on top of the Dataset: 2024-03-01. For Datasets without times."""

    tokens: PathText | None = None
    """File of the tokens that `segue token new` wrote."""

    insecure: bool = False
    """Listen on any address without tokens: everyone who reaches it may read, write and delete."""

    hosts: tuple[str, ...] = ()
    """Further names under which clients call the service; only needed without tokens."""

    engine: Literal["torch", "onnx"] = "torch"
    """"torch" serves runs; "onnx" serves folders of `segue export --to onnx`, without torch."""

    data: PathText | None = None
    """Dataset of the exports of --engine onnx; the one in each folder when not given."""

    threads: Count = 1
    """Threads of each computation."""

    window_ms: Annotated[float, between(0, 100)] = 1.0
    """Time to wait for further requests that are answered together, in milliseconds; a lone request does not wait."""

    batch: Count = 32
    """Largest number of requests that are answered together."""

    kept: Size = 100_000
    """Users whose lists are made ahead, newest users first, and kept until their next event; 0 for none."""

    queue: Count = 64
    """Requests that may wait; any further one is answered 503 at once."""

    deadline: Positive = 2.0
    """Seconds after which a request that still waits is answered 503."""

    max_body: Count = 1_000_000
    """Largest body of a request, in bytes."""

    rate: Positive | None = None
    """Requests a second of each token, and of each address without tokens; unlimited when not given."""

    poll: Positive = 0.25
    """Seconds between two looks for events that other servers stored."""

    watch: Positive = 2.0
    """Seconds between two looks for a new run in place of a served one."""

    drain: Positive = 20.0
    """Seconds that requests in progress have to end after SIGTERM."""
