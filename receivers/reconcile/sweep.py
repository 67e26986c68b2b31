"""The comparison of one account: what its vendor lists, window by window, and what no window listed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypeVar

import orjson
import structlog

from ingest.booking import Booking, StoredBooking
from ingest.clock import CLOCK_SKEW, add_span, is_recent, version_instant
from ingest.dead_letter import DeadLetter
from ingest.errors import ConfigurationError, IngestError, PayloadError
from ingest.rest import Record
from ingest.vendors.rest import AnyRest, Window
from ingest.warehouse.bookings import BookingsTable
from receivers.completeness.verdicts import CLOCK_MARGIN
from receivers.reconcile.checkpoint import ProgressRecorder
from receivers.reconcile.compare import (
    Tally,
    Verdict,
    compare,
    is_after,
    row_version,
    superseded_version,
    widen,
)
from receivers.reconcile.ownership import Ownership
from receivers.reconcile.repairs import Repairs
from receivers.reconcile.report import Counts

T = TypeVar("T")
Result = TypeVar("Result")

log = structlog.get_logger()

Follow = Callable[[Window, str], None]  # called with the window and what is being done, "" for comparing

_OVERLAP = timedelta(minutes=5)
_BLOCK = 1000  # entries that are compared with the warehouse in one query
_BLOCK_BYTES = 8 * 1024 * 1024  # of their JSON, and of the bookings that are read of them
_AHEAD = 2  # requests that may be done before their answers are compared, for each that is sent at once
_FETCHED_TOGETHER = 100  # bookings that are fetched one by one before the absent ones are counted
# When more than these and more than half are absent, the key is likelier to be another account's.
_FEW = 2


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the vendor has of a booking, or of a list's entry: None if it has nothing. It was asked `at`."""

    record: Record | None
    at: datetime


@dataclass(frozen=True, slots=True)
class _Observation:
    """A booking as read from a vendor's record, for which the vendor was asked `at`."""

    booking: Booking
    record: Record
    at: datetime


class Sweep:
    """One comparison of an account with its vendor. Used once."""

    def __init__(
        self,
        rest: AnyRest,
        warehouse: BookingsTable,
        repairs: Repairs,
        ownership: Ownership,
        recorder: ProgressRecorder,
    ) -> None:
        self._rest = rest
        self._account = rest.account
        self._warehouse = warehouse
        self._repairs = repairs
        self._ownership = ownership
        self._recorder = recorder
        self._census = recorder.census
        self._tally = Tally(recorder.counts, rest.silent_statuses)
        self._unlisted = set(recorder.progress.unlisted)
        self._rows_seen = recorder.progress.rows
        self._parts_counted: set[str] = set()
        self._pool = ThreadPoolExecutor(rest.concurrency, thread_name_prefix=rest.account.name)

    def run(self, windows: Iterable[Window], follow: Follow) -> Counts:
        """Compare windows one after the other, then what none of them listed; return what was counted.

        Raises VendorUnavailable, VendorRefused, ConfigurationError, WarehouseUnavailable and LogUnavailable.
        Repairs that were found until then are appended all the same.
        """
        counts = self._recorder.counts
        requests_before = counts.requests
        try:
            with self._pool:
                self._repairs.wait_until_loaded()  # what is in the log helps to tell whose key it is
                self._ownership.check()
                for window in windows:
                    self._recorder.begin_window(window.since, self._unlisted, self._rows_seen)
                    self._sweep_window(window, partial(follow, window))
                    counts.requests = requests_before + self._rest.requests
                absent, others_were_read = self._fetch_unlisted()
                if absent and self._ownership.confirm_absence(absent, others_were_read=others_were_read):
                    self._mark_gone(absent)
                elif absent:
                    for rows in self._rows("booking_id", absent).values():
                        for row in rows:
                            self._census.note_doubted(row.booking)
                self._repairs.complete()
        except IngestError:
            with suppress(IngestError):
                self._repairs.append()
            raise
        finally:
            counts.requests = requests_before + self._rest.requests
        return counts

    def _sweep_window(self, window: Window, follow: Callable[[str], None]) -> None:
        """Compare one window, and return when its repairs are loaded."""
        self._tally.begin_window()
        self._census.begin_window()
        follow("waiting for the consumer")
        self._repairs.wait_until_loaded()  # what is in the log and not loaded would look missing
        further_pages = self._rest.further_pages
        for block in self._blocks(widen(window, _OVERLAP)):
            self._compare_block(block)
            follow("")
        if self._rest.further_pages > further_pages and self._rest.window_column == "updated_at":
            self._look_for_shifts()
        # What the vendor has not listed is noted, unless its row may be newer than that.
        now = self._rest.now()
        column, vendor, account = self._rest.window_column, self._account.vendor, self._account.name
        for part in self._warehouse.within(column, vendor, account, window.since, window.until):
            self._rows_seen += len(part)
            self._unlisted |= {
                booking_id
                for booking_id, loaded_at in part
                if not is_recent(loaded_at, now, self._repairs.lag)
            }
        self._unlisted -= self._tally.listed
        follow("waiting for the consumer")
        self._repairs.complete()
        end = window.until or self._rest.now()
        self._census.end_window(window.since, end, open_ended=window.until is None)
        follow("")

    def _look_for_shifts(self) -> None:
        """Ask what changed while a list of several pages was read.

        A booking that changes leaves its place in a list by time of change, and those behind it move up: one
        of them may have moved into a page that was read already.
        """
        began_at = self._census.began_at or self._rest.now()
        for page in self._rest.bookings(Window(began_at - self._repairs.lag - CLOCK_MARGIN, None)):
            self._recorder.counts.least_requests += 1
            for entry in page:
                if observation := self._observe(_Answer(entry, self._rest.last_request_at)):
                    self._census.note_shifted(observation.booking)

    def _blocks(self, window: Window) -> Iterator[list[_Answer]]:
        """Read the vendor's list of a window, in blocks that are compared in one query each."""
        block: list[_Answer] = []
        size = 0
        for page in self._rest.bookings(window):
            self._recorder.counts.least_requests += 1
            at = self._rest.last_request_at
            self._census.note_request(None if self._rest.clock_ahead is None else at)
            for entry in page:
                block.append(_Answer(entry, at))
                size += _json_bytes(entry)
                if len(block) >= _BLOCK or size >= _BLOCK_BYTES:
                    yield block
                    block, size = [], 0
        yield block

    def _compare_block(self, block: Sequence[_Answer]) -> None:
        """Compare a block of the list, and complete the entries that show a difference."""
        keyed = [(key, entry) for entry in block if (key := self._parse(entry, self._rest.key))]
        rows = self._rows(self._rest.key_column, [key for key, _ in keyed])
        differing = [entry for key, entry in keyed if not self._is_unchanged(entry, rows.get(key, ()))]
        completed: list[tuple[_Answer, list[_Observation]]] = []
        size = 0
        for entry, answers in zip(differing, self._map(self._complete, differing), strict=True):
            observations = [read for answer in answers if (read := self._observe(answer))]
            completed.append((entry, observations))
            size += sum(_json_bytes(answer.record) for answer in answers)
            if size >= _BLOCK_BYTES:
                self._repair_completed(completed)
                completed, size = [], 0
        self._repair_completed(completed)

    def _is_unchanged(self, entry: _Answer, rows: Sequence[StoredBooking]) -> bool:
        """Return whether an entry alone shows that its rows are right, and count these then.

        An entry that cannot be read is set aside, and is not completed either.
        """
        latest = add_span(entry.at, self._rest.clock_skew)
        if any(is_after(row, latest) for row in rows):
            return False
        if self._rest.key_column == "group_id":
            is_same = self._parse(entry, lambda record: self._rest.is_unchanged(record, rows))
        else:
            observation = self._observe(entry)
            row = next(iter(rows), None)
            is_same = None if observation is None else self._compare(observation, row) is Verdict.MATCHED
            if observation and is_same:
                self._census.note(observation.booking, is_held=True)
        for row in rows if is_same else ():
            if row.booking.gone_at is None:
                self._tally.count(row.booking.booking_id, Verdict.MATCHED)
                if self._rest.key_column == "group_id":
                    self._census.note(row.booking, is_held=True)
        return is_same is not False

    def _complete(self, entry: _Answer) -> list[_Answer]:
        """Fetch what the list leaves out; return an entry as it is when it cannot be completed."""
        try:
            records = self._rest.complete(entry.record or {})
        except PayloadError:
            return [entry]
        # An entry that is a booking is as old as its page.
        at = entry.at if self._rest.key_column == "booking_id" else self._rest.last_request_at
        return [_Answer(record, at) for record in records]

    def _repair_completed(self, completed: Sequence[tuple[_Answer, Sequence[_Observation]]]) -> None:
        """Repair the bookings of entries, and count the requests that completing the missed ones took."""
        missed = self._repair([observation for _, observations in completed for observation in observations])
        for entry, observations in completed:
            if any(observation.booking.booking_id in missed for observation in observations):
                # What several entries share, such as a customer, has to be asked for once.
                parts = self._rest.detail_keys(entry.record or {}) - self._parts_counted
                self._parts_counted |= parts
                self._recorder.counts.least_requests += len(parts)

    def _repair(self, observations: Sequence[_Observation]) -> set[str]:
        """Compare bookings with their rows, repair the missed ones, and return their ids."""
        rows = self._rows("booking_id", [read.booking.booking_id for read in observations])
        missed: set[str] = set()
        for observation in observations:
            booking, at = observation.booking, observation.at
            row = next(iter(rows.get(booking.booking_id, ())), None)
            verdict = self._compare(observation, row)
            is_newer_here = verdict is Verdict.NEWER_HERE and row and row.booking.version > booking.version
            self._census.note(booking, is_held=verdict is Verdict.MATCHED or bool(is_newer_here))
            if verdict is not Verdict.MISSED:
                self._tally.count(booking.booking_id, verdict)
            elif self._tally.count_missed(booking):
                missed.add(booking.booking_id)
                superseded = superseded_version(booking, row, at, self._rest.clock_skew)
                self._repairs.add(self._account.observe(observation.record, at, superseded), booking)
        return missed

    def _fetch_unlisted(self) -> tuple[dict[str, datetime], bool]:
        """Fetch the unlisted bookings and repair those that the vendor has.

        Returns when each absent one was asked for, and whether any other could be read. Raises
        ConfigurationError when so many are absent that the key is likelier to be another account's.
        """
        absent: dict[str, datetime] = {}
        others_were_read = False
        unlisted = sorted(self._unlisted)
        for start in range(0, len(unlisted), _FETCHED_TOGETHER):
            booking_ids = unlisted[start : start + _FETCHED_TOGETHER]
            present: list[_Answer] = []
            for booking_id, answer in zip(booking_ids, self._map(self._fetch, booking_ids), strict=True):
                if answer.record is None:
                    absent[booking_id] = answer.at
                else:
                    present.append(answer)
            self._recorder.counts.least_requests += len(booking_ids)
            too_many = len(absent) > _FEW and len(absent) > min(self._rows_seen, 2 * _FETCHED_TOGETHER) / 2
            if too_many and not self._ownership.is_confirmed:
                raise ConfigurationError(
                    f"{self._rest.label}: at least {len(absent)} of {self._rows_seen} bookings here are not"
                    " at the vendor. Is the key another account's? None was marked as gone."
                    f" {self._ownership.way_on}"
                )
            others_were_read = others_were_read or any(answer.record for answer in present)
            observations = [read for answer in present if (read := self._observe(answer))]
            for observation in observations:
                self._note_left_out(observation.booking)
            self._repair(observations)
        return absent, others_were_read

    def _note_left_out(self, booking: Booking) -> None:
        """Note that the list left out a booking that had to be in it: it may have left out others too."""
        changed_at, census = version_instant(booking.version), self._census
        place = changed_at if self._rest.window_column == "updated_at" else booking.starts_at
        if not (changed_at and place and census.began_at):
            return
        has_settled = changed_at < census.began_at - self._repairs.lag - CLOCK_MARGIN
        if has_settled and census.since <= place < census.until:
            census.unsteady.append((census.since, census.until))

    def _fetch(self, booking_id: str) -> _Answer:
        """Fetch a booking. One whose id cannot be asked for is unreadable, not gone."""
        try:
            record = self._rest.fetch(booking_id)
        except PayloadError:
            record = {}
        return _Answer(record, self._rest.last_request_at)

    def _mark_gone(self, absent: Mapping[str, datetime]) -> None:
        """Mark bookings as gone whose absence is confirmed, each with what its row says of it."""
        for rows in self._rows("booking_id", absent).values():
            for row in rows:
                at = absent[row.booking.booking_id]
                # A younger row is newer than the vendor's answer. A run that was stopped has marked others.
                is_doubted = row.booking.gone_at is None and not is_recent(
                    row.loaded_at, at, self._repairs.lag
                )
                if is_doubted and not self._ownership.covers(row):
                    self._census.note_doubted(row.booking)
                elif is_doubted:
                    self._recorder.counts.gone += 1
                    self._repairs.add(self._account.gone(row.booking, at, row_version(row)), row.booking)

    def _rows(
        self, column: Literal["booking_id", "group_id"], keys: Iterable[str]
    ) -> Mapping[str, Sequence[StoredBooking]]:
        distinct = list(dict.fromkeys(keys))
        if not distinct:
            return {}
        return self._warehouse.by(column, self._account.vendor, self._account.name, distinct)

    def _compare(self, observation: _Observation, row: StoredBooking | None) -> Verdict:
        return compare(
            observation.booking,
            row,
            self._rest.compared_columns,
            observation.at,
            self._repairs.lag,
            skew=self._rest.clock_skew,
        )

    def _map(self, function: Callable[[T], Result], items: Iterable[T]) -> Iterator[Result]:
        """Call a function in the pool, and yield its results in order.

        Few results wait at any time: `ThreadPoolExecutor.map` would gather all that come meanwhile.
        """
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(self._pool.submit(function, item))
            if len(pending) >= _AHEAD * self._rest.concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _observe(self, answer: _Answer) -> _Observation | None:
        """Read a record as a booking; return None for one that is set aside.

        While nothing tells the vendor's time, the booking itself shows that its last change has come.
        """
        booking = self._parse(answer, lambda record: self._account.booking_of_record(orjson.dumps(record)))
        if booking is None:
            return None
        at, skew = answer.at, self._rest.clock_skew
        changed_at = version_instant(booking.version)
        if skew > CLOCK_SKEW and changed_at and at < changed_at <= add_span(at, skew):
            at = changed_at
        return _Observation(booking, answer.record or {}, at)

    def _parse(self, answer: _Answer, parse: Callable[[Record], T]) -> T | None:
        """Parse a record. One that is not as the vendor documents it is set aside, and None is returned."""
        try:
            return parse(answer.record or {})
        except PayloadError as error:
            self._recorder.counts.unreadable += 1
            self._census.note_unreadable(self._rest.changed_at(answer.record or {}))
            with suppress(PayloadError):
                self._tally.note_listed(self._rest.key(answer.record or {}))  # the vendor has it
            log.warning("reconcile.unreadable", source=self._account.source, detail=str(error))
            letter = DeadLetter(
                source=self._account.source,
                reason="unreadable_record",
                detail=str(error),
                happened_at=answer.at,
                data=orjson.dumps(answer.record),
                headers={},
            )
            self._repairs.set_aside(letter)
            return None


def _json_bytes(record: Record | None) -> int:
    return len(orjson.dumps(record))
