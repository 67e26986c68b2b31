"""Rows of the tables, and Arrow tables of them.

dlt loads Arrow tables with their fixed schemas, so that no value can change a type.
An absent text is None, never "": some destinations do not tell the two apart, and rows are to be the same
everywhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from consumers.booking_rows import BOOKINGS_JSON, Row
from consumers.json_text import json_text
from ingest.errors import LoadRefused, PayloadError
from ingest.event import Event
from ingest.lenient_json import replace_deep
from ingest.times import parse_instant

_TEXT, _INT, _REAL, _TIME, _PRICE = (
    pa.string(),
    pa.int64(),
    pa.float64(),
    pa.timestamp("us", tz="UTC"),
    pa.decimal128(38, 9),
)


def arrow_schema(**columns: pa.DataType) -> pa.Schema:
    """Make a schema of columns with their types."""
    return pa.schema(list(columns.items()))


SCHEMAS: Mapping[str, pa.Schema] = {
    "booking_events": arrow_schema(
        id=_TEXT, source=_TEXT, type=_TEXT, subject=_TEXT, time=_TIME, vendor=_TEXT, account=_TEXT, via=_TEXT,
        received_at=_TIME, signed_by=_TEXT, position=_TEXT, data=_TEXT, loaded_at=_TIME, cut=_TEXT,
    ),
    "bookings": arrow_schema(
        vendor=_TEXT, account=_TEXT, booking_id=_TEXT, group_id=_TEXT, status=_TEXT, starts_at=_TIME,
        ends_at=_TIME, timezone=_TEXT, created_at=_TIME, updated_at=_TIME, version=_TEXT, service_id=_TEXT,
        service_name=_TEXT, staff=_TEXT, staff_name=_TEXT, location=_TEXT, customer_id=_TEXT,
        customer_name=_TEXT, customer_email=_TEXT, customer_phone=_TEXT, participants=_INT, price=_PRICE,
        currency=_TEXT, cancel_reason=_TEXT, cancelled_by=_TEXT, rescheduled_from=_TEXT, rescheduled_to=_TEXT,
        first_seen_at=_TIME, last_event_id=_TEXT, last_via=_TEXT, loaded_at=_TIME, gone_at=_TIME,
        answers=_TEXT, tracking=_TEXT, guests=_TEXT, cancelled_at=_TIME, conference_url=_TEXT,
        column_versions=_TEXT,
    ),
    "dead_letters": arrow_schema(
        id=_TEXT, source=_TEXT, reason=_TEXT, detail=_TEXT, happened_at=_TIME, position=_TEXT, query=_TEXT,
        headers=_TEXT, data=_TEXT, loaded_at=_TIME, signed_by=_TEXT, data_base64=_TEXT, data_sha256=_TEXT,
        data_bytes=_INT, letter_position=_TEXT, cut=_TEXT,
    ),
    "reconciliations": arrow_schema(
        id=_TEXT, vendor=_TEXT, account=_TEXT, since=_TIME, until=_TIME, started_at=_TIME, finished_at=_TIME,
        duration_seconds=_REAL, seen=_INT, matched=_INT, missed=_INT, repaired=_INT, untold=_INT,
        newer_here=_INT, gone=_INT, unreadable=_INT, requests=_INT, least_requests=_INT, outcome=_TEXT,
        error=_TEXT, loaded_at=_TIME,
    ),
    "completeness": arrow_schema(
        id=_TEXT, vendor=_TEXT, account=_TEXT, hour=_TIME, verdict=_TEXT, reason=_TEXT, webhooks=_INT,
        listed=_INT, held=_INT, missing=_INT, repaired=_INT, unread=_INT, proven_at=_TIME, run_id=_TEXT,
        digest=_TEXT, evidence_load=_TEXT, stated_at=_TIME, loaded_at=_TIME,
    ),
    "gaps": arrow_schema(
        id=_TEXT, vendor=_TEXT, account=_TEXT, from_at=_TIME, until_at=_TIME, cause=_TEXT, detail=_TEXT,
        found_at=_TIME, closed_at=_TIME, missed=_INT, repaired=_INT, waits_for=_TEXT, stated_at=_TIME,
        loaded_at=_TIME,
    ),
    "freshness": arrow_schema(
        id=_TEXT, vendor=_TEXT, account=_TEXT, hour=_TIME, events=_INT, p50=_REAL, p95=_REAL, p99=_REAL,
        happened_p50=_REAL, happened_p95=_REAL, happened_p99=_REAL, stated_at=_TIME, loaded_at=_TIME,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its key, its JSON columns, and whether a later row of the same key replaces the first.

    `id_column` is the column of the key that tells most rows apart. `nullable` are the columns that a report
    in the audit topic may leave out. A table of `statements` has `stated_at`, and keeps the latest row of
    each id.
    """

    name: str
    key: tuple[str, ...]
    id_column: str
    json: tuple[str, ...]
    replaces: bool
    nullable: frozenset[str] = frozenset()
    statements: bool = False


def _statements(name: str, *nullable: str) -> Table:
    return Table(name, ("id",), "id", (), replaces=True, nullable=frozenset(nullable), statements=True)


TABLES = (
    Table("booking_events", ("source", "id", "type", "subject"), "id", ("data",), replaces=False),
    Table("bookings", ("vendor", "account", "booking_id"), "booking_id", BOOKINGS_JSON, replaces=True),
    Table("dead_letters", ("id",), "id", (), replaces=False),
    Table("reconciliations", ("id",), "id", (), replaces=False, nullable=frozenset({"until", "error"})),
    _statements("completeness", "reason", "proven_at", "run_id", "digest", "evidence_load"),
    _statements("gaps", "until_at", "detail", "closed_at", "waits_for"),
    _statements("freshness", "happened_p50", "happened_p95", "happened_p99"),
)
TABLES_BY_NAME = {table.name: table for table in TABLES}

# dlt writes JSON by orjson, which refuses what is nested deeper than 254 levels.
_DEEPEST_VALUE = 200
_DLT_TYPES: Mapping[pa.DataType, dict[str, Any]] = {
    _TEXT: {"data_type": "text"},
    _INT: {"data_type": "bigint"},
    _REAL: {"data_type": "double"},
    _TIME: {"data_type": "timestamp"},
    _PRICE: {"data_type": "decimal", "precision": 38, "scale": 9},
}
# Names of each type at PostgreSQL and DuckDB.
_TYPE_NAMES = {
    _TEXT: ("text", "character varying", "varchar", "json", "jsonb"),
    _INT: ("bigint",),
    _REAL: ("double precision", "double"),
    _TIME: ("timestamp with time zone",),
    _PRICE: ("numeric", "decimal(38,9)"),
}


def retyped_columns(table: str, type_names: Mapping[str, str]) -> list[str]:
    """Return the columns of a table, each with its type, whose type is another one than loads write.

    `type_names` are the types by column, as the destination's information schema names them.
    """
    return [
        f"{field.name} ({type_names[field.name]})"
        for field in SCHEMAS[table]
        if field.name in type_names and not type_names[field.name].startswith(_TYPE_NAMES[field.type])
    ]


def how_to_fill(table: str) -> str:
    """Say how the existing rows of a table get values in columns that were made anew."""
    if TABLES_BY_NAME[table].replaces:
        return "`ingest replay` or a reconciliation fills them"
    return (
        "rows that are there are never written again and stay without;"
        " to have them whole, delete those that the log still has, then `ingest replay`"
    )


def dlt_columns(name: str) -> dict[str, dict[str, Any]]:
    """Return the columns of a table as dlt describes them."""
    json = TABLES_BY_NAME[name].json
    return {
        field.name: dict({"data_type": "json"} if field.name in json else _DLT_TYPES[field.type])
        for field in SCHEMAS[name]
    }


def plain_rows(name: str, rows: pa.Table) -> list[Row]:
    """Return the rows of an Arrow table with their JSON parsed.

    What is nested deeper than dlt can write becomes text. Raises LoadRefused for JSON that is one value:
    destinations do not agree on a text in a JSON column.
    """
    plain = rows.to_pylist()
    for column in TABLES_BY_NAME[name].json:
        for row in plain:
            if (text := row[column]) is not None:
                row[column] = orjson.loads(
                    replace_deep(text, _DEEPEST_VALUE, lambda part: orjson.dumps(part).decode())
                )
                if not isinstance(row[column], dict | list):
                    raise LoadRefused(f"{name}.{column} is JSON, but neither an object nor a list")
    return plain


def arrow_table(name: str, rows: Iterable[Row]) -> pa.Table:
    """Make an Arrow table of the rows of one table.

    Raises LoadRefused for a value that its column cannot hold, and MemoryError.
    """
    try:
        return pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise LoadRefused(f"a value of {name} that its column cannot hold: {type(error).__name__}") from None


def event_row(event: Event, position: str, now: datetime, text: str | None = None) -> Row:
    """Make the row of an event.

    `text` is what `json_text` returns for its payload, if that is known. Raises PayloadError when the payload
    is not JSON that a warehouse can hold.
    """
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
        "data": json_text(event.data) if text is None else text,
        "loaded_at": now,
        "cut": None,
    }


def reported_row(table: str, event: Event, now: datetime) -> Row:
    """Make a row of the payload of an event in the audit topic, an object with the names of the columns.

    Raises PayloadError for a value of another type, or a missing one.
    """
    try:
        report = orjson.loads(event.data)
    except ValueError as error:
        raise PayloadError("the payload is not JSON") from error
    if not isinstance(report, dict):
        raise PayloadError("the payload is not an object")
    nullable = TABLES_BY_NAME[table].nullable
    row = {
        column.name: _column_value(value, column)
        for column in SCHEMAS[table]
        if column.name != "loaded_at"
        and ((value := report.get(column.name)) is not None or column.name not in nullable)
    }
    return dict.fromkeys(nullable) | row | {"loaded_at": now}


# The types in which JSON has values of a column's type.
_JSON_TYPES: Mapping[pa.DataType, set[type]] = {_TEXT: {str}, _INT: {int}, _REAL: {int, float}, _TIME: {str}}


def _column_value(value: Any, column: "pa.Field[Any]") -> Any:
    if type(value) not in _JSON_TYPES[column.type]:
        raise PayloadError(f"{column.name} is not a value of type {column.type}")
    if column.type == _TIME:
        return parse_instant(value)
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}") if column.type == _TEXT else value
