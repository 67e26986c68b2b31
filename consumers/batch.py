"""What a batch of records means: events, what they change of each booking, and what cannot be read. Pure."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from consumers.letter_rows import dead_letter_row
from consumers.rows import TABLES, Row, event_row, reconciliation_row
from consumers.versions import Candidate, Key, by_booking, needs_whole_row, outcome
from ingest.booking import Booking
from ingest.dead_letter import DeadLetter, redact_headers
from ingest.errors import DeadLetterLimit, PayloadError
from ingest.event import OUR_HEADERS, RECONCILED, REPLAY_OF, Event, Via
from ingest.log import Record, StoredRecord

Mapper = Callable[[Event], Booking | None]

_KEYS = {table.name: table.key for table in TABLES}


@dataclass(frozen=True, slots=True)
class Topics:
    """Those whose records are not bookings' events."""

    dead_letters: str
    audit: str


@dataclass(frozen=True, slots=True)
class Item:
    """A record that could be read: its row of `table`, and the booking it tells of."""

    stored: StoredRecord
    event: Event
    row: Row
    booking: Booking | None = None
    table: str = "booking_events"


@dataclass(slots=True)
class Batch:
    """Records by what becomes of them: `items` to load, `dead` to set aside, `letters` (dead ones from before) to load.

    `readable` says of each record with a table in order whether it could be read; replayed ones were counted when they came first.
    """

    items: list[Item] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    letters: list[StoredRecord] = field(default_factory=list)
    readable: list[bool] = field(default_factory=list)


def read_batch(records: Iterable[StoredRecord], topics: Topics, mapper: Mapper, now: datetime) -> Batch:
    """Every record ends in exactly one place, or repeats an event of the same batch, to the byte: the first one counts.

    An id that comes with another time is no repetition: REST tells the same thing again, and that counts as newer.
    What the audit topic has beside ends of reconciliations has no table, and is left out. A vendor's id that comes with another payload is one event row, as over batches, but what it tells of a booking counts.
    """
    batch = Batch()
    seen: set[tuple[object, ...]] = set()
    for stored in records:
        if stored.partition.topic == topics.dead_letters:
            batch.letters.append(stored)
            continue
        read = _read(stored, topics, mapper, now)
        if read is not None and stored.record.headers.get("ce_via") != Via.REPLAY:
            batch.readable.append(not isinstance(read, DeadLetter))
        if isinstance(read, DeadLetter):
            batch.dead.append(read)
        elif read and (same := _identity(read.event)) not in seen:
            seen.add(same)
            batch.items.append(read)
    return batch


def _identity(event: Event) -> tuple[object, ...]:
    return event.source, event.id, event.type, event.subject, event.time, event.via, event.data


def _read(stored: StoredRecord, topics: Topics, mapper: Mapper, now: datetime) -> Item | DeadLetter | None:
    try:
        event = Event.from_record(stored.record)
        if stored.partition.topic != topics.audit:
            return Item(stored, event, event_row(event, stored.position, now), mapper(event))
        return (
            Item(stored, event, reconciliation_row(event, now), table="reconciliations")
            if event.type == RECONCILED
            else None
        )
    except PayloadError as error:
        return set_aside(stored, "unreadable_record", str(error), now)
    except MemoryError:  # the machine's fault, not the record's
        raise
    except Exception as error:  # noqa: BLE001 - our bug must not stop the other records, nor lose this one
        return set_aside(stored, "mapping_crashed", type(error).__name__, now)


def set_aside(stored: StoredRecord, reason: str, detail: str, now: datetime) -> DeadLetter:
    """The record as a dead letter, with its place in the log: where it was first, so that a replay makes no second dead letter of it."""
    return DeadLetter(
        source=stored.record.headers.get("ce_source", ""),
        reason=reason,
        detail=detail,
        happened_at=now,
        data=stored.record.value,
        headers=headers_of(stored.record),
        position=stored.record.headers.get(REPLAY_OF, stored.position),
    )


def headers_of(record: Record) -> dict[str, str]:
    """Return the headers that a record's dead letter keeps: of one that others wrote, as of a delivery, only what is known to be harmless."""
    return redact_headers(
        record.headers.items(), [name for name in record.headers if name.startswith(OUR_HEADERS)]
    )


# How far back is looked for bad records that good ones come between, in limits.
_WINDOW = 10


class BadRun:
    """How many records were bad, in a row and of the last ones, over batches. Many mean our bug or a wrong deploy, not bad data.

    Too many is the limit in a row, or, whatever came between, more than half of the last ten times the limit: a bug in what
    one vendor sends must be seen among the others' good records too.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._run = 0
        self._noted = 0
        self._bad: deque[int] = deque()  # which of those noted were bad, as far back as is looked
        self.settle()

    def note(self, good: Iterable[bool]) -> None:
        """Raises DeadLetterLimit when there are too many."""
        for fine in good:
            self._noted += 1
            self._run = 0 if fine else self._run + 1
            if not fine:
                self._bad.append(self._noted)
                self._check()

    def settle(self) -> None:
        """After a commit: what was noted stays noted."""
        self._settled = (self._run, self._noted, tuple(self._bad))

    def rewind(self) -> None:
        """What was noted and not committed is read, and noted, again."""
        self._run, self._noted, bad = self._settled
        self._bad = deque(bad)

    def _check(self) -> None:
        window = _WINDOW * self._limit
        while self._bad[0] <= self._noted - window:
            self._bad.popleft()
        if self._run >= self._limit:
            raise _too_many(f"{self._run} records in a row")
        if len(self._bad) > window / 2:
            raise _too_many(f"{len(self._bad)} of the last {min(self._noted, window)} records")


def _too_many(which: str) -> DeadLetterLimit:
    return DeadLetterLimit(
        f"{which} could not be read or loaded, and the newest of them were not committed. The log lines"
        " `record.dead_lettered` above say why; mend the cause, or raise consumer.dead_letter_limit to set them aside"
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows by table, and what was too old to be a row."""

    rows: dict[str, list[Row]]
    stale: list[Candidate]


def candidates(items: Iterable[Item]) -> list[Candidate]:
    """The bookings in them."""
    return [Candidate(item.event, item.booking) for item in items if item.booking is not None]


def incomplete(told: Iterable[Candidate], stored: Mapping[Key, Row]) -> set[Key]:
    """Return those stored bookings whose whole rows are needed to decide."""
    return {
        key
        for key, messages in by_booking(told).items()
        if key in stored and needs_whole_row(messages, stored[key])
    }


def plan_load(
    items: Sequence[Item], letters: Iterable[StoredRecord], stored: Mapping[Key, Row], now: datetime
) -> Plan:
    """Make the rows to load. `stored` are rows of `bookings`: whole ones for the bookings that `incomplete` returns."""
    outcomes = [
        outcome(messages, stored.get(key), now) for key, messages in by_booking(candidates(items)).items()
    ]
    bookings = [one.row for one in outcomes if one.row is not None]
    once = _first_rows(
        chain(
            ((item.table, item.row) for item in items),
            (("dead_letters", dead_letter_row(one, now)) for one in letters),
        )
    )
    return Plan(
        once | ({"bookings": bookings} if bookings else {}),
        [stale for one in outcomes for stale in one.stale],
    )


def _first_rows(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    """By table, the first of each key: a merge looks for it in the table, not among the rows that come with it."""
    tables: dict[str, dict[tuple[Any, ...], Row]] = {}
    for name, row in rows:
        tables.setdefault(name, {}).setdefault(tuple(row[column] for column in _KEYS[name]), row)
    return {name: list(first.values()) for name, first in tables.items()}
