"""Rows of the four tables, as Arrow tables of a fixed schema: dlt takes those as they are, and no value can change a type.

An absent text is None, never "": some destinations take the two for the same, and rows are to be the same everywhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from consumers.json_text import json_text
from ingest.booking import COLUMNS, EMPTY, Booking, BookingStatus, rounded
from ingest.errors import LoadRefused, PayloadError
from ingest.event import Event
from ingest.instant import parse_instant, parse_stored_instant
from ingest.warehouse.values import is_instant, is_version, parsed_json

Row = dict[str, Any]

UNREADABLE_VERSION = "0"
"""Below all that are versions, and above "", which means that no message wrote a column."""

_TEXT, _INT, _REAL, _TIME, _PRICE = (
    pa.string(),
    pa.int64(),
    pa.float64(),
    pa.timestamp("us", tz="UTC"),
    pa.decimal128(38, 9),
)


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


SCHEMAS: Mapping[str, pa.Schema] = {
    "booking_events": _schema(
        id=_TEXT, source=_TEXT, type=_TEXT, subject=_TEXT, time=_TIME, vendor=_TEXT, account=_TEXT, via=_TEXT,
        received_at=_TIME, signed_by=_TEXT, position=_TEXT, data=_TEXT, loaded_at=_TIME,
    ),
    "bookings": _schema(
        vendor=_TEXT, account=_TEXT, booking_id=_TEXT, group_id=_TEXT, status=_TEXT, starts_at=_TIME, ends_at=_TIME,
        timezone=_TEXT, created_at=_TIME, updated_at=_TIME, version=_TEXT, service_id=_TEXT, service_name=_TEXT,
        staff=_TEXT, staff_name=_TEXT, location=_TEXT, customer_id=_TEXT, customer_name=_TEXT, customer_email=_TEXT,
        customer_phone=_TEXT, participants=_INT, price=_PRICE, currency=_TEXT, cancel_reason=_TEXT, cancelled_by=_TEXT,
        rescheduled_from=_TEXT, rescheduled_to=_TEXT, first_seen_at=_TIME, last_event_id=_TEXT, last_via=_TEXT,
        loaded_at=_TIME, gone_at=_TIME, answers=_TEXT, tracking=_TEXT, guests=_TEXT, cancelled_at=_TIME, conference_url=_TEXT,
        column_versions=_TEXT,
    ),
    "dead_letters": _schema(
        id=_TEXT, source=_TEXT, reason=_TEXT, detail=_TEXT, happened_at=_TIME, position=_TEXT, query=_TEXT,
        headers=_TEXT, data=_TEXT, loaded_at=_TIME, signed_by=_TEXT, data_base64=_TEXT, data_sha256=_TEXT,
        data_bytes=_INT, letter_position=_TEXT, cut=_TEXT,
    ),
    "reconciliations": _schema(
        id=_TEXT, vendor=_TEXT, account=_TEXT, since=_TIME, until=_TIME, started_at=_TIME, finished_at=_TIME,
        duration_seconds=_REAL, seen=_INT, matched=_INT, missed=_INT, repaired=_INT, untold=_INT, newer_here=_INT, gone=_INT,
        unreadable=_INT, requests=_INT, least_requests=_INT, outcome=_TEXT, error=_TEXT, loaded_at=_TIME,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """How a table is kept: its key, its columns of JSON, and whether a later row of the same key replaces the first."""

    name: str
    key: tuple[str, ...]
    json: tuple[str, ...]
    replaces: bool


# orjson sorts the keys of objects, and would leave the fields of a dataclass in their own order.
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_JSON_OF_BOOKINGS = ("staff", "answers", "tracking", "guests", "column_versions")
_EMPTY_BOOKING = Booking(booking_id="", version="", status=BookingStatus.UNKNOWN)

TABLES = (
    Table("booking_events", ("source", "id", "type", "subject"), ("data",), replaces=False),
    Table("bookings", ("vendor", "account", "booking_id"), _JSON_OF_BOOKINGS, replaces=True),
    Table("dead_letters", ("id",), (), replaces=False),
    Table("reconciliations", ("id",), (), replaces=False),
)
_TABLES = {table.name: table for table in TABLES}


def how_to_fill(table: str) -> str:
    """Say how columns that were made anew get values in the rows that are there."""
    if _TABLES[table].replaces:
        return "`ingest replay` or a reconciliation fills them"
    return "rows that are there are never written again and stay without; to have them whole, delete those that the log still has, then `ingest replay`"


def arrow(name: str, rows: Iterable[Row]) -> pa.Table:
    """Rows of one table. Raises LoadRefused for a value that its column cannot hold, MemoryError."""
    try:
        return pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise LoadRefused(f"a value of {name} that its column cannot hold: {type(error).__name__}") from None


def event_row(event: Event, position: str, now: datetime) -> Row:
    """Raises PayloadError when the payload is not JSON text that a warehouse can hold."""
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        "vendor": event.vendor,
        "account": event.account,
        "via": event.via.value,
        "received_at": event.received_at,
        "signed_by": event.signed_by or None,
        "position": position,
        "data": json_text(event.data),
        "loaded_at": now,
    }


def booking_row(booking: Booking, event: Event, version: str, first_seen_at: datetime, now: datetime) -> Row:
    """`version` is the full one, by which rows are compared; `first_seen_at` is kept from the booking's first row."""
    guessed = {name: guess_version(version) for name in booking.untold if getattr(booking, name) not in EMPTY}
    column_versions = dict.fromkeys(booking.untold, "") | guessed | dict(booking.column_versions or {})
    return {
        **{name: getattr(booking, name) for name in COLUMNS},
        **{name: as_json(getattr(booking, name)) for name in _JSON_OF_BOOKINGS},
        "column_versions": as_json(column_versions or None),
        "vendor": event.vendor,
        "account": event.account,
        "status": booking.status.value,
        "version": version,
        "price": None if booking.price is None else rounded(booking.price),
        "first_seen_at": first_seen_at,
        "last_event_id": event.id,
        "last_via": event.via.value,
        "loaded_at": now,
    }


def guess_version(version: str) -> str:
    """Return the version of a column that a message only guesses at: newer guesses are above older ones, and all below what is told."""
    return f"(guess) {version}"  # versions begin with a digit, and "(" sorts before those


def without_guess(version: str) -> str:
    """Return the version of the message, whether it told the column or guessed at it."""
    return version.removeprefix("(guess) ")


def empty_value(name: str) -> Any:
    """Return what a column of `bookings` holds where no message told it."""
    value = getattr(_EMPTY_BOOKING, name)
    return as_json(value) if name in _JSON_OF_BOOKINGS else value


def stored_booking_row(columns: Iterable[str], values: Iterable[Any]) -> Row:
    """What a warehouse gave back, as `booking_row` makes it: JSON as the same text, however it was stored, and instants in UTC.

    Somebody may have changed the row: a version that is none becomes `UNREADABLE_VERSION`, below all that are, so that the next message
    replaces the row; versions of columns that cannot be read count as the row's, so that no older message does.
    """
    row = {
        name: _instant_or_none(value) if is_instant(name) else value
        for name, value in zip(columns, values, strict=True)
    }
    row |= {name: _json_or_none(row[name]) for name in _JSON_OF_BOOKINGS if name in row}
    if "version" in row and not is_version(row["version"]):
        return row | {"version": UNREADABLE_VERSION, "column_versions": None}
    return row if are_column_versions(row.get("column_versions")) else row | {"column_versions": None}


def _instant_or_none(value: Any) -> datetime | None:
    return parse_stored_instant(value) if isinstance(value, datetime | str) else None


def _json_or_none(value: Any) -> str | None:
    try:
        return as_json(parsed_json(value))
    except ValueError:
        return None


def are_column_versions(text: Any) -> bool:
    """Say whether this can be the versions of single columns."""
    versions = orjson.loads(text or "{}")
    return isinstance(versions, dict) and all(
        name in COLUMNS and isinstance(version, str) and (not version or is_version(without_guess(version)))
        for name, version in versions.items()
    )


def as_json(value: Any) -> str | None:
    """Return the text of a JSON column. Equal values make equal texts, whether they are dataclasses or were read as objects."""
    return None if value is None else orjson.dumps(value, default=asdict, option=_SORTED).decode()


def reconciliation_row(event: Event, now: datetime) -> Row:
    """From an object that is named as the table's columns are. Raises PayloadError for a value of another kind, or none where one must be."""
    try:
        told = orjson.loads(event.data)
    except ValueError as error:
        raise PayloadError("the payload is not JSON") from error
    if not isinstance(told, dict):
        raise PayloadError("the payload is not an object")
    columns = (column for column in SCHEMAS["reconciliations"] if column.name != "loaded_at")
    return {column.name: _told(told.get(column.name), column.name, column.type) for column in columns} | {
        "loaded_at": now
    }


def _told(value: Any, name: str, kind: pa.DataType) -> Any:
    if value is None and name in {"until", "error"}:
        return None
    if type(value) not in _KINDS[kind]:
        raise PayloadError(f"{name} is not a value of type {kind}")
    if kind == _TIME:
        return parse_instant(value)
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}") if kind == _TEXT else value


# How JSON tells a column's type.
_KINDS: Mapping[pa.DataType, set[type]] = {_TEXT: {str}, _INT: {int}, _REAL: {int, float}, _TIME: {str}}
