"""How much is under way, bounded, and shared so that one noisy account leaves room for the others."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from ingest.errors import LogUnavailable
from ingest.telemetry import IN_FLIGHT_BYTES


class Shared:
    """An amount that accounts share: one may hold as much as it leaves free.

    So one alone gets half of it, two that take all they can a third each, and whoever comes next finds some left.
    These are the dynamic thresholds of shared-memory switches: https://doi.org/10.1109/90.664262
    """

    def __init__(self, amount: int) -> None:
        self._amount = self._free = amount
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """By all together."""
        return self._amount - self._free

    def take(self, account: str, amount: int) -> bool:
        """Whether there was as much for this account."""
        with self._lock:
            if self._held[account] + amount > self._free:
                return False
            self._held[account] += amount
            self._free -= amount
            return True

    def give_back(self, account: str, amount: int) -> None:
        """From any thread."""
        with self._lock:
            self._held[account] -= amount
            self._free += amount


class InFlight:
    """Requests under way, and the bytes of their bodies from the first one read until the log has resolved them: a stalled broker's client would buffer without end."""

    def __init__(self, requests: int, size: int) -> None:
        self._requests, self._bytes = Shared(requests), Shared(size)

    @contextmanager
    def request(self, account: str) -> Iterator["Held"]:
        """Raises LogUnavailable when the account has its share of requests already."""
        if not self._requests.take(account, 1):
            raise LogUnavailable("the account has too many requests under way for its share of receiver.connection_limit")
        held = Held(account, self._bytes)
        try:
            yield held
        finally:
            held.give_back()
            self._requests.give_back(account, 1)


class Held:
    """What one request holds."""

    def __init__(self, account: str, shared: Shared) -> None:
        self._account, self._shared = account, shared
        self._bytes = 0

    def take(self, size: int) -> None:
        """Raises LogUnavailable when that is too much."""
        if not self._shared.take(self._account, size):
            raise LogUnavailable("too much waits for the log: the account's share of receiver.in_flight_limit is reached")
        self._bytes += size
        IN_FLIGHT_BYTES.set(self._shared.taken)

    def until(self, future: "Future[None]") -> None:
        """Resolved means durable or failed, not given up on."""
        size, self._bytes = self._bytes, 0
        future.add_done_callback(lambda _: self._release(size))

    def give_back(self) -> None:
        """What no future holds."""
        self._release(self._bytes)
        self._bytes = 0

    def _release(self, size: int) -> None:
        self._shared.give_back(self._account, size)
        IN_FLIGHT_BYTES.set(self._shared.taken)
