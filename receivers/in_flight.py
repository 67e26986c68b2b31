"""Limits on the requests under way and their bytes, which accounts share fairly."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from ingest.errors import LogUnavailable
from ingest.telemetry import IN_FLIGHT_BYTES

# A body makes progress with each 16 KiB, so that a byte now and then does not count. Vendors' bodies are
# smaller than that.
_PROGRESS_BYTES = 16 * 1024
_TOO_MANY_REQUESTS = "the account has too many requests under way for its share of receiver.connection_limit"
_TOO_MANY_BYTES = "too much waits for the log: the account's share of receiver.in_flight_limit is reached"
_DROPPED = (
    "its body was not whole, and others needed the room: the limits "
    "are receiver.connection_limit and receiver.in_flight_limit"
)


class FairShare:
    """An amount that accounts share: each may use as much as is left free.

    So one account alone gets half of it, two that take all they can a third each, and the next one finds some
    left. These are the dynamic thresholds of shared-memory switches: https://doi.org/10.1109/90.664262
    """

    def __init__(self, amount: int) -> None:
        self._amount = self._free = amount
        self._used: Counter[str] = Counter()

    @property
    def used(self) -> int:
        """How much all accounts use together."""
        return self._amount - self._free

    def acquire(self, account: str, amount: int) -> bool:
        """Take an amount for an account.

        Returns False, and takes nothing, where that is more than its share.
        """
        if self._used[account] + amount > self._free:
            return False
        self._used[account] += amount
        self._free -= amount
        return True

    def release(self, account: str, amount: int) -> None:
        """Return an amount."""
        self._used[account] -= amount
        self._free += amount


class Capacity:
    """A fair share in which requests with an incomplete body make room for others.

    Nobody knows yet who sent an incomplete body. All of them together get half of the amount at most, and an
    account's are dropped before the account is refused anything.
    """

    def __init__(self, amount: int) -> None:
        self._share = FairShare(amount)
        self._incomplete: Counter[str] = Counter()
        self._incomplete_total = 0
        self._incomplete_limit = max(1, amount // 2)

    @property
    def used(self) -> int:
        """How much all accounts use together."""
        return self._share.used

    def acquire(self, account: str, amount: int, drop_stalest: Callable[[str], bool]) -> bool:
        """Take an amount for an incomplete request. Returns False where that is too much.

        `drop_stalest` drops an incomplete request of an account, and returns False when there is none.
        """
        while self._incomplete and self._incomplete_total + amount > self._incomplete_limit:
            if not drop_stalest(max(self._incomplete, key=self._incomplete.__getitem__)):
                return False
        if not self.acquire_complete(account, amount, drop_stalest):
            return False
        self._incomplete[account] += amount
        self._incomplete_total += amount
        return True

    def acquire_complete(self, account: str, amount: int, drop_stalest: Callable[[str], bool]) -> bool:
        """Take an amount for a request that is complete already. Returns False where that is too much."""
        while not self._share.acquire(account, amount):
            if not drop_stalest(account):
                return False
        return True

    def complete(self, account: str, amount: int) -> None:
        """Note that the request that took an amount is complete, or dropped."""
        self._incomplete[account] -= amount
        self._incomplete_total -= amount
        if not self._incomplete[account]:
            del self._incomplete[account]

    def release(self, account: str, amount: int) -> None:
        """Return an amount of a complete request."""
        self._share.release(account, amount)


class InFlight:
    """The requests under way, and the bytes of their bodies until the log has acknowledged or refused them.

    Without a limit, the client of a stalled broker would buffer without end.
    """

    def __init__(self, requests: int, size: int) -> None:
        """Allow so many requests, and so many bytes."""
        self.requests, self.bytes = Capacity(requests), Capacity(size)
        # By account, the request that has made no progress for the longest time first.
        self._incomplete: dict[str, dict[Reservation, None]] = {}
        self._will_show = False

    def reserve(self, account: str) -> "Reservation":
        """Count a request as under way until the context of the reservation ends.

        Raises LogUnavailable when the account's share is used up by complete requests.
        """
        if not self.requests.acquire(account, 1, self.drop_stalest):
            raise LogUnavailable(_TOO_MANY_REQUESTS)
        reservation = Reservation(account, self)
        self.note_progress(reservation)
        return reservation

    def admit(self, account: str, size: int) -> None:
        """Count a request that has arrived whole, and its bytes, until both are released.

        Raises LogUnavailable when the account's share of either is used up.
        """
        if not self.requests.acquire_complete(account, 1, self.drop_stalest):
            raise LogUnavailable(_TOO_MANY_REQUESTS)
        if not self.bytes.acquire_complete(account, size, self.drop_stalest):
            self.requests.release(account, 1)
            raise LogUnavailable(_TOO_MANY_BYTES)
        self.show_soon()

    def release_bytes(self, account: str, size: int) -> None:
        """Release the bytes of a request."""
        self.bytes.release(account, size)
        self.show_soon()

    def show_soon(self) -> None:
        """Update the metric once for all changes in this turn of the event loop."""
        if not self._will_show:
            self._will_show = True
            asyncio.get_running_loop().call_soon(self._show)

    def _show(self) -> None:
        self._will_show = False
        IN_FLIGHT_BYTES.set(self.bytes.used)

    def note_progress(self, reservation: "Reservation") -> None:
        """Make a request the last of its account to be dropped."""
        requests = self._incomplete.setdefault(reservation.account, {})
        requests.pop(reservation, None)
        requests[reservation] = None

    def remove(self, reservation: "Reservation") -> None:
        """Remove a request that is complete, or dropped, from those that may be dropped."""
        del self._incomplete[reservation.account][reservation]
        if not self._incomplete[reservation.account]:
            del self._incomplete[reservation.account]

    def drop_stalest(self, account: str, requester: "Reservation | None" = None) -> bool:
        """Drop the account's request without progress for the longest time, unless it is the requester."""
        stalest = next(iter(self._incomplete.get(account, ())), None)
        if stalest is None or stalest is requester:
            return False
        stalest.drop()
        return True


class Reservation:
    """What one request uses of the limits."""

    def __init__(self, account: str, in_flight: InFlight) -> None:
        self.account, self._in_flight = account, in_flight
        self._requests, self._bytes = 1, 0
        self._is_complete, self._is_dropped, self._awaits_log = False, False, False
        self._deadline: asyncio.Timeout | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release the request, and its bytes unless the log holds them."""
        self.complete()
        if not self._awaits_log:
            self.release_bytes()
        self._in_flight.requests.release(self.account, self._requests)
        self._requests = 0

    @asynccontextmanager
    async def reading_body(self, seconds: float) -> AsyncIterator[None]:
        """Limit the time in which the body is read inside.

        Raises TimeoutError when it is not complete in time, LogUnavailable when the request is dropped for
        others.
        """
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                yield
        except TimeoutError:
            if not self._is_dropped:
                raise
        if self._is_dropped:
            raise LogUnavailable(_DROPPED)
        self.complete()

    def add(self, size: int) -> None:
        """Take more bytes. Raises LogUnavailable when that is too much."""
        if self._is_dropped:
            raise LogUnavailable(_DROPPED)
        if not self._in_flight.bytes.acquire(
            self.account, size, lambda account: self._in_flight.drop_stalest(account, self)
        ):
            raise LogUnavailable(_TOO_MANY_BYTES)
        if self._bytes // _PROGRESS_BYTES < (self._bytes + size) // _PROGRESS_BYTES:
            self._in_flight.note_progress(self)
        self._bytes += size
        self._in_flight.show_soon()

    def drop(self) -> None:
        """Release everything, and end the wait for the rest of the body."""
        self._is_dropped = True
        self.release()
        if self._deadline:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def complete(self) -> None:
        """Note that the body is complete, or that nobody waits for it any more."""
        if not self._is_complete:
            self._is_complete = True
            self._in_flight.remove(self)
            self._in_flight.requests.complete(self.account, self._requests)
            self._in_flight.bytes.complete(self.account, self._bytes)

    def hold_bytes(self) -> None:
        """Hold the bytes beyond the request, until `release_bytes` is called."""
        self._awaits_log = True

    def release_bytes(self) -> None:
        """Release the bytes."""
        self._in_flight.release_bytes(self.account, self._bytes)
        self._bytes = 0
