"""The loop: poll, read, guard, load, commit. Nothing is committed that is not in the warehouse or a dead letter in the log."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from math import ceil

import structlog

from consumers.batch import (
    BadRun,
    Item,
    Plan,
    Topics,
    candidates,
    incomplete,
    plan_load,
    read_batch,
    set_aside,
)
from consumers.letter_rows import dead_letter_row, former_id, is_letter_of_same_event, shortened
from consumers.positions import find_behind, go_back, newest_loads, note_changes
from consumers.rows import Row
from consumers.versions import Candidate
from consumers.warehouse import Warehouse
from consumers.warehouse.blocked import blockers
from ingest.booking import BookingStatus
from ingest.dead_letter import DeadLetter, append_dead_letters
from ingest.errors import (
    CommitFailed,
    IngestError,
    LoadRefused,
    LogUnavailable,
    OutOfMemory,
    PayloadError,
    RowsTooLarge,
    WarehouseUnavailable,
)
from ingest.event import Via, whose
from ingest.instant import format_instant, parse_instant
from ingest.log import APPEND_SECONDS, Consumer, PositionChange, Producer, StoredRecord
from ingest.settings import Settings
from ingest.telemetry import (
    BATCH_RECORDS,
    DEAD_LETTERS,
    EVENTS_IMPLAUSIBLE,
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
from ingest.undone import UndoneWork
from ingest.vendors.mapping import BookingMapper

log = structlog.get_logger()

_POLL_SECONDS = 1.0
_POLL_RECORDS = 100
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_LAG_EVERY_SECONDS = 15.0
_LARGE_SHARE = 256  # of DuckDB's memory: a record of less does not fill it, whatever is in it
_GROWING_LOADS = 16  # loads after which a batch may be as large again as before memory was short


class _Replaced(WarehouseUnavailable):
    """Between two loads the warehouse was restored, or another one took its place."""


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
        self.undone = UndoneWork(
            "consumer", settings.consumer.undone_limit, lambda: blockers(settings.warehouse)
        )
        self._consumer = consumer
        self._producer = producer
        self._warehouse = warehouse
        self._topics = Topics(settings.dead_letter_topic, settings.audit_topic)
        self._mapper = BookingMapper(settings.build_accounts())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._unreadable = BadRun(settings.consumer.dead_letter_limit)
        self._refused = BadRun(settings.consumer.dead_letter_limit)
        self._prepared = False
        # What the next batch may have: less where memory was short.
        self._most_records, self._most_bytes = settings.consumer.max_records, settings.consumer.batch_bytes
        self._agreed_in: int | None = (
            None  # the consumer's generation in which the warehouse had what the commits depend on
        )
        self._depends_on: frozenset[str] = frozenset()  # the loads that they depend on
        self._changes: list[PositionChange] = []  # of the log, not noted yet
        self._load_id = ""  # of this batch's newest load
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
                self.trouble = _without_traceback(error)
                log.warning("loader.waiting", why=f"{type(error).__name__}: {error}", seconds=round(pause, 1))
                self._start_over()
                stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def step(self) -> int:
        """One batch from poll to commit; the number of records in it."""
        generation = self._consumer.generation()
        records = self._collect()
        self._note_changes()
        if self._consumer.generation() != generation:
            self._start_over()  # some of these may be another consumer's by now
            return 0
        if self._agreed_in != generation or (not records and self._warehouse.may_differ()):
            if self._follow_warehouse():
                return 0
            self._agreed_in = generation
        if records:
            self._follow_accounts()
            self._depends_on = newest_loads(self._consumer.bookmarks())
            self.undone.begin(f"{len(records)} records from {records[0].position} on are being loaded")
            if not self._was_processed(records):
                self._start_over()
                return 0
            self._consumer.commit(records, self._load_id)
            self._settle()
        self.undone.end()
        self._report_lag()
        return len(records)

    def _was_processed(self, records: Sequence[StoredRecord]) -> bool:
        """Process a batch. Return False where it is to be read again: in halves where memory is short, or because the warehouse was replaced.

        Raises OutOfMemory when the batch is one record, and as `_process` does.
        """
        try:
            self._thread.submit(self._process, records).result()
        except _Replaced:
            return False
        except (OutOfMemory, MemoryError) as error:
            why = str(error) or "this process could not get more memory"
            if len(records) == 1:
                raise OutOfMemory(
                    f"{records[0].position}, a record of {records[0].record.size} bytes, does not fit alone: {why}"
                ) from None
            self._most_records, self._most_bytes = len(records) // 2, max(1, _size(records) // 2)
            log.warning("loader.batch_halved", records=len(records), bytes=_size(records), why=why)
            return False
        self._grow()
        return True

    def _grow(self) -> None:
        """Let the next batch be larger again, a little with each that was loaded."""
        limits = self._settings.consumer
        self._most_records = min(
            limits.max_records, self._most_records + ceil(limits.max_records / _GROWING_LOADS)
        )
        self._most_bytes = min(
            limits.batch_bytes, self._most_bytes + ceil(limits.batch_bytes / _GROWING_LOADS)
        )

    def _note_changes(self) -> None:
        self._changes += self._consumer.changes()
        note_changes(self._changes, self._settings, self._producer)
        self._changes = []

    def _follow_warehouse(self) -> bool:
        """Whether the warehouse turned out to be behind what was committed: then nothing polled may be loaded."""
        after = self._thread.submit(find_behind, self._warehouse, self._consumer.bookmarks()).result()
        if after:
            go_back(self._consumer, after, is_new=self._warehouse.is_new)
            self._start_over()
        return bool(after)

    def _follow_accounts(self) -> None:
        settings = self._current()
        if settings is not self._mapped:
            self._mapped, self._mapper = settings, BookingMapper(settings.build_accounts())

    def _prepare(self) -> None:
        """The tables are there to be read before the first event."""
        if not self._prepared:
            self.undone.begin("the tables are being made")
            self._thread.submit(self._warehouse.prepare).result()
            self._prepared = True

    def _collect(self) -> list[StoredRecord]:
        """Until the batch is full, or its first record has waited long enough since it was received."""
        linger = self._settings.consumer.linger.total_seconds()
        records = self._consumer.poll(min(self._most_records, _POLL_RECORDS), _POLL_SECONDS, self._most_bytes)
        deadline = time.monotonic() + linger - (_age(records[0], datetime.now(UTC)) if records else 0.0)
        while (
            records and len(records) < self._most_records and (left := self._most_bytes - _size(records)) > 0
        ):
            some = min(self._most_records - len(records), _POLL_RECORDS)
            more = self._consumer.poll(some, max(0.0, deadline - time.monotonic()), left)
            if not more:
                break
            records += more
        return records

    def _process(self, records: Sequence[StoredRecord]) -> None:
        started = time.monotonic()
        self._load_id = ""
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
            self._load_at_once(items, letters)
        except LoadRefused as refusal:
            return self._load_apart(items, letters, refusal)
        except RowsTooLarge as refusal:
            if len(items) + len(letters) > 1 or not all(
                map(self._may_be_to_blame, (*(item.stored for item in items), *letters))
            ):
                raise
            if items:
                return self._load_alone(items[0], str(refusal))
            self._load_shortened(letters[0], refusal)
        return []

    def _load_at_once(self, items: Sequence[Item], letters: Sequence[StoredRecord]) -> None:
        """All of them, or none. Raises WarehouseUnavailable, LoadRefused, and of both those that `Warehouse.load` does."""
        with self._warehouse.turn(one.partition for one in (*(item.stored for item in items), *letters)):
            self._require_loads()
            plan = self._plan(items, letters)
            if plan.rows:
                self._load_id = self._warehouse.load(plan.rows)
        self._refused.note(True for _ in items)
        _observe(items, plan)

    def _may_be_to_blame(self, stored: StoredRecord) -> bool:
        """Say whether the record is large enough to fill DuckDB's memory; for a small one the reason is elsewhere."""
        return stored.record.size >= self._settings.consumer.duckdb_bytes // _LARGE_SHARE

    def _load_alone(self, item: Item, refusal: str) -> list[DeadLetter]:
        """Set a record aside that DuckDB has not enough memory for, once it is shown that a load without rows works, and that the record's fails again."""
        self._warehouse.load_nothing()
        try:
            self._load_at_once([item], [])
        except RowsTooLarge:
            return [self._refuse(item, f"{refusal}; then redrive it")]
        return []

    def _refuse(self, item: Item, why: str) -> DeadLetter:
        """Raises DeadLetterLimit when there are too many."""
        dead = set_aside(item.stored, "load_refused", why, datetime.now(UTC))
        _tell([dead])
        self._refused.note([False])
        return dead

    def _require_loads(self) -> None:
        """What the warehouse lacks is to be read again before what comes next. Raises _Replaced."""
        if not self._warehouse.has(self._depends_on):
            raise _Replaced("the warehouse no longer has what was loaded before")

    def _plan(self, items: Sequence[Item], letters: Sequence[StoredRecord]) -> Plan:
        """The warehouse is asked each time: what a consumer remembers of it is wrong once it was frozen and another went on, or it was taken away."""
        told = candidates(items)
        stored = self._warehouse.versions({one.key for one in told})
        whole = self._warehouse.bookings(incomplete(told, stored))
        return plan_load(items, self._unstored(letters), {**stored, **whole}, datetime.now(UTC))

    def _unstored(self, letters: Sequence[StoredRecord]) -> list[StoredRecord]:
        """Leave out letters that are stored under the id that an earlier release gave them: their records were read again."""
        former = [former_id(letter) for letter in letters]
        wanted = [letter_id for letter_id in former if letter_id]
        stored = self._warehouse.letters(wanted) if wanted else {}
        return [
            letter
            for letter, letter_id in zip(letters, former, strict=True)
            if not (letter_id and letter_id in stored and is_letter_of_same_event(letter, stored[letter_id]))
        ]

    def _load_apart(
        self, items: Sequence[Item], letters: Sequence[StoredRecord], refusal: LoadRefused
    ) -> list[DeadLetter]:
        if len(items) + len(letters) > 1:
            return [dead for part in _halves(items, letters) for dead in self._load(*part)]
        if letters:
            self._load_shortened(letters[0], refusal)
            return []
        return [self._refuse(items[0], str(refusal))]

    def _load_shortened(self, letter: StoredRecord, refusal: LoadRefused | RowsTooLarge) -> None:
        """Load as much of a dead letter as the destination takes; the log keeps the whole. Raises WarehouseUnavailable where it takes none."""
        why = refusal
        for row in shortened(dead_letter_row(letter, datetime.now(UTC))):
            try:
                with self._warehouse.turn([letter.partition]):
                    self._load_id = self._warehouse.load({"dead_letters": [row]})
            except (LoadRefused, RowsTooLarge) as error:
                why = error
            else:
                log.warning(
                    "dead_letter.cut",
                    position=letter.position,
                    columns=row["cut"],
                    bytes=row["data_bytes"],
                    why=str(refusal),
                )
                return
        raise WarehouseUnavailable(
            f"the table dead_letters takes no row, not even the shortest of {letter.position}: {why}"
        )

    def _append_dead(self, letters: Sequence[DeadLetter]) -> None:
        """After the load, which may have to be repeated, and before the commit. Raises LogUnavailable."""
        if not letters:
            return
        append_dead_letters(self._producer, self._settings.dead_letter_topic, letters, APPEND_SECONDS)
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
        self._agreed_in = None
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
            age = (visible - event.received_at).total_seconds()
            FRESHNESS_SECONDS.labels(event.vendor, event.account).observe(
                max(0.0, age)
            )  # the receiver's clock may be ahead
    for item in items:
        if item.table == "reconciliations" and item.event.via is not Via.REPLAY:
            _observe_reconciliation(item.row)
    for candidate in candidates(items):
        _observe_booking(candidate)
    for stale in plan.stale:
        EVENTS_STALE.labels(*stale.key[:2]).inc()


def _observe_booking(candidate: Candidate) -> None:
    event, booking = candidate.event, candidate.booking
    if booking.status is BookingStatus.UNKNOWN and "status" not in booking.untold:
        UNKNOWN_STATUS.labels(event.vendor, event.account).inc()
    if not candidate.is_implausible or candidate.replayed:
        return
    EVENTS_IMPLAUSIBLE.labels(event.vendor, event.account).inc()
    log.warning(
        "event.implausible_time",
        source=event.source,
        id=event.id,
        time=format_instant(event.time),
        changed_at=candidate.booking.version,
        received_at=format_instant(event.received_at),
        counts_as=candidate.version,
    )


def _observe_reconciliation(row: Row) -> None:
    labels = (row["vendor"], row["account"])
    MISSED.labels(*labels).inc(row["missed"])
    RECONCILIATIONS.labels(*labels, row["outcome"]).inc()
    if row["outcome"] == "complete":
        RECONCILED_AT.labels(*labels).set(row["finished_at"].timestamp())


def _tell(letters: Sequence[DeadLetter]) -> None:
    for letter in letters:
        told = {
            "source": letter.source,
            "subject": letter.headers.get("ce_subject", ""),
            "position": letter.position,
        }
        log.warning("record.dead_lettered", **told, reason=letter.reason, detail=letter.detail)


def _halves(
    items: Sequence[Item], letters: Sequence[StoredRecord]
) -> Iterator[tuple[Sequence[Item], Sequence[StoredRecord]]]:
    """In the order of the log; dead letters apart from what may be one."""
    if items and letters:
        yield items, []
        yield [], letters
        return
    middle = (len(items) + len(letters)) // 2
    yield items[:middle], letters[:middle]
    yield items[middle:], letters[middle:]


def _size(records: Sequence[StoredRecord]) -> int:
    return sum(stored.record.size for stored in records)


def _without_traceback(error: IngestError) -> IngestError:
    """The error alone: its traceback would keep the batch, for as long as the error is kept."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _age(stored: StoredRecord, now: datetime) -> float:
    """Seconds since we received it, none by another machine's faster clock; a record that does not say so is old enough."""
    try:
        return max(0.0, (now - parse_instant(stored.record.headers["ce_receivedat"])).total_seconds())
    except (KeyError, PayloadError):
        return float("inf")
