"""Choice of the workers that run the parts of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segue.errors import ConfigError
from segue.settings import Count, Settings, Word


@dataclass(frozen=True)
class Engine(Settings):
    """Workers that run the parts of a job. The result is the same with any of them.

    Examples
    --------
    >>> segue.Engine(processes=4)
    Engine(engine='processes', processes=4, address=None)
    >>> cluster = segue.Engine("ray", processes=16, address="10.0.0.1:6379")
    """

    engine: Literal["processes", "ray"] = "processes"
    """Workers: processes of this machine, or those of a Ray cluster, which needs `pip install 'segue[ray]'`."""

    processes: Count = 1
    """Number of workers."""

    address: Word | None = None
    """Address of a running Ray cluster, as `ray start --head` shows it (host:port), or auto for the one on this
    machine; when not given, a cluster of this machine alone is started for the job."""

    def check(self) -> None:
        """An address is that of a Ray cluster."""
        if self.address is not None and self.engine != "ray":
            raise ConfigError(
                f"address={self.address!r} is the address of a Ray cluster, and engine={self.engine!r}: choose "
                "engine='ray', or leave the address out."
            )

    @property
    def alone(self) -> bool:
        """True if this process does all parts itself."""
        return self.engine == "processes" and self.processes == 1
