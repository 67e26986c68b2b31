"""One window of one account: read what the vendor has, compare, append what was missed, wait until it is loaded, look again."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar

import orjson
import structlog

from ingest.booking import Booking, BookingStatus, Stored
from ingest.clock import is_recent
from ingest.dead_letter import DeadLetter
from ingest.errors import ConfigurationError, IngestError, PayloadError
from ingest.rest import Record as Entry
from ingest.vendors.rest import AnyRest, Window
from receivers.reconcile.compare import Verdict, compare, is_of_future, row_version, supersedes, widened
from receivers.reconcile.ownership import Ownership
from receivers.reconcile.repairs import Proof, Warehouse

log = structlog.get_logger()
T = TypeVar("T")
Result = TypeVar("Result")

_OVERLAP = timedelta(minutes=5)
_BLOCK = 1000  # entries compared with the warehouse in one query
_BLOCK_BYTES = 8 * 1024 * 1024  # of their JSON, and of the bookings that are read of them
_AHEAD = 2  # requests that may be done before their answers are compared, for each that is sent at once
_SOME = 100  # bookings asked for one by one, before looking how many of them are gone
# Of more than so many, more than half gone at once is likelier to be a key of another account than the truth.
_FEW = 2


@dataclass(frozen=True, slots=True)
class _Asked:
    """A record of the vendor's, None for one that it no longer has, and when it was asked for."""

    record: Entry | None
    at: datetime


@dataclass(frozen=True, slots=True)
class _Read:
    """A record that could be read as a booking."""

    booking: Booking
    record: Entry
    at: datetime


class Sweep:
    """Of one account: window after window, then what none of them had. `counts` grows while it runs.

    So do `unlisted`, the ids that the windows until now should have had, and `rows`: a run that goes on takes them over.
    """

    def __init__(self, rest: AnyRest, warehouse: Warehouse, proof: Proof, ownership: Ownership) -> None:
        """`proof` has the vendor's lag and the run's counts too."""
        self._rest = rest
        self._warehouse = warehouse
        self._proof = proof
        self._ownership = ownership
        self._lag = proof.lag
        self.counts = proof.counts
        self._ids: set[str] = set()
        self._ids_before: set[str] = set()
        self._missed: set[int] = set()
        self._children: set[str] = set()
        self.unlisted: set[str] = set()
        self.rows = 0

    def window(self, window: Window, progress: Callable[[str], None]) -> None:
        """Raises VendorUnavailable, VendorRefused, WarehouseUnavailable, LogUnavailable; what was appended by then is right."""
        self._ids, self._ids_before = set(), self._ids
        progress("waiting for the consumer")
        self._proof.wait()  # or what is in the log and not loaded would look missing
        with (
            self._keeping_what_was_found(),
            ThreadPoolExecutor(self._rest.parallel, thread_name_prefix=self._rest.account.name) as pool,
        ):
            for block in self._blocks(widened(window, _OVERLAP)):
                self._compare_block(block, pool)
                progress("")
            self._note_unlisted(window)
        progress("waiting for the consumer")
        self._proof.complete()
        progress("")

    def finish(self) -> None:
        """What the warehouse has in the windows and the vendor listed in none: gone, or moved out of them. Raises as `window`."""
        with (
            self._keeping_what_was_found(),
            ThreadPoolExecutor(self._rest.parallel, thread_name_prefix=self._rest.account.name) as pool,
        ):
            absent, others_were_read = self._ask_for(sorted(self.unlisted), pool)
            if absent and self._ownership.confirm_absence(absent, others_were_read=others_were_read):
                self._mark_gone(absent)
        self._proof.complete()

    @contextmanager
    def _keeping_what_was_found(self) -> Iterator[None]:
        """Whatever the trouble: what was found until then need not be found again."""
        try:
            yield
        except IngestError:
            with suppress(IngestError):
                self._proof.append()
            raise

    def _blocks(self, window: Window) -> Iterator[list[_Asked]]:
        """The vendor's list, so much at a time as is compared with the warehouse in one query."""
        block: list[_Asked] = []
        size = 0
        for page in self._rest.bookings(window):
            self.counts.least_requests += 1
            at = self._rest.asked_at
            for entry in page:
                block.append(_Asked(entry, at))
                size += _json_bytes(entry)
                if len(block) >= _BLOCK or size >= _BLOCK_BYTES:
                    yield block
                    block, size = [], 0
        yield block

    def _compare_block(self, block: Sequence[_Asked], pool: ThreadPoolExecutor) -> None:
        keyed = [(key, asked) for asked in block if (key := self._readable(asked, self._rest.key))]
        stored = self._stored(self._rest.listed_by, [key for key, _ in keyed])
        differing = [asked for key, asked in keyed if not self._alike(asked, stored.get(key, ()))]
        part: list[tuple[_Asked, list[_Read]]] = []
        size = 0
        for asked, some in zip(differing, self._map(pool, self._complete, differing), strict=True):
            part.append((asked, [read for one in some if (read := self._read(one))]))
            size += sum(_json_bytes(one.record) for one in some)
            if size >= _BLOCK_BYTES:
                self._take_completed(part)
                part, size = [], 0
        self._take_completed(part)

    def _take_completed(self, completed: Sequence[tuple[_Asked, Sequence[_Read]]]) -> None:
        """Take the bookings of entries, and count the requests that those took that were missed."""
        missed = self._take([read for _, some in completed for read in some])
        for asked, some in completed:
            if any(read.booking.booking_id in missed for read in some):
                self._count_children(asked.record or {})

    def _map(
        self, pool: ThreadPoolExecutor, work: Callable[[T], Result], items: Iterable[T]
    ) -> Iterator[Result]:
        """Yield results in order, few of them waiting at any time: `ThreadPoolExecutor.map` would gather all that come meanwhile."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _AHEAD * self._rest.parallel:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _count_children(self, entry: Entry) -> None:
        """What several have in common, such as a customer, need be asked for once."""
        children = self._rest.children(entry) - self._children
        self._children |= children
        self.counts.least_requests += len(children)

    def _alike(self, asked: _Asked, stored: Sequence[Stored]) -> bool:
        """Whether nothing more need be read of an entry; then its bookings are counted here."""
        if any(is_of_future(one, asked.at) for one in stored):
            return False
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
        """In a thread of the pool. What was listed whole is as old as its page; what cannot be completed is set aside as it was listed."""
        try:
            records = self._rest.complete(asked.record or {})
        except PayloadError:
            return [asked]
        at = asked.at if self._rest.listed_by == "booking_id" else self._rest.asked_at
        return [_Asked(record, at) for record in records]

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
            elif (state := hash((booking.booking_id, booking.version))) not in self._missed:
                self._missed.add(state)
                missed.add(booking.booking_id)
                self._count(booking.booking_id, verdict, booking.status)
                self._proof.add(
                    self._rest.account.observe(one.record, one.at, supersedes(booking, held, one.at)), booking
                )
        return missed

    def _note_unlisted(self, window: Window) -> None:
        """A row younger than the vendor's lag is not doubted; one that a later window lists is not gone."""
        now = self._rest.now()
        for some in self._warehouse.within(self._rest.swept_by, *self._whose, window.since, window.until):
            self.rows += len(some)
            self.unlisted |= {
                booking_id for booking_id, loaded_at in some if not is_recent(loaded_at, now, self._lag)
            }
        self.unlisted -= self._ids | self._ids_before

    def _ask_for(
        self, booking_ids: Sequence[str], pool: ThreadPoolExecutor
    ) -> tuple[dict[str, datetime], bool]:
        """Ask for bookings one by one, and take those that are there; return when each other was asked for, and whether any could be read.

        Raises ConfigurationError when so many are gone that the key is likelier to be another account's.
        """
        absent: dict[str, datetime] = {}
        others_were_read = False
        for some in (booking_ids[at : at + _SOME] for at in range(0, len(booking_ids), _SOME)):
            there: list[_Asked] = []
            for booking_id, asked in zip(some, self._map(pool, self._fetch, some), strict=True):
                if asked.record is None:
                    absent[booking_id] = asked.at
                else:
                    there.append(asked)
            self.counts.least_requests += len(some)
            gone = len(absent)
            too_many = gone > _FEW and gone > min(self.rows, 2 * _SOME) / 2
            if too_many and not self._ownership.is_confirmed:
                raise ConfigurationError(
                    f"{self._rest.label}: at least {gone} of {self.rows} bookings here are not at the vendor. Is the key another account's?"
                    f" None was marked as gone. {self._ownership.way_on}"
                )
            others_were_read = others_were_read or any(asked.record for asked in there)
            self._take([read for asked in there if (read := self._read(asked))])
        return absent, others_were_read

    def _fetch(self, booking_id: str) -> _Asked:
        """In a thread of the pool. An id that cannot be asked for is no record that can be read, and not gone."""
        try:
            record = self._rest.fetch(booking_id)
        except PayloadError:
            record = {}
        return _Asked(record, self._rest.asked_at)

    def _mark_gone(self, asked_at: Mapping[str, datetime]) -> None:
        """What it was comes along, from its row: nobody else can tell any more. A row that came after it was asked for is no older news.

        Nor is one news that is marked already, by a run that was stopped at this and went on.
        """
        rows = [one for some in self._stored("booking_id", asked_at).values() for one in some]
        for one in rows:
            at = asked_at[one.booking.booking_id]
            if (
                one.booking.gone_at is None
                and not is_recent(one.loaded_at, at, self._lag)
                and self._ownership.covers(one)
            ):
                self.counts.gone += 1
                self._proof.add(self._rest.account.gone(one.booking, at, row_version(one)), one.booking)

    def _stored(
        self, column: Literal["booking_id", "group_id"], keys: Iterable[str]
    ) -> Mapping[str, Sequence[Stored]]:
        wanted = list(dict.fromkeys(keys))
        return self._warehouse.by(column, *self._whose, wanted) if wanted else {}

    @property
    def _whose(self) -> tuple[str, str]:
        return self._rest.account.vendor, self._rest.account.name

    def _verdict(self, read: _Read, held: Stored | None) -> Verdict:
        return compare(read.booking, held, self._rest.compared, read.at, self._lag)

    def _count(self, booking_id: str, verdict: Verdict, status: BookingStatus | None = None) -> None:
        """Windows overlap, and lists shift while they are read: what is seen again counts only when it was missed again."""
        again = booking_id in self._ids or booking_id in self._ids_before
        self._ids.add(booking_id)
        if verdict is not Verdict.YOUNG and (verdict is Verdict.MISSED or not again):
            self.counts.seen += 1
            self.counts.matched += verdict is Verdict.MATCHED
            told = status not in self._rest.untold
            self.counts.missed += verdict is Verdict.MISSED and told
            self.counts.untold += verdict is Verdict.MISSED and not told
            self.counts.newer_here += verdict is Verdict.NEWER_HERE

    def _read(self, asked: _Asked) -> _Read | None:
        booking = self._readable(
            asked, lambda record: self._rest.account.booking_of_record(orjson.dumps(record))
        )
        return _Read(booking, asked.record or {}, asked.at) if booking else None

    def _readable(self, asked: _Asked, read: Callable[[Entry], T]) -> T | None:
        """None for what is not as the vendor documents it; it is counted and set aside, and stops nothing."""
        try:
            return read(asked.record or {})
        except PayloadError as error:
            self.counts.unreadable += 1
            with suppress(PayloadError):
                self._ids.add(self._rest.key(asked.record or {}))  # it is there, whatever it is
            log.warning("reconcile.unreadable", source=self._rest.account.source, detail=str(error))
            data = orjson.dumps(asked.record)
            source = self._rest.account.source
            letter = DeadLetter(
                source=source,
                reason="unreadable_record",
                detail=str(error),
                happened_at=asked.at,
                data=data,
                headers={},
            )
            self._proof.set_aside(letter)
            return None


def _json_bytes(entry: Entry | None) -> int:
    return len(orjson.dumps(entry))
