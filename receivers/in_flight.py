"""How much waits for the log: bounded here, because a stalled broker's client would otherwise buffer without end."""

import threading
from concurrent.futures import Future

from ingest.errors import LogUnavailable
from ingest.telemetry import IN_FLIGHT_BYTES


class InFlight:
    """Counts bytes handed to the log and not yet resolved; resolved means durable or failed, not given up on."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._lock = threading.Lock()

    def watch(self, size: int, future: "Future[None]") -> None:
        """Count `size` until the future resolves."""
        self._add(size)
        future.add_done_callback(lambda _: self._add(-size))

    def admit(self, size: int) -> None:
        """Raises LogUnavailable when `size` more would be too much."""
        if self._bytes + size > self._limit:
            raise LogUnavailable("too much is waiting for the log: receiver.in_flight_limit is reached")

    def _add(self, size: int) -> None:
        with self._lock:
            self._bytes += size
            IN_FLIGHT_BYTES.set(self._bytes)
