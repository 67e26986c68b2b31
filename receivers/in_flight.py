"""How much is under way, bounded, and shared so that one noisy account leaves room for the others."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

from ingest.errors import LogUnavailable
from ingest.telemetry import IN_FLIGHT_BYTES

# A body makes progress with each 16 KiB, so that a byte now and then does not count. Vendors' bodies are whole before that.
_PROGRESS_BYTES = 16 * 1024
_DROPPED = "its body was not whole, and others needed the room: the limits are receiver.connection_limit and receiver.in_flight_limit"


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


class Room:
    """An amount for requests whose bodies still arrive, which may be dropped for others, and for those that are whole, which may not.

    Nobody knows yet who sent a body that is not whole. All of those together have half of the amount at most, and an account's are
    dropped before the account is refused anything.
    """

    def __init__(self, amount: int) -> None:
        self._shared = Shared(amount)
        self._arriving: Counter[str] = Counter()
        self._most_arriving = max(1, amount // 2)

    @property
    def taken(self) -> int:
        """Return how much all accounts hold together."""
        return self._shared.taken

    def take(self, account: str, amount: int, drop_stalest: Callable[[str], bool]) -> bool:
        """Whether there was as much for this account's request. `drop_stalest` drops a request of an account, unless none is left to drop."""
        while self._arriving and self._arriving.total() + amount > self._most_arriving:
            if not drop_stalest(max(self._arriving, key=self._arriving.__getitem__)):
                return False
        while not self._shared.take(account, amount):
            if not drop_stalest(account):
                return False
        self._arriving[account] += amount
        return True

    def keep(self, account: str, amount: int) -> None:
        """The request that took it is whole, so it is not dropped any more."""
        self._arriving[account] -= amount
        if not self._arriving[account]:
            del self._arriving[account]

    def give_back(self, account: str, amount: int) -> None:
        """From any thread, what was kept."""
        self._shared.give_back(account, amount)


class InFlight:
    """Requests under way, and the bytes of their bodies from the first one read until the log has resolved them: a stalled broker's client would buffer without end."""

    def __init__(self, requests: int, size: int) -> None:
        self.requests, self.bytes = Room(requests), Room(size)
        self._arriving: dict[str, dict[Held, None]] = {}

    @contextmanager
    def request(self, account: str) -> Iterator["Held"]:
        """Raises LogUnavailable when the account has its share of requests already, all of them whole."""
        if not self.requests.take(account, 1, self.drop_stalest):
            raise LogUnavailable(
                "the account has too many requests under way for its share of receiver.connection_limit"
            )
        held = Held(account, self)
        self.mark_progress(held)
        try:
            yield held
        finally:
            held.finish()
            held.give_back()

    def mark_progress(self, held: "Held") -> None:
        """Make it the last of its account to be dropped."""
        requests = self._arriving.setdefault(held.account, {})
        requests.pop(held, None)
        requests[held] = None

    def forget(self, held: "Held") -> None:
        """It is whole, or dropped."""
        del self._arriving[held.account][held]
        if not self._arriving[held.account]:
            del self._arriving[held.account]

    def drop_stalest(self, account: str, asking: "Held | None" = None) -> bool:
        """Drop the account's request that has made no progress for the longest time, unless that is the one that asks for room."""
        stalest = next(iter(self._arriving.get(account, ())), None)
        if stalest is None or stalest is asking:
            return False
        stalest.drop()
        return True


class Held:
    """What one request holds."""

    def __init__(self, account: str, in_flight: InFlight) -> None:
        self.account, self._in_flight = account, in_flight
        self._requests, self._bytes = 1, 0
        self._arriving, self._dropped = True, False
        self._deadline: asyncio.Timeout | None = None

    @asynccontextmanager
    async def arriving(self, seconds: float) -> AsyncIterator[None]:
        """Inside, the body is read. Raises TimeoutError when it is not whole in time, LogUnavailable when it is dropped for others."""
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                yield
        except TimeoutError:
            if not self._dropped:
                raise
        if self._dropped:
            raise LogUnavailable(_DROPPED)
        self.finish()

    def take(self, size: int) -> None:
        """Raises LogUnavailable when that is too much."""
        if self._dropped:
            raise LogUnavailable(_DROPPED)
        if not self._in_flight.bytes.take(
            self.account, size, lambda account: self._in_flight.drop_stalest(account, self)
        ):
            raise LogUnavailable(
                "too much waits for the log: the account's share of receiver.in_flight_limit is reached"
            )
        if self._bytes // _PROGRESS_BYTES < (self._bytes + size) // _PROGRESS_BYTES:
            self._in_flight.mark_progress(self)
        self._bytes += size
        IN_FLIGHT_BYTES.set(self._in_flight.bytes.taken)

    def drop(self) -> None:
        """Give back what it holds, and end the wait for the rest of its body."""
        self._dropped = True
        self.finish()
        self.give_back()
        if self._deadline:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def finish(self) -> None:
        """Its body is whole, or nobody waits for it any more."""
        if self._arriving:
            self._arriving = False
            self._in_flight.forget(self)
            self._in_flight.requests.keep(self.account, self._requests)
            self._in_flight.bytes.keep(self.account, self._bytes)

    def until(self, future: "Future[None]") -> None:
        """Resolved means durable or failed, not given up on."""
        self.finish()
        size, self._bytes = self._bytes, 0
        future.add_done_callback(lambda _: self._release(size))

    def give_back(self) -> None:
        """The request, and the bytes that no future holds."""
        self._in_flight.requests.give_back(self.account, self._requests)
        self._release(self._bytes)
        self._requests = self._bytes = 0

    def _release(self, size: int) -> None:
        self._in_flight.bytes.give_back(self.account, size)
        IN_FLIGHT_BYTES.set(self._in_flight.bytes.taken)
