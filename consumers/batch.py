"""What a batch of records means: the rows to load, and the records that cannot be read. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

from consumers.booking_rows import Row
from consumers.contents import Content, Mapper, Unreadable, read_contents, why_unreadable
from consumers.letter_rows import dead_letter_row
from consumers.message import BookingMessage, Key
from consumers.rows import TABLES, TABLES_BY_NAME, event_row, reported_row
from consumers.version_guard import kept_columns, may_have_written, needs_whole_row, newest_wins
from ingest.dead_letter import DeadLetter, redact_headers
from ingest.event import OUR_HEADERS, REPLAY_OF, ROW_TYPES, Event, Via
from ingest.log import Record, StoredRecord

_KEYS = {table.name: table.key for table in TABLES}


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics whose records are not events of bookings."""

    dead_letters: str
    audit: str

    def has_events(self, stored: StoredRecord) -> bool:
        """Return whether a record's topic is one of events of bookings."""
        return stored.partition.topic not in (self.dead_letters, self.audit)


@dataclass(frozen=True, slots=True)
class Item:
    """A record that could be read: its row of `table`, and what it says about a booking, if anything."""

    stored: StoredRecord
    event: Event
    row: Row
    message: BookingMessage | None = None
    table: str = "booking_events"


@dataclass(frozen=True)
class Chunk:
    """Items and dead letters that are loaded together: all of them, or none."""

    items: Sequence[Item] = ()
    letters: Sequence[StoredRecord] = ()

    def __len__(self) -> int:
        return len(self.items) + len(self.letters)

    @property
    def records(self) -> list[StoredRecord]:
        """All records, as the log has them."""
        return [*(item.stored for item in self.items), *self.letters]

    @cached_property
    def messages(self) -> Mapping[Key, Sequence[BookingMessage]]:
        """What the items say about bookings, by booking, in the order of the log."""
        return by_booking(item.message for item in self.items if item.message)

    def halves(self) -> Sequence["Chunk"]:
        """Split the chunk in the order of the log, with letters apart from items that may become some."""
        if self.items and self.letters:
            return Chunk(self.items), Chunk(letters=self.letters)
        middle = len(self) // 2
        return (
            Chunk(self.items[:middle], self.letters[:middle]),
            Chunk(self.items[middle:], self.letters[middle:]),
        )


@dataclass(slots=True)
class Batch:
    """Records by what becomes of them.

    `items` and `letters`, which are dead letters of the log, are loaded. `dead` become dead letters.
    `readable` says of each record that belongs into a table, in the order of the log, whether it could be
    read. Replayed records are left out: they were counted when they first came.
    """

    items: list[Item] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    letters: list[StoredRecord] = field(default_factory=list)
    readable: list[bool] = field(default_factory=list)

    def set_loaded_at(self, now: datetime) -> None:
        """Note in the rows of items that they are loaded now: they may have been read during another load."""
        for item in self.items:
            item.row["loaded_at"] = now

    def to_load(self) -> Chunk:
        """Return all that is loaded, as one chunk."""
        return Chunk(self.items, self.letters)


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows to load, by table, and the messages that came too late to change a row.

    `loaded_before` are the bookings whose rows stay, and may have been made by these very messages: by a load
    after which nothing was committed.
    """

    rows: Mapping[str, Sequence[Row]]
    stale: Sequence[BookingMessage]
    loaded_before: Collection[Key] = ()


def read_batch(records: Sequence[StoredRecord], topics: Topics, mapper: Mapper, now: datetime) -> Batch:
    """Read records, each of which ends in exactly one place of the batch.

    An event that repeats another one of the batch to the byte is left out. One with the same id and another
    time is not: REST may return the same thing again, and that counts as newer. One with the same id and
    another payload makes no second event row, but what it says about its booking counts. Records of the audit
    topic that carry no row are left out, and so are replayed statements: they were about the warehouse as it
    was then.
    """
    contents = read_contents([stored.record for stored in records if topics.has_events(stored)], mapper)
    return assemble_batch(records, topics, contents, now)


def assemble_batch(
    records: Iterable[StoredRecord], topics: Topics, contents: Iterable[Content], now: datetime
) -> Batch:
    """Make a batch of records as `read_batch` does. `contents` are those of the records of events."""
    batch = Batch()
    remaining_contents = iter(contents)
    identities: set[tuple[object, ...]] = set()
    for stored in records:
        if stored.partition.topic == topics.dead_letters:
            batch.letters.append(stored)
            continue
        content = next(remaining_contents) if topics.has_events(stored) else None
        result = _read_reported(stored, now) if content is None else _to_item(stored, content, now)
        if result is not None and stored.record.headers.get("ce_via") != Via.REPLAY:
            batch.readable.append(isinstance(result, Item))
        if isinstance(result, DeadLetter):
            batch.dead.append(result)
        elif result is not None:
            event = result.event
            identity = event.source, event.id, event.type, event.subject, event.time, event.via, event.data
            if identity not in identities:
                identities.add(identity)
                batch.items.append(result)
    return batch


def _to_item(stored: StoredRecord, content: Content, now: datetime) -> Item | DeadLetter:
    if isinstance(content, Unreadable):
        return to_dead_letter(stored, content.reason, content.detail, now)
    event = Event.from_record(stored.record)
    message = BookingMessage(event, *content.booking) if content.booking else None
    text = event.data.decode() if content.text is None else content.text
    return Item(stored, event, event_row(event, stored.position, now, text), message)


def _read_reported(stored: StoredRecord, now: datetime) -> Item | DeadLetter | None:
    try:
        event = Event.from_record(stored.record)
        table = ROW_TYPES.get(event.type)
        if table is None or (TABLES_BY_NAME[table].statements and event.via is Via.REPLAY):
            return None
        return Item(stored, event, reported_row(table, event, now), table=table)
    except Exception as error:  # noqa: BLE001 - as for other records
        why = why_unreadable(error)
        return to_dead_letter(stored, why.reason, why.detail, now)


def to_dead_letter(stored: StoredRecord, reason: str, detail: str, now: datetime) -> DeadLetter:
    """Make a dead letter of a record.

    Its position is that of the record that was replayed, if any, so that a replay makes no second dead
    letter.
    """
    return DeadLetter(
        source=stored.record.headers.get("ce_source", ""),
        reason=reason,
        detail=detail,
        happened_at=now,
        data=stored.record.value,
        headers=letter_headers(stored.record),
        position=stored.record.headers.get(REPLAY_OF, stored.position),
    )


def letter_headers(record: Record) -> dict[str, str]:
    """Return the headers that the dead letter of a record keeps: ours, and those known to be harmless."""
    ours = [name for name in record.headers if name.startswith(OUR_HEADERS)]
    return redact_headers(record.headers.items(), ours)


def by_booking(messages: Iterable[BookingMessage]) -> dict[Key, list[BookingMessage]]:
    """Group messages by booking, and keep their order."""
    groups: dict[Key, list[BookingMessage]] = {}
    for message in messages:
        groups.setdefault(message.key, []).append(message)
    return groups


def columns_to_keep(chunk: Chunk) -> set[str]:
    """Return the columns of stored rows that `plan_load` needs beside their versions, of nearly all rows."""
    return kept_columns(message for messages in chunk.messages.values() for message in messages)


def find_incomplete(chunk: Chunk, stored: Mapping[Key, Row]) -> set[Key]:
    """Return the stored bookings whose whole rows `plan_load` needs; `stored` has parts of rows."""
    return {
        key
        for key, messages in chunk.messages.items()
        if key in stored and needs_whole_row(messages, stored[key])
    }


def plan_load(chunk: Chunk, stored: Mapping[Key, Row], now: datetime) -> Plan:
    """Make the rows to load.

    `stored` are rows of `bookings`, whole ones for those that `find_incomplete` returns.
    """
    changes = {key: newest_wins(messages, stored.get(key), now) for key, messages in chunk.messages.items()}
    bookings = [change.row for change in changes.values() if change.row is not None]
    appended = _without_repetitions(
        chain(
            ((item.table, item.row) for item in chunk.items),
            (("dead_letters", dead_letter_row(letter, now)) for letter in chunk.letters),
        )
    )
    return Plan(
        appended | ({"bookings": bookings} if bookings else {}),
        [message for change in changes.values() for message in change.stale],
        {
            key
            for key, change in changes.items()
            if change.row is None and may_have_written(chunk.messages[key], stored[key])
        },
    )


def _without_repetitions(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    """Return one row of each key, by table: a merge would load two rows of one key.

    Of statements it is the latest row, of others the first.
    """
    tables: dict[str, dict[tuple[Any, ...], Row]] = {}
    for name, row in rows:
        key = tuple(row[column] for column in _KEYS[name])
        kept = tables.setdefault(name, {}).setdefault(key, row)
        if TABLES_BY_NAME[name].statements and row["stated_at"] > kept["stated_at"]:
            tables[name][key] = row
    return {name: list(unique.values()) for name, unique in tables.items()}
