"""One window of one account: read what the vendor has, compare, append what was missed, wait until it is loaded, look again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, TypeVar

import orjson
import structlog

from ingest.booking import Booking, BookingStatus, Stored
from ingest.dead_letter import DeadLetter
from ingest.errors import ConfigurationError, PayloadError, VendorRefused, VendorUnavailable
from ingest.event import Event
from ingest.log import Record
from ingest.rest import Record as Entry
from ingest.vendors import GONE
from ingest.vendors.rest import AnyRest, Window
from receivers.reconcile.compare import Verdict, compare, supersedes, widened
from receivers.reconcile.report import Counts

log = structlog.get_logger()
T = TypeVar("T")

_OVERLAP = timedelta(minutes=5)
_BLOCK = 1000  # entries compared with the warehouse in one query
_FLUSH = 5000  # repairs at a time
# More of a window's bookings than this gone at once is more likely a key of another account than the truth.
_FEW = 50


class Warehouse(Protocol):
    """What the warehouse has. Raises WarehouseUnavailable."""

    def by(
        self, column: Literal["booking_id", "group_id"], vendor: str, account: str, keys: Sequence[str]
    ) -> Mapping[str, Sequence[Stored]]:
        """Rows by the value of a column."""

    def within(
        self, column: Literal["updated_at", "starts_at"], vendor: str, account: str, since: datetime, until: datetime | None
    ) -> Iterator[Sequence[tuple[str, datetime]]]:
        """Booking ids and when their rows were made, by an instant in [since, until); those already marked as gone are left out."""


class Log(Protocol):
    """Where repairs go; a dry run's goes nowhere. Raises LogUnavailable."""

    def append(self, records: Sequence[Record]) -> None:
        """Returns when they are durable."""

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """As dead letters."""

    def wait(self) -> bool:
        """Returns when all that was appended is loaded; False where nothing ever is."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A record of the vendor's, and when it was asked for."""

    record: Entry
    at: datetime


@dataclass(frozen=True, slots=True)
class _Read:
    """A record that could be read as a booking."""

    booking: Booking
    asked: _Asked


class Sweep:
    """Of one account; `counts` grows while it runs."""

    def __init__(self, rest: AnyRest, warehouse: Warehouse, log: Log, lag: timedelta, counts: Counts) -> None:
        self._rest = rest
        self._warehouse = warehouse
        self._log = log
        self._lag = lag
        self.counts = counts
        self._ids: set[str] = set()
        self._ids_before: set[str] = set()
        self._missed: set[tuple[str, str]] = set()
        self._repairs: list[tuple[Event, Booking]] = []

    def window(self, window: Window, progress: Callable[[], None]) -> None:
        """Raises VendorUnavailable, VendorRefused, WarehouseUnavailable, LogUnavailable; what was appended by then is right."""
        self._ids, self._ids_before = set(), self._ids
        self._missed.clear()
        try:
            with ThreadPoolExecutor(self._rest.parallel, thread_name_prefix=self._rest.account.name) as pool:
                for block in self._blocks(widened(window, _OVERLAP)):
                    self._compare_block(block, pool)
                    progress()
                self._look_for_gone(window, pool)
        except (VendorUnavailable, VendorRefused):
            self._append()  # what was found until then need not be found again
            raise
        self._repair()
        progress()

    def _blocks(self, window: Window) -> Iterator[list[_Asked]]:
        """The vendor's list, so much at a time as is compared with the warehouse in one query."""
        block: list[_Asked] = []
        at = datetime.now(UTC)
        for page in self._rest.bookings(window):
            self.counts.least_requests += 1
            block += [_Asked(entry, at) for entry in page]
            if len(block) >= _BLOCK:
                yield block
                block = []
            at = datetime.now(UTC)
        yield block

    def _compare_block(self, block: Sequence[_Asked], pool: ThreadPoolExecutor) -> None:
        keyed = [(key, asked) for asked in block if (key := self._readable(asked, self._rest.key))]
        stored = self._stored(self._rest.listed_by, [key for key, _ in keyed])
        differing = [asked for key, asked in keyed if not self._alike(asked, stored.get(key, ()))]
        completed = [[read for one in some if (read := self._read(one))] for some in pool.map(self._complete, differing)]
        missed = self._take([read for some in completed for read in some])
        if self._rest.reads_each:
            self.counts.least_requests += sum(any(read.booking.booking_id in missed for read in some) for some in completed)

    def _alike(self, asked: _Asked, stored: Sequence[Stored]) -> bool:
        """Whether nothing more need be read of an entry; then its bookings are counted here."""
        if self._rest.listed_by == "group_id":
            same = self._readable(asked, lambda entry: self._rest.alike(entry, stored))
        elif read := self._read(asked):
            same = self._verdict(read, next(iter(stored), None)) is Verdict.MATCHED
        else:
            return True  # it was set aside
        if same:
            for one in stored:
                self._count(one.booking.booking_id, Verdict.MATCHED)
        return bool(same)

    def _complete(self, asked: _Asked) -> list[_Asked]:
        """In a thread of the pool. What was listed whole is as old as its page, what is read now is not."""
        at = asked.at if self._rest.listed_by == "booking_id" else datetime.now(UTC)
        return [_Asked(record, at) for record in self._rest.complete(asked.record)]

    def _take(self, read: Sequence[_Read]) -> set[str]:
        """Compares each with its own row, and appends what the warehouse lacks or has older: returns the ids of those."""
        stored = self._stored("booking_id", [one.booking.booking_id for one in read])
        missed: list[_Read] = []
        for one in read:
            held = next(iter(stored.get(one.booking.booking_id, ())), None)
            verdict = self._verdict(one, held)
            if verdict is not Verdict.MISSED:
                self._count(one.booking.booking_id, verdict)
            elif (state := (one.booking.booking_id, one.booking.version)) not in self._missed:
                self._missed.add(state)
                self._count(one.booking.booking_id, verdict, one.booking.status)
                missed.append(one)
        self._repairs += [
            (self._rest.vendor.observe(one.asked.record, one.asked.at, self._supersedes(one, stored)), one.booking) for one in missed
        ]
        if len(self._repairs) >= _FLUSH:
            self._repair()
        return {one.booking.booking_id for one in missed}

    def _supersedes(self, read: _Read, stored: Mapping[str, Sequence[Stored]]) -> str:
        return supersedes(read.booking, next(iter(stored.get(read.booking.booking_id, ())), None))

    def _append(self) -> list[tuple[Event, Booking]]:
        appended, self._repairs = self._repairs, []
        if appended:
            self._log.append([event.to_record() for event, _ in appended])
        return appended

    def _repair(self) -> None:
        """Many at a time, because each load holds up the reading. One counts when the warehouse, asked again, has it or something newer."""
        appended = self._append()
        if not appended or not self._log.wait():
            return
        missed = [booking for event, booking in appended if event.type != GONE and booking.status not in self._rest.untold]
        stored = self._stored("booking_id", [booking.booking_id for booking in missed])
        doubted_before = datetime.now(UTC) - self._lag
        for booking in missed:
            held = next(iter(stored.get(booking.booking_id, ())), None)
            self.counts.repaired += compare(booking, held, self._rest.compared, doubted_before) is not Verdict.MISSED

    def _look_for_gone(self, window: Window, pool: ThreadPoolExecutor) -> None:
        """What the warehouse has in the window and the vendor did not list: moved out of it, or gone."""
        unlisted, total = self._unlisted(window)
        if len(unlisted) > max(_FEW, total // 2):
            raise ConfigurationError(
                f"{self._rest.label}: {len(unlisted)} of {total} bookings here are not in the vendor's list. Is the key another account's?"
                " None was marked as gone"
            )
        self.counts.least_requests += len(unlisted)
        found = dict(zip(unlisted, pool.map(self._fetch, unlisted), strict=True))
        self._take([read for asked in found.values() if asked and (read := self._read(asked))])
        self._mark_gone([booking_id for booking_id, asked in found.items() if asked is None])

    def _mark_gone(self, booking_ids: Sequence[str]) -> None:
        """What it was comes along, from its row: nobody else can tell any more."""
        now = datetime.now(UTC)
        rows = [one.booking for some in self._stored("booking_id", booking_ids).values() for one in some]
        self.counts.gone += len(rows)
        self._repairs += [(self._rest.vendor.gone(booking, now), booking) for booking in rows]

    def _unlisted(self, window: Window) -> tuple[list[str], int]:
        """Those, and how many rows there are at all; a row younger than the vendor's lag is not doubted."""
        unlisted: list[str] = []
        total = 0
        doubted_before = datetime.now(UTC) - self._lag
        for some in self._warehouse.within(self._rest.swept_by, *self._whose, window.since, window.until):
            total += len(some)
            unlisted += [booking_id for booking_id, loaded_at in some if not self._was_seen(booking_id) and loaded_at < doubted_before]
        return unlisted, total

    def _fetch(self, booking_id: str) -> _Asked | None:
        """In a thread of the pool; None when it is gone. An id that cannot be asked for is no record that can be read, and not gone."""
        at = datetime.now(UTC)
        try:
            record = self._rest.fetch(booking_id)
        except PayloadError:
            record = {}
        return None if record is None else _Asked(record, at)

    def _stored(self, column: Literal["booking_id", "group_id"], keys: Iterable[str]) -> Mapping[str, Sequence[Stored]]:
        wanted = list(dict.fromkeys(keys))
        return self._warehouse.by(column, *self._whose, wanted) if wanted else {}

    @property
    def _whose(self) -> tuple[str, str]:
        return self._rest.vendor.name, self._rest.account.name

    def _verdict(self, read: _Read, held: Stored | None) -> Verdict:
        return compare(read.booking, held, self._rest.compared, read.asked.at - self._lag)

    def _was_seen(self, booking_id: str) -> bool:
        return booking_id in self._ids or booking_id in self._ids_before

    def _count(self, booking_id: str, verdict: Verdict, status: BookingStatus | None = None) -> None:
        """Windows overlap, and lists shift while they are read: what is seen again counts only when it was missed again."""
        again = self._was_seen(booking_id)
        self._ids.add(booking_id)
        if verdict is Verdict.MISSED or not again:
            self.counts.seen += 1
            self.counts.matched += verdict is Verdict.MATCHED
            told = status not in self._rest.untold
            self.counts.missed += verdict is Verdict.MISSED and told
            self.counts.untold += verdict is Verdict.MISSED and not told
            self.counts.newer_here += verdict is Verdict.NEWER_HERE

    def _read(self, asked: _Asked) -> _Read | None:
        booking = self._readable(asked, lambda record: self._rest.vendor.booking_of_record(orjson.dumps(record)))
        return _Read(booking, asked) if booking else None

    def _readable(self, asked: _Asked, read: Callable[[Entry], T]) -> T | None:
        """None for what is not as the vendor documents it; it is counted and set aside, and stops nothing."""
        try:
            return read(asked.record)
        except PayloadError as error:
            self.counts.unreadable += 1
            log.warning("reconcile.unreadable", source=self._rest.vendor.source, detail=str(error))
            data = orjson.dumps(asked.record)
            source = self._rest.vendor.source
            letter = DeadLetter(source=source, reason="unreadable_record", detail=str(error), happened_at=asked.at, data=data, headers={})
            self._log.set_aside([letter])
            return None
