"""Limits of rates: a bucket of tokens for each client (the "token bucket" of traffic shaping)."""

from __future__ import annotations

import time
from collections import OrderedDict

_CLIENTS = 10_000
"""Clients that are remembered; the one that was quiet for longest is forgotten first."""


class Rates:
    """Requests a second of each client. A client may send the requests of one second at once."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, rate: float, now: float | None = None) -> float:
        """Count a request; seconds to wait before the next one if it is one too many, else 0.

        Parameters
        ----------
        client
            Name or address of the client.
        rate
            Requests a second.
        now
            The present, in seconds; the clock's when None.
        """
        now = time.monotonic() if now is None else now
        burst = max(1.0, rate)
        left, last = self._buckets.pop(client, (burst, now))
        left = min(burst, left + (now - last) * rate)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / rate
