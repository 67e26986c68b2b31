"""One window of one account: read what the vendor has, compare, append what was missed, wait until it is loaded, look again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import orjson
import structlog

from ingest.booking import Booking, BookingStatus, Stored
from ingest.dead_letter import DeadLetter
from ingest.errors import ConfigurationError, PayloadError, VendorRefused, VendorUnavailable
from ingest.rest import Record as Entry
from ingest.vendors.rest import AnyRest, Window
from receivers.reconcile.compare import Verdict, compare, supersedes, widened
from receivers.reconcile.proof import Log, Proof, Warehouse
from receivers.reconcile.report import Counts

log = structlog.get_logger()
T = TypeVar("T")

_OVERLAP = timedelta(minutes=5)
_BLOCK = 1000  # entries compared with the warehouse in one query
# More of a window's bookings than this gone at once is more likely a key of another account than the truth.
_FEW = 50


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
        self._proof = Proof(rest, warehouse, log, lag, counts)

    def window(self, window: Window, progress: Callable[[], None]) -> None:
        """Raises VendorUnavailable, VendorRefused, WarehouseUnavailable, LogUnavailable; what was appended by then is right."""
        self._ids, self._ids_before = set(), self._ids
        self._missed.clear()
        try:
            with ThreadPoolExecutor(self._rest.parallel, thread_name_prefix=self._rest.account.name) as pool:
                for block in self._blocks(widened(window, _OVERLAP)):
                    self._compare_block(block, pool)
                    progress()
                self._proof.complete()
                self._look_for_gone(window, pool)
        except (VendorUnavailable, VendorRefused):
            self._proof.append()  # what was found until then need not be found again
            raise
        self._proof.complete()
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
        else:
            read = self._read(asked)
            same = None if read is None else self._verdict(read, next(iter(stored), None)) is Verdict.MATCHED
        for one in stored if same else ():
            if one.booking.gone_at is None:
                self._count(one.booking.booking_id, Verdict.MATCHED)
        return same is not False  # None was set aside

    def _complete(self, asked: _Asked) -> list[_Asked]:
        """In a thread of the pool. What was listed whole is as old as its page, what is read now is not."""
        at = asked.at if self._rest.listed_by == "booking_id" else datetime.now(UTC)
        return [_Asked(record, at) for record in self._rest.complete(asked.record)]

    def _take(self, read: Sequence[_Read]) -> set[str]:
        """Compares each with its own row, and appends what the warehouse lacks or has older: returns the ids of those."""
        stored = self._stored("booking_id", [one.booking.booking_id for one in read])
        missed: set[str] = set()
        for one in read:
            booking = one.booking
            held = next(iter(stored.get(booking.booking_id, ())), None)
            verdict = self._verdict(one, held)
            if verdict is not Verdict.MISSED:
                self._count(booking.booking_id, verdict)
            elif (state := (booking.booking_id, booking.version)) not in self._missed:
                self._missed.add(state)
                missed.add(booking.booking_id)
                self._count(booking.booking_id, verdict, booking.status)
                self._proof.add(self._rest.vendor.observe(one.asked.record, one.asked.at, supersedes(booking, held)), booking)
        return missed

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
        for booking in rows:
            self._proof.add(self._rest.vendor.gone(booking, now), booking)

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
