"""Rows as a destination with limits can hold them.

What is too long is shortened before the load, so that an event keeps its row and its booking's. The log keeps
the whole payload.
"""

import re
from collections.abc import Mapping, Sequence

import structlog

from consumers.booking_rows import Row
from consumers.letter_rows import shortened
from consumers.rows import SCHEMAS, TABLES, Table
from ingest.destinations import Destination
from ingest.fitting import as_json, fit_json, fit_text, is_longer

log = structlog.get_logger()

_TEXT_IN_JSON = re.compile(r'"(?:[^"\\]++|\\.)*+"')


def fit_rows(
    rows: Mapping[str, Sequence[Row]], destination: Destination, *, is_staged: bool = False
) -> Mapping[str, Sequence[Row]]:
    """Return rows, by table, with the values shortened that the destination's columns cannot hold.

    `is_staged` says that they are loaded through a bucket.
    """
    if destination.longest_text is None:
        return rows
    longest_payload = destination.longest_staged_payload if is_staged else None
    return {
        table.name: [_fit_row(table, row, destination, longest_payload) for row in rows[table.name]]
        for table in TABLES
        if table.name in rows
    }


def _fit_row(table: Table, row: Row, destination: Destination, longest_payload: int | None) -> Row:
    """Return a row that fits. Its key stays whole, since shortened keys might be equal.

    Payloads of events may have as many bytes as `longest_payload` where that is given.
    """
    limits = {
        name: destination.longest_json if name in table.json else destination.longest_text
        for name in SCHEMAS[table.name].names
    }
    if (
        longest_payload
        and table.name == "booking_events"
        and is_longer(row["data"], limits["data"])
        and _has_short_texts(row["data"], destination)
    ):
        limits["data"] = longest_payload
    too_long = [
        name for name, limit in limits.items() if isinstance(row[name], str) and is_longer(row[name], limit)
    ]
    if table.name == "dead_letters":
        return next(shortened(row)) if too_long else row
    too_long = [name for name in too_long if name not in table.key]
    if not too_long:
        return row
    key = {column: row[column] for column in table.key}
    log.warning("row.cut", table=table.name, columns=too_long, **key)
    fitting = row | {name: _shortened(table, row, name, limits[name]) for name in too_long}
    return fitting | {"cut": ", ".join(too_long)} if "cut" in row else fitting


def _has_short_texts(payload: str, destination: Destination) -> bool:
    """Return whether each text in JSON, as it is written there, is one that a column of texts would hold."""
    return not any(is_longer(text[0], destination.longest_text) for text in _TEXT_IN_JSON.finditer(payload))


def _shortened(table: Table, row: Row, name: str, limit: int | None) -> str | None:
    """Return a shorter value: the beginning of a text or a list, or the place of a payload in the log."""
    text: str = row[name]
    if name not in table.json:
        return fit_text(text, limit)
    if table.name == "booking_events":
        return as_json({"cut": {"bytes": len(text.encode()), "position": row["position"]}})
    return fit_json(text, limit)
