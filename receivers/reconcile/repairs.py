"""What was missed: appended many at a time, loaded by whoever consumes the log, and then looked for in the warehouse again."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, Protocol

from ingest.booking import Booking, StoredBooking
from ingest.dead_letter import DeadLetter
from ingest.event import Event
from ingest.log import Record
from ingest.vendors import GONE
from ingest.vendors.rest import AnyRest
from receivers.reconcile.compare import Verdict, compare
from receivers.reconcile.report import Counts

_MANY = 5000
_MANY_BYTES = 8 * 1024 * 1024


class Warehouse(Protocol):
    """What the warehouse has. Raises WarehouseUnavailable."""

    def by(
        self, column: Literal["booking_id", "group_id"], vendor: str, account: str, keys: Sequence[str]
    ) -> Mapping[str, Sequence[StoredBooking]]:
        """Rows by the value of a column."""

    def within(
        self,
        column: Literal["updated_at", "starts_at"],
        vendor: str,
        account: str,
        since: datetime,
        until: datetime | None,
    ) -> Iterator[Sequence[tuple[str, datetime]]]:
        """Booking ids and when their rows were made, by an instant in [since, until); those already marked as gone are left out."""

    def newest(self, vendor: str, account: str, most: int, *, by_webhook: bool) -> Sequence[StoredBooking]:
        """The bookings loaded last that are neither cancelled nor gone; `by_webhook`: whose row no reconciliation made."""


class Log(Protocol):
    """Where repairs go; a dry run's goes nowhere. Raises LogUnavailable."""

    def append(self, records: Sequence[Record]) -> None:
        """Returns when they are durable."""

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """As dead letters."""

    def wait(self) -> bool:
        """Returns when all that was appended is loaded; False where nothing ever is."""


class Proof:
    """Each load holds up the reading of the warehouse, so repairs are gathered before they are appended."""

    def __init__(self, rest: AnyRest, warehouse: Warehouse, log: Log, lag: timedelta, counts: Counts) -> None:
        """`counts.repaired` grows with every booking that is seen to be right."""
        self._rest = rest
        self._warehouse = warehouse
        self._log = log
        self.lag = lag
        self.counts = counts
        self._gathered: list[tuple[Event, Booking]] = []
        self._gathered_bytes = 0

    def wait(self) -> bool:
        """Until all that is in the log is loaded; False where nobody would. Raises LogUnavailable."""
        return self._log.wait()

    def set_aside(self, letter: DeadLetter) -> None:
        """At once. Raises LogUnavailable."""
        self._log.set_aside([letter])

    def add(self, event: Event, booking: Booking) -> None:
        """Raises LogUnavailable, WarehouseUnavailable, once there are many, or large ones."""
        self._gathered.append((event, booking))
        self._gathered_bytes += len(event.data)
        if len(self._gathered) >= _MANY or self._gathered_bytes >= _MANY_BYTES:
            self.complete()

    def append(self) -> list[tuple[Event, Booking]]:
        """All that was gathered, without waiting until it is loaded. Raises LogUnavailable."""
        appended, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if appended:
            self._log.append([event.to_record() for event, _ in appended])
        return appended

    def complete(self) -> None:
        """One counts as repaired when the warehouse, asked again, has it or something newer. Raises LogUnavailable, WarehouseUnavailable."""
        appended = self.append()
        if not appended or not self.wait():
            return
        missed = [
            booking
            for event, booking in appended
            if event.type != GONE and booking.status not in self._rest.untold
        ]
        vendor, account = self._rest.account.vendor, self._rest.account.name
        stored = self._warehouse.by("booking_id", vendor, account, [booking.booking_id for booking in missed])
        now = self._rest.now()
        for booking in missed:
            held = next(iter(stored.get(booking.booking_id, ())), None)
            self.counts.repaired += (
                compare(booking, held, self._rest.compared, now, self.lag) is not Verdict.MISSED
            )
