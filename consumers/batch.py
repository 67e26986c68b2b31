"""What a batch of records means: events, the newest state of each booking, and what cannot be read. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from consumers.rows import TABLES, Row, booking_row, dead_letter_row, event_row, reconciliation_row
from consumers.versions import Candidate, Key, Stored, newest
from ingest.booking import Booking
from ingest.dead_letter import DeadLetter
from ingest.errors import DeadLetterLimit, PayloadError
from ingest.event import RECONCILED, Event
from ingest.log import StoredRecord

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

    `readable` says of each record in order whether it could be read.
    """

    items: list[Item] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    letters: list[StoredRecord] = field(default_factory=list)
    readable: list[bool] = field(default_factory=list)


def read_batch(records: Iterable[StoredRecord], topics: Topics, mapper: Mapper, now: datetime) -> Batch:
    """Every record ends in exactly one place, or repeats an event of the same batch, to the byte: the first one counts.

    What the audit topic has beside ends of reconciliations has no table, and is left out. A vendor's id that comes with another payload is one event row, as over batches, but what it tells of a booking counts.
    """
    batch = Batch()
    seen: set[tuple[str, str, bytes]] = set()
    for stored in records:
        if stored.partition.topic == topics.dead_letters:
            batch.letters.append(stored)
            continue
        read = _read(stored, topics, mapper, now)
        batch.readable.append(not isinstance(read, DeadLetter))
        if isinstance(read, DeadLetter):
            batch.dead.append(read)
        elif read and (same := (read.event.source, read.event.id, read.event.data)) not in seen:
            seen.add(same)
            batch.items.append(read)
    return batch


def _read(stored: StoredRecord, topics: Topics, mapper: Mapper, now: datetime) -> Item | DeadLetter | None:
    try:
        event = Event.from_record(stored.record)
        if stored.partition.topic != topics.audit:
            return Item(stored, event, event_row(event, stored.position, now), mapper(event))
        return Item(stored, event, reconciliation_row(event, now), table="reconciliations") if event.type == RECONCILED else None
    except PayloadError as error:
        return set_aside(stored, "unreadable_record", str(error), now)
    except Exception as error:  # noqa: BLE001 - our bug must not stop the other records, nor lose this one
        return set_aside(stored, "mapping_crashed", type(error).__name__, now)


def set_aside(stored: StoredRecord, reason: str, detail: str, now: datetime) -> DeadLetter:
    """The record as a dead letter, with its place in the log."""
    return DeadLetter(
        source=stored.record.headers.get("ce_source", ""),
        reason=reason,
        detail=detail,
        happened_at=now,
        data=stored.record.value,
        headers=stored.record.headers,
        position=stored.position,
    )


class BadRun:
    """How many records in a row were bad, over batches. A long run means our bug or a wrong deploy, not bad data."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._run = 0
        self._settled = 0

    def note(self, good: Iterable[bool]) -> None:
        """Raises DeadLetterLimit at the limit."""
        for fine in good:
            self._run = 0 if fine else self._run + 1
            if self._run >= self._limit:
                raise DeadLetterLimit(
                    f"{self._run} records in a row could not be read or loaded, and were not committed. The log lines"
                    " `record.dead_lettered` above say why; mend the cause, or raise consumer.dead_letter_limit to set them aside"
                )

    def settle(self) -> None:
        """After a commit: what was noted stays noted."""
        self._settled = self._run

    def rewind(self) -> None:
        """What was noted and not committed is read, and noted, again."""
        self._run = self._settled


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows by table, what the warehouse has of each booking once they are in, and what was too old to be a row."""

    rows: dict[str, list[Row]]
    versions: dict[Key, Stored]
    stale: list[Candidate]


def candidates(items: Iterable[Item]) -> list[Candidate]:
    """The bookings in them."""
    return [Candidate(item.event, item.booking) for item in items if item.booking is not None]


def plan_load(items: Sequence[Item], letters: Iterable[StoredRecord], held: Mapping[Key, Stored], now: datetime) -> Plan:
    """Of each booking only its newest state, and only when that is newer than the one held by the warehouse."""
    told = candidates(items)
    received = _first_received(told)
    rows: list[Row] = []
    versions: dict[Key, Stored] = {}
    for key, candidate in newest(told).items():
        before = held.get(key)
        if before is None or candidate.version > before.version:
            first_seen = before.first_seen_at if before else received[key]
            versions[key] = Stored(candidate.version, first_seen)
            rows.append(booking_row(candidate.booking, candidate.event, candidate.version, first_seen, now))
    once = _first_rows(chain(((item.table, item.row) for item in items), (("dead_letters", dead_letter_row(one, now)) for one in letters)))
    return Plan(
        once | ({"bookings": rows} if rows else {}),
        versions,
        [one for one in told if one.key in held and one.version < held[one.key].version],
    )


def _first_rows(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    """By table, the first of each key: a merge looks for it in the table, not among the rows that come with it."""
    tables: dict[str, dict[tuple[Any, ...], Row]] = {}
    for name, row in rows:
        tables.setdefault(name, {}).setdefault(tuple(row[column] for column in _KEYS[name]), row)
    return {name: list(first.values()) for name, first in tables.items()}


def _first_received(told: Iterable[Candidate]) -> dict[Key, datetime]:
    first: dict[Key, datetime] = {}
    for candidate in told:
        received = candidate.event.received_at
        first[candidate.key] = min(first.get(candidate.key, received), received)
    return first
