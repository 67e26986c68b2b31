"""The loop of a consumer: poll, read, load, commit.

While there is a backlog, the next batches are read in a process of their own during the load of this one.
Nothing is committed that is not in the warehouse, or in the log as a dead letter.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog

from consumers.batch import Batch, Topics, assemble_batch, read_batch
from consumers.batch_size import BatchSize, total_bytes
from consumers.contents import Content
from consumers.dead_letters.limit import FailureLimit
from consumers.positions import find_behind, read_again, report_changes
from consumers.reading import ReadingProcess
from consumers.reporting import report_dead_letters, report_published
from consumers.traces import LoadTraces
from consumers.warehouse import Warehouse
from consumers.warehouse.locks import blockers
from consumers.warehouse.trial import try_destination
from consumers.writer import BatchWriter, WarehouseReplaced
from ingest.dead_letter import append_dead_letters
from ingest.errors import (
    CommitFailed,
    IngestError,
    LogUnavailable,
    OutOfMemory,
    PayloadError,
    WarehouseUnavailable,
)
from ingest.event import vendor_and_account
from ingest.log import APPEND_SECONDS, Consumer, Partition, PositionChange, Producer, StoredRecord
from ingest.log.bookmarks import Bookmarks
from ingest.readiness import UndoneWork
from ingest.settings import Settings
from ingest.telemetry import BATCH_RECORDS, DEAD_LETTERS, LAG_RECORDS, LOAD_SECONDS
from ingest.times import parse_instant
from ingest.vendors import BookingMapper

log = structlog.get_logger()

_POLL_SECONDS = 1.0
_POLL_RECORDS = 1000
_BACKLOG_RECORDS = 500  # a batch that has as many at once has more behind it, which may be on their way
_FETCH_SECONDS = 0.05
_LEAST_TO_READ_AHEAD = (
    704 * 1024 * 1024
)  # bytes of `consumer.memory`, of which the other process takes 128 MiB
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_LAG_EVERY_SECONDS = 15.0
_BATCHES_AHEAD = 2  # one that is being read, and one that waits for that


@dataclass(slots=True)
class _Polled:
    """Records that were polled for one batch, with the consumer's generation before that.

    `is_full` says that they are all that a batch may have, so that there are probably more behind them.
    `read` is what they mean, where the other process reads them: it gets only full batches. It is None where
    that process failed.
    """

    generation: int
    records: list[StoredRecord] = field(default_factory=list)
    bytes: int = 0
    is_full: bool = False
    read: "Future[Batch | None] | None" = None


class Loader:
    """Loads batches of records, one after the other.

    Loads run on a thread of their own, because dlt swaps signal handlers when it runs on the main one. The
    loop waits for each load, and polls meanwhile if there is a backlog. Kafka hands partitions over when the
    consumer polls, or when it was silent for too long: then nothing is committed, and another consumer loads
    the same records, which changes nothing.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        producer: Producer,
        warehouse: Warehouse,
        current_settings: Callable[[], Settings] | None = None,
    ) -> None:
        """`current_settings` returns those of now, of which only the accounts are used."""
        self._settings = self._mapped_settings = settings
        self._current_settings = current_settings or (lambda: settings)
        self._consumer = consumer
        self._producer = producer
        self._warehouse = warehouse
        self._traces = LoadTraces(settings)
        self._writer = BatchWriter(settings, warehouse, self._traces)
        self._unreadable = FailureLimit(settings.consumer.dead_letter_limit)
        self._size = BatchSize(settings.consumer)
        self._topics = Topics(settings.dead_letter_topic, settings.audit_topic)
        self._mapper = BookingMapper(settings.build_accounts())
        self._may_read_ahead = settings.consumer.memory >= _LEAST_TO_READ_AHEAD
        self._reading = ReadingProcess()
        self._stop = threading.Event()
        self._ahead: deque[_Polled] = deque()  # the next batches, as far as they were polled already
        self._load_began_at = -math.inf  # of the last load that was committed, by the monotonic clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._is_prepared = False
        # The consumer's generation in which the warehouse had all loads that the committed positions depend
        # on.
        self._compared_generation: int | None = None
        self._unreported_changes: list[PositionChange] = []
        self._lag_due = 0.0
        self.undone = UndoneWork(
            "consumer", settings.consumer.undone_limit, lambda: blockers(settings.warehouse)
        )
        self.trouble: IngestError | None = None

    def run(self, stop: threading.Event) -> None:
        """Load until `stop` is set, and wait while the log or the warehouse is out of reach.

        A batch that is being collected by then is loaded as it is. Raises DeadLetterLimit, and
        ConfigurationError where the destination returns other rows than were loaded.
        """
        self._stop = stop
        pause = _FIRST_PAUSE_SECONDS
        while not stop.is_set():
            try:
                self._prepare()
                self.step()
                self.trouble = None
                pause = _FIRST_PAUSE_SECONDS
            except (WarehouseUnavailable, LogUnavailable, CommitFailed) as error:
                # Its traceback would keep the batch in memory.
                error.__traceback__ = error.__cause__ = error.__context__ = None
                self.trouble = error
                log.warning("loader.waiting", why=f"{type(error).__name__}: {error}", seconds=round(pause, 1))
                self._start_over()
                stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def step(self) -> int:
        """Load one batch, from poll to commit; return the number of its records."""
        batch = self._collect()
        records, generation = batch.records, batch.generation
        self._unreported_changes += self._consumer.changes()
        report_changes(self._unreported_changes, self._settings, self._producer, self._consumer.bookmarks())
        self._unreported_changes = []
        if self._consumer.generation() != generation:
            self._start_over()  # some of these records may be another consumer's by now
            return 0
        if self._compared_generation != generation or (not records and self._warehouse.may_differ()):
            if self._read_again_what_is_missing():
                return 0
            self._compared_generation = generation
        if records:
            began_at = time.monotonic()
            self._warehouse.keep_open(batch.is_full)
            self.undone.begin(f"{len(records)} records from {records[0].position} on are being loaded")
            with self._traces.load(records):
                if not self._try_to_load(batch) or self._consumer.generation() != generation:
                    self._start_over()
                    return 0
                with self._traces.step("commit"):
                    self._consumer.commit(records, self._writer.load_id, self._writer.changes)
                report_published(self._writer.changes)
            self._load_began_at = began_at
            self._settle()
        else:
            self._reading.close()
        if not self._ahead:
            self._warehouse.keep_open(False)
        self.undone.end()
        self._thread.submit(self._warehouse.maintain).result()
        self._report_lag()
        return len(records)

    def close(self) -> None:
        """End the process that reads, and export the last spans."""
        self._reading.close()
        self._traces.close()

    def _prepare(self) -> None:
        """Make the tables before the first event, so that they can be read.

        A destination that the project does not test is tried first.
        """
        if not self._is_prepared:
            if not self._settings.warehouse.kind.is_tested:
                self.undone.begin("the destination is being tried")
                self._thread.submit(try_destination, self._settings).result()
            self.undone.begin("the tables are being made")
            self._thread.submit(self._warehouse.prepare).result()
            self._is_prepared = True

    def _collect(self) -> _Polled:
        """Poll until a batch is full or due, a stop is asked for, or partitions may have moved.

        Wait at most a second for its first record.
        """
        batch = self._ahead.popleft() if self._ahead else _Polled(self._consumer.generation())
        if not batch.records and not self._poll(batch, _POLL_SECONDS):
            return batch
        due = self._due(batch.records[0])
        while not (batch.is_full or self._stop.is_set()) and self._consumer.generation() == batch.generation:
            least = _FETCH_SECONDS if len(batch.records) >= _BACKLOG_RECORDS else 0.0
            if not self._poll(batch, min(max(least, due - time.monotonic()), _POLL_SECONDS)):
                if time.monotonic() >= due:
                    break
                self._report_lag()
        return batch

    def _poll(self, batch: _Polled, seconds: float) -> bool:
        """Add what fits to a batch; wait at most `seconds` for it, and return whether anything came."""
        most = min(self._size.records - len(batch.records), _POLL_RECORDS)
        records = self._consumer.poll(most, seconds, self._size.bytes - batch.bytes)
        batch.records += records
        batch.bytes += total_bytes(records)
        batch.is_full = self._size.is_reached_by(len(batch.records), batch.bytes)
        return bool(records)

    def _due(self, first: StoredRecord) -> float:
        """Return when a batch is due that is not full, by the monotonic clock.

        That is `Settings.linger` after its first record was received, and after the load before it began.
        """
        now = time.monotonic()
        waited = min(_age(first, datetime.now(UTC)), now - self._load_began_at)
        return now + self._settings.linger.total_seconds() - waited

    def _read_again_what_is_missing(self) -> bool:
        """Go back in the log where the warehouse is behind what was committed, and return whether it was.

        What was polled by then must not be loaded.
        """
        bookmarks = self._thread.submit(find_behind, self._warehouse, self._consumer.bookmarks()).result()
        if bookmarks:
            is_new = self._warehouse.is_new
            read_again(self._consumer, bookmarks, self._settings, self._producer, is_new=is_new)
            self._start_over()
        return bool(bookmarks)

    def _try_to_load(self, batch: _Polled) -> bool:
        """Load a batch, and return False where it is to be read again.

        It is read again in halves where memory is short, and after others where the warehouse was replaced.
        Raises OutOfMemory when the batch is one record, and as `BatchWriter.write` does.
        """
        settings = self._current_settings()
        if settings is not self._mapped_settings:
            self._mapped_settings, self._mapper = settings, BookingMapper(settings.build_accounts())
        records, bookmarks = batch.records, self._consumer.bookmarks()
        try:
            read = batch.read.result() if batch.read else None
            load = self._thread.submit(self._process, records, bookmarks, read)
            try:
                self._read_ahead(batch, load)
            finally:
                load.result()
        except WarehouseReplaced:
            return False
        except (OutOfMemory, MemoryError) as error:
            why = str(error) or "this process could not get more memory"
            if len(records) == 1:
                raise OutOfMemory(
                    f"{records[0].position}, a record of {records[0].record.size} bytes, does not fit alone:"
                    f" {why}"
                ) from None
            self._size.halve(records)
            log.warning("loader.batch_halved", records=len(records), bytes=total_bytes(records), why=why)
            return False
        self._size.grow()
        return True

    def _read_ahead(self, batch: _Polled, load: "Future[None]") -> None:
        """Poll the batches after this one while it is loaded, and let the other process read full ones.

        What waits already is polled; the end of the load does not wait for more.
        """
        newest = self._ahead[-1] if self._ahead else batch
        while self._may_read_ahead and newest.is_full and len(self._ahead) < _BATCHES_AHEAD:
            newest = _Polled(self._consumer.generation())
            while not newest.is_full and self._poll(newest, 0.0 if load.done() else _FETCH_SECONDS):
                pass
            if newest.is_full:
                with_events = [stored.record for stored in newest.records if self._topics.has_events(stored)]
                assemble = partial(self._assemble, newest.records)
                newest.read = self._reading.read(with_events, self._mapper, assemble)
            if newest.records:
                self._ahead.append(newest)

    def _assemble(self, records: Sequence[StoredRecord], contents: Sequence[Content]) -> Batch:
        return assemble_batch(records, self._topics, contents, datetime.now(UTC))

    def _process(
        self,
        records: Sequence[StoredRecord],
        bookmarks: Mapping[Partition, Bookmarks],
        read: Batch | None = None,
    ) -> None:
        """Load records after the commit with `bookmarks`; `read` is what they mean, if that is known."""
        started, now = time.monotonic(), datetime.now(UTC)
        batch = read or read_batch(records, self._topics, self._mapper, now)
        batch.set_loaded_at(now)
        report_dead_letters(batch.dead)
        self._unreadable.count(batch.readable)
        dead = batch.dead + self._writer.write(batch.to_load(), bookmarks)
        if dead:  # after the load, which may have to be repeated, and before the commit
            append_dead_letters(self._producer, self._settings.dead_letter_topic, dead, APPEND_SECONDS)
        for letter in dead:
            DEAD_LETTERS.labels(*vendor_and_account(letter.source), letter.reason).inc()
        seconds = time.monotonic() - started
        BATCH_RECORDS.observe(len(records))
        LOAD_SECONDS.observe(seconds)
        log.info("batch.loaded", records=len(records), dead=len(dead), seconds=round(seconds, 3))

    def _report_lag(self) -> None:
        if time.monotonic() >= self._lag_due:
            self._lag_due = time.monotonic() + _LAG_EVERY_SECONDS
            for entry in self._consumer.backlog():
                LAG_RECORDS.labels(entry.partition.topic, entry.partition.number).set(entry.lag)

    def _settle(self) -> None:
        self._unreadable.commit()
        self._writer.refused.commit()

    def _start_over(self) -> None:
        """Read again from what was committed."""
        if self._ahead:
            self._reading.close()
            self._ahead.clear()
        self._warehouse.keep_open(False)
        self._compared_generation = None
        self._unreadable.rewind()
        self._writer.refused.rewind()
        try:
            self._consumer.rewind()
            self._report_lag()
        except LogUnavailable as error:
            log.warning("loader.rewind_failed", why=str(error))


def _age(stored: StoredRecord, now: datetime) -> float:
    """Return the seconds since a record was received, at least 0; infinity where it does not say when."""
    try:
        return max(0.0, (now - parse_instant(stored.record.headers["ce_receivedat"])).total_seconds())
    except (KeyError, PayloadError):
        return float("inf")
