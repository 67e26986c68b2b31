"""The loop: poll, read, guard, load, commit. Nothing is committed that is not in the warehouse or a dead letter in the log."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog

from consumers.batch import BadRun, Item, Plan, Topics, candidates, incomplete, plan_load, read_batch, set_aside
from consumers.rows import Row
from consumers.warehouse import Warehouse
from ingest.booking import BookingStatus
from ingest.dead_letter import DeadLetter
from ingest.errors import CommitFailed, IngestError, LoadRefused, LogUnavailable, PayloadError, WarehouseUnavailable
from ingest.event import Via, whose
from ingest.instant import parse_instant
from ingest.log import Consumer, Producer, StoredRecord, durable
from ingest.settings import Settings
from ingest.telemetry import (
    BATCH_RECORDS,
    DEAD_LETTERS,
    EVENTS_LOADED,
    EVENTS_STALE,
    FRESHNESS_SECONDS,
    LAG_RECORDS,
    LOAD_SECONDS,
    MISSED,
    RECONCILED_AT,
    RECONCILIATIONS,
    UNKNOWN_STATUS,
)
from ingest.vendors.mapping import BookingMapper

log = structlog.get_logger()

_POLL_SECONDS = 1.0
_POLL_RECORDS = 100  # so few at a time that the size of a batch is looked at before it is far too large
_APPEND_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_LAG_EVERY_SECONDS = 15.0


class Loader:
    """Loads run on one worker thread, because dlt swaps signal handlers when it runs on the main one.

    The loop waits for each load, so that partitions do not move while one is under way: Kafka hands them over when the
    consumer polls again, or when it has not been heard of for too long.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        producer: Producer,
        warehouse: Warehouse,
        current: Callable[[], Settings] | None = None,
    ) -> None:
        """`current` tells the accounts of now, where they may change while it runs."""
        self._settings = self._mapped = settings
        self._current = current or (lambda: settings)
        self._consumer = consumer
        self._producer = producer
        self._warehouse = warehouse
        self._topics = Topics(settings.dead_letter_topic, settings.audit_topic)
        self._mapper = BookingMapper(settings.vendors())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._unreadable = BadRun(settings.consumer.dead_letter_limit)
        self._refused = BadRun(settings.consumer.dead_letter_limit)
        self._prepared = False
        self._lag_due = 0.0
        self.trouble: IngestError | None = None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises DeadLetterLimit; waits out a log or a warehouse that is away."""
        pause = _FIRST_PAUSE_SECONDS
        while not stop.is_set():
            try:
                self._prepare()
                self.step()
                self.trouble = None
                pause = _FIRST_PAUSE_SECONDS
            except (WarehouseUnavailable, LogUnavailable, CommitFailed) as error:
                self.trouble = error
                log.warning("loader.waiting", why=f"{type(error).__name__}: {error}", seconds=round(pause, 1))
                self._start_over()
                stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def step(self) -> int:
        """One batch from poll to commit; the number of records in it."""
        generation = self._consumer.generation()
        records = self._collect()
        if self._consumer.generation() != generation:
            self._start_over()  # some of these may be another consumer's by now
            return 0
        if records:
            self._follow_accounts()
            self._thread.submit(self._process, records).result()
            self._consumer.commit(records)
            self._settle()
        self._report_lag()
        return len(records)

    def _follow_accounts(self) -> None:
        settings = self._current()
        if settings is not self._mapped:
            self._mapped, self._mapper = settings, BookingMapper(settings.vendors())

    def _prepare(self) -> None:
        """The tables are there to be read before the first event."""
        if not self._prepared:
            self._thread.submit(self._warehouse.prepare).result()
            self._prepared = True

    def _collect(self) -> list[StoredRecord]:
        """Until the batch is full, or its first record has waited long enough since it was received."""
        limits = self._settings.consumer
        linger = limits.linger.total_seconds()
        records = self._consumer.poll(min(limits.max_records, _POLL_RECORDS), _POLL_SECONDS)
        deadline = time.monotonic() + linger - (_age(records[0], datetime.now(UTC)) if records else 0.0)
        while records and len(records) < limits.max_records and _size(records) < limits.max_bytes:
            some = min(limits.max_records - len(records), _POLL_RECORDS)
            more = self._consumer.poll(some, max(0.0, deadline - time.monotonic()))
            if not more:
                break
            records += more
        return records

    def _process(self, records: Sequence[StoredRecord]) -> None:
        started = time.monotonic()
        batch = read_batch(records, self._topics, self._mapper, datetime.now(UTC))
        _tell(batch.dead)
        self._unreadable.note(batch.readable)
        dead = batch.dead + self._load(batch.items, batch.letters)
        self._append_dead(dead)
        seconds = time.monotonic() - started
        BATCH_RECORDS.observe(len(records))
        LOAD_SECONDS.observe(seconds)
        log.info("batch.loaded", records=len(records), dead=len(dead), seconds=round(seconds, 3))

    def _load(self, items: Sequence[Item], letters: Sequence[StoredRecord]) -> list[DeadLetter]:
        """What the destination refuses is halved until the record to blame is alone; returns those, to be set aside."""
        if not items and not letters:
            return []
        try:
            with self._warehouse.turn(one.partition for one in (*(item.stored for item in items), *letters)):
                plan = self._plan(items, letters)
                self._warehouse.load(plan.rows)
        except LoadRefused as refusal:
            return self._load_apart(items, letters, refusal)
        self._refused.note(True for _ in items)
        _observe(items, plan)
        return []

    def _plan(self, items: Sequence[Item], letters: Sequence[StoredRecord]) -> Plan:
        """The warehouse is asked each time: what a consumer remembers of it is wrong once it was frozen and another went on, or it was taken away."""
        told = candidates(items)
        stored = self._warehouse.versions({one.key for one in told})
        whole = self._warehouse.bookings(incomplete(told, stored))
        return plan_load(items, letters, {**stored, **whole}, datetime.now(UTC))

    def _load_apart(self, items: Sequence[Item], letters: Sequence[StoredRecord], refusal: LoadRefused) -> list[DeadLetter]:
        if len(items) + len(letters) > 1:
            return [dead for part in _halves(items, letters) for dead in self._load(*part)]
        if letters:
            raise WarehouseUnavailable(f"dead letter {letters[0].position} is refused, and must not be lost: {refusal}")
        dead = [set_aside(items[0].stored, "load_refused", str(refusal), datetime.now(UTC))]
        _tell(dead)
        self._refused.note([False])
        return dead

    def _append_dead(self, letters: Sequence[DeadLetter]) -> None:
        """After the load, which may have to be repeated, and before the commit. Raises LogUnavailable."""
        if not letters:
            return
        future = self._producer.append(self._settings.dead_letter_topic, [letter.to_record() for letter in letters])
        durable(future, _APPEND_SECONDS, "the dead letters")
        for letter in letters:
            DEAD_LETTERS.labels(*whose(letter.source), letter.reason).inc()

    def _report_lag(self) -> None:
        if time.monotonic() >= self._lag_due:
            self._lag_due = time.monotonic() + _LAG_EVERY_SECONDS
            for entry in self._consumer.backlog():
                LAG_RECORDS.labels(entry.partition.topic, entry.partition.number).set(entry.lag)

    def _settle(self) -> None:
        self._unreadable.settle()
        self._refused.settle()

    def _start_over(self) -> None:
        self._unreadable.rewind()
        self._refused.rewind()
        try:
            self._consumer.rewind()
            self._report_lag()
        except LogUnavailable as error:
            log.warning("loader.rewind_failed", why=str(error))


def _observe(items: Sequence[Item], plan: Plan) -> None:
    visible = datetime.now(UTC)
    for event in (item.event for item in items if item.table == "booking_events"):
        EVENTS_LOADED.labels(event.vendor, event.account, event.via).inc()
        if event.via is not Via.REPLAY:
            FRESHNESS_SECONDS.labels(event.vendor, event.account).observe((visible - event.received_at).total_seconds())
    for item in items:
        if item.table == "reconciliations" and item.event.via is not Via.REPLAY:
            _observe_reconciliation(item.row)
    for stale in plan.stale:
        EVENTS_STALE.labels(*stale.key[:2]).inc()
    for item in items:
        if item.booking and item.booking.status is BookingStatus.UNKNOWN and "status" not in item.booking.untold:
            UNKNOWN_STATUS.labels(item.event.vendor, item.event.account).inc()


def _observe_reconciliation(row: Row) -> None:
    labels = (row["vendor"], row["account"])
    MISSED.labels(*labels).inc(row["missed"])
    RECONCILIATIONS.labels(*labels, row["outcome"]).inc()
    if row["outcome"] == "complete":
        RECONCILED_AT.labels(*labels).set(row["finished_at"].timestamp())


def _tell(letters: Sequence[DeadLetter]) -> None:
    for letter in letters:
        log.warning("record.dead_lettered", source=letter.source, reason=letter.reason, detail=letter.detail, position=letter.position)


def _halves(items: Sequence[Item], letters: Sequence[StoredRecord]) -> Iterator[tuple[Sequence[Item], Sequence[StoredRecord]]]:
    """In the order of the log; dead letters apart from what may be one."""
    if items and letters:
        yield items, []
        yield [], letters
        return
    middle = (len(items) + len(letters)) // 2
    yield items[:middle], letters[:middle]
    yield items[middle:], letters[middle:]


def _size(records: Sequence[StoredRecord]) -> int:
    return sum(len(stored.record.value) for stored in records)


def _age(stored: StoredRecord, now: datetime) -> float:
    """Seconds since we received it, none by another machine's faster clock; a record that does not say so is old enough."""
    try:
        return max(0.0, (now - parse_instant(stored.record.headers["ce_receivedat"])).total_seconds())
    except (KeyError, PayloadError):
        return float("inf")
