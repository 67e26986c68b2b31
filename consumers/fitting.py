"""Rows as a destination with limits can hold them.

What is too long is shortened before the load, so that an event keeps its row and its booking's. The log keeps
the whole payload.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import orjson
import structlog

from consumers.booking_rows import Row, as_json
from consumers.letter_rows import shortened
from consumers.rows import SCHEMAS, TABLES, Table
from ingest.destinations import Destination

log = structlog.get_logger()

_MOST_BYTES_OF_A_CHARACTER = 4


def fit_rows(rows: Mapping[str, Sequence[Row]], destination: Destination) -> Mapping[str, Sequence[Row]]:
    """Return rows, by table, with the values shortened that the destination's columns cannot hold."""
    if destination.longest_text is None:
        return rows
    return {
        table.name: [_fit_row(table, row, destination) for row in rows[table.name]]
        for table in TABLES
        if table.name in rows
    }


def _fit_row(table: Table, row: Row, destination: Destination) -> Row:
    """Return a row that fits. Its key stays whole, since shortened keys might be equal."""
    limits = {
        name: destination.longest_json if name in table.json else destination.longest_text
        for name in SCHEMAS[table.name].names
    }
    too_long = [name for name, limit in limits.items() if limit and _is_longer(row[name], limit)]
    if table.name == "dead_letters":
        return next(shortened(row)) if too_long else row
    too_long = [name for name in too_long if name not in table.key]
    if not too_long:
        return row
    key = {column: row[column] for column in table.key}
    log.warning("row.cut", table=table.name, columns=too_long, **key)
    fitting = row | {name: _shortened(table, row, name, limits[name] or 0) for name in too_long}
    return fitting | {"cut": ", ".join(too_long)} if "cut" in row else fitting


def _is_longer(value: Any, limit: int) -> bool:
    """Return whether a value is text of more bytes than `limit`."""
    is_long = isinstance(value, str) and len(value) * _MOST_BYTES_OF_A_CHARACTER > limit
    return is_long and len(value.encode()) > limit


def _shortened(table: Table, row: Row, name: str, limit: int) -> str | None:
    """Return a shorter value: the beginning of a text or a list, or the place of a payload in the log."""
    text: str = row[name]
    if name not in table.json:
        return text.encode()[:limit].decode(errors="ignore")
    if table.name == "booking_events":
        return as_json({"cut": {"bytes": len(text.encode()), "position": row["position"]}})
    entries = orjson.loads(text)
    if not isinstance(entries, list):
        return None
    ends = accumulate(len((as_json(entry) or "null").encode()) + 1 for entry in entries)
    return as_json(entries[: sum(end < limit for end in ends)])
