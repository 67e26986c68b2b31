"""The version guard: the newest message about a booking wins, column by column. Pure.

dlt has no version guard: the row of an older message would replace that of a newer one. And not every message
has every column: a deletion may name nothing but the booking, and what earlier messages said about it has to
stay. So each column is a last-writer-wins register: a message writes the columns that it has, and only where
it is newer than the message that wrote them. The order in which messages arrive does not matter.

A row has one `version`, that of its newest message. `column_versions` holds the versions of the columns which
that message does not have: each is the version of the message that wrote the column, or "" where none did. A
message may guess at a column that it does not have: the newest guess stays until a message has the column,
whatever its version.

Some columns describe what another column names: `customer_phone` is the phone of `customer_id`. Where two
messages name different customers, the older message also empties the describing columns, at its own version:
what it or an older message said about them is gone, and what a newer message says stays. The version at which
a column was emptied only grows, so the order of messages does not matter here either.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from consumers.booking_rows import Row, column_versions, empty_value, guess_version, without_guess
from consumers.message import BookingMessage
from ingest.fitting import as_json

# Columns that say how a row was made, not what a message says about the booking.
_LOAD_COLUMNS = {"first_seen_at", "last_via", "loaded_at"}

# Column → the column that names what it describes.
DESCRIBES: Mapping[str, str] = {
    "staff_name": "staff",
    "service_name": "service_id",
    **dict.fromkeys(
        ("customer_name", "customer_email", "customer_phone", "timezone", "answers"), "customer_id"
    ),
    "currency": "price",
    "ends_at": "starts_at",
}


@dataclass(frozen=True, slots=True)
class RowChange:
    """The booking's new `row`, None where the stored one stays, and the messages that came too late."""

    row: Row | None
    stale: Sequence[BookingMessage]


def newest_wins(messages: Sequence[BookingMessage], stored: Row | None, now: datetime) -> RowChange:
    """Apply the messages about one booking, in the order of the log, to its stored row.

    The cases of a message, of which the newest is looked at first:

    1. The booking has no row: the message becomes the row.
    2. The message is newer than the row: it replaces the columns that it has, and the others stay.
    3. It is not newer, and the row's newest message had every column: it changes nothing.
    4. It is not newer, and the row's newest message lacked columns: it writes those of them that it has and
       that no newer message has written.

    Two kinds of messages change the stored row before that:

    - A repair is a state that reconciliation read by REST. It names the version of the row that it replaces,
      and its own version is just above that one, so that it is newer (case 2). If that version has a time
      that cannot be right, the row's versions are put below the repair's.
    - A replayed message that wrote the row, or columns of it, writes them again with today's mapping.

    `stored` is the whole row where `needs_whole_row` says so, and otherwise a part of it.
    """
    row = _before_newer_messages(messages, stored, now)
    unused: list[BookingMessage] = []
    for message in _newest_first(messages):
        if row is None:
            row = message.to_row(now)
        elif message.version > row["version"]:
            row = merge_rows(row, message.to_row(now))
        elif row["column_versions"] is None:
            unused.append(message)
        else:
            filled = merge_rows(row, message.to_row(now))
            if filled is row:
                unused.append(message)
            row = filled
    stale = [
        message
        for message in unused
        if stored is not None and not message.is_replayed and message.version < stored["version"]
    ]
    if row is None or row is stored:
        return RowChange(None, stale)
    first_seen_at = (stored or {}).get("first_seen_at") or min(
        message.event.received_at for message in messages
    )
    return RowChange(row | {"first_seen_at": first_seen_at, "loaded_at": now}, stale)


def needs_whole_row(messages: Sequence[BookingMessage], stored: Row) -> bool:
    """Return whether the whole stored row is needed, because single columns of it may change.

    `stored` is a part of the row that has its versions. Where a message is newer than the row, the columns
    that `kept_columns` returns are enough.
    """
    has_gaps = stored["column_versions"] is not None
    for message in messages:
        if message.takes_over or (message.is_replayed and (has_gaps or message.wrote(stored))):
            return True
    if max(message.version for message in messages) <= stored["version"]:
        return has_gaps
    return not kept_columns(messages) <= stored.keys()


def kept_columns(messages: Iterable[BookingMessage]) -> set[str]:
    """Return the columns of a stored row that messages which are newer keep or compare.

    They are those that the messages do not have, and those that say what these describe. Replayed messages
    also compare the event that wrote the row.
    """
    names: set[str] = set()
    for message in messages:
        if not message.is_complete:
            names.update(column_versions(message.row))
        if message.is_replayed:
            names.add("last_event_id")
    return names | {DESCRIBES[name] for name in names if name in DESCRIBES}


def may_have_written(messages: Iterable[BookingMessage], stored: Row) -> bool:
    """Return whether one of these messages may have written a stored row, or single columns of it."""
    versions = {stored["version"], *map(without_guess, column_versions(stored).values())}
    return any(
        message.version >= stored["version"]
        or not versions.isdisjoint(
            {message.version, *map(without_guess, column_versions(message.row).values())} - {""}
        )
        for message in messages
    )


def _before_newer_messages(
    messages: Sequence[BookingMessage], stored: Row | None, now: datetime
) -> Row | None:
    """Return the stored row with the changes of repairs that take it over and of replayed messages."""
    if stored is None:
        return None
    row = _remapped(messages, stored, now)
    for message in messages:
        row = message.before_takeover(row)
    return row


def _newest_first(messages: Iterable[BookingMessage]) -> list[BookingMessage]:
    """Sort messages, so that few columns are left to fill. Of equally new ones the first in the log wins."""
    return sorted(messages, key=lambda message: message.version, reverse=True)


@dataclass(frozen=True, slots=True)
class _Cell:
    """The value of a column, and the version of the message that wrote it."""

    version: str
    value: Any


def merge_rows(stored: Row, other: Row) -> Row:
    """Return the newer of two rows, with the other one's values in columns that its message does not have.

    Of two rows of one version `stored` counts as the newer. Returns `stored` itself when nothing of it
    changes.
    """
    newer, older = (other, stored) if other["version"] > stored["version"] else (stored, other)
    names = column_versions(newer).keys()
    needed = {*names, *(DESCRIBES.get(name, name) for name in names)}
    newer_cells, older_cells = _cells(newer, needed), _cells(older, needed)
    return _with_cells(newer, {name: _newest_cell(name, newer_cells, older_cells) for name in names})


def _cells(row: Row, names: Iterable[str]) -> dict[str, _Cell]:
    versions = column_versions(row)
    default: str = row["version"]
    return {name: _Cell(versions.get(name, default), row[name]) for name in names}


def _with_cells(row: Row, cells: Mapping[str, _Cell]) -> Row:
    """Return the row with these cells; the row itself when it has them already."""
    if _cells(row, cells) == cells:
        return row
    values = {name: cell.value for name, cell in cells.items()}
    versions = column_versions(row) | {name: cell.version for name, cell in cells.items()}
    return row | values | {"column_versions": as_json(versions)}


def _newest_cell(name: str, *rows: Mapping[str, _Cell]) -> _Cell:
    """Return the newest cell of a column in two rows; an empty one where neither is valid any more."""
    emptied = _emptied_version(name, *rows)
    valid = [row[name] for row in rows if not emptied or without_guess(row[name].version) > emptied]
    return max(valid, key=lambda cell: cell.version, default=_Cell(emptied, empty_value(name)))


def _emptied_version(name: str, *rows: Mapping[str, _Cell]) -> str:
    """Return the version at which a describing column was emptied, "" where two rows name the same thing.

    A guess names nothing.
    """
    if name not in DESCRIBES:
        return ""
    first, second = (row[DESCRIBES[name]] for row in rows)
    earlier = min(first.version, second.version)
    is_guess = earlier != without_guess(earlier)
    return "" if is_guess or _identity(first.value) == _identity(second.value) else earlier


def _identity(value: Any) -> Any:
    """Return what identifies the thing that a column names: of a list, which `staff` is, the first entry."""
    return orjson.loads(value)[:1] if isinstance(value, str) and value.startswith("[") else value


def _remapped(messages: Sequence[BookingMessage], stored: Row, now: datetime) -> Row:
    """Return the stored row as today's mapping makes it, where messages that wrote it are replayed.

    Returns `stored` itself when nothing of it changes.
    """
    row = stored
    replayed = [message for message in messages if message.is_replayed]
    newest = next((message for message in replayed if message.wrote(stored)), None)
    if newest:
        remapped = newest.to_row(now)
        filled = _cells(row, column_versions(row))
        remapped_cells = _cells(remapped, filled)
        row = _with_cells(
            remapped,
            {name: cell for name, cell in filled.items() if cell.version > remapped_cells[name].version},
        )
    if row["column_versions"] is not None:
        for message in replayed:
            row = _with_rewritten_columns(row, message.to_row(now))
        # A message that names something else has also emptied columns that it does not have.
        for message in _newest_first(replayed):
            row = merge_rows(row, message.to_row(now))
    if row is stored or all(row[name] == stored[name] for name in row.keys() - _LOAD_COLUMNS):
        return stored
    return row


def _with_rewritten_columns(row: Row, replayed: Row) -> Row:
    """Return the row with the columns that a replayed message once wrote as the message has them now.

    The version of a column shows which message wrote it. Columns that the message no longer has stay.
    """
    versions, replayed_versions = column_versions(row), column_versions(replayed)
    own_versions = {replayed["version"], guess_version(replayed["version"])}
    written = {
        name: replayed_versions.get(name, replayed["version"])
        for name, version in versions.items()
        if version in own_versions
    }
    values = {name: replayed[name] for name in written}
    return row | values | {"column_versions": as_json(versions | written)}
