"""The version guard: each column of `bookings` holds what the newest message that tells it said. Pure.

dlt has no version guard: an older message's row would replace a newer one's. And not every message tells every column: a
deletion may name nothing but the booking, and what an earlier message told of it has to stay. So each column is a
last-writer-wins register: a message writes the columns that it tells, and only where it is newer than the one that wrote them.
Then the order in which messages come does not matter.

A row has one `version`, that of its newest message. `column_versions` has the versions of the columns which that message
does not tell: that of the message which wrote the column, or "" where none did. A message may guess at a column that it does not
tell: the newest guess stays until a message tells the column, whatever its version.

A time that cannot be right orders nothing. A change cannot be later than its event was sent, or received where no time of sending is known; nor can
it be earlier than the booking was made. A version of such a time counts as one of the nearest time that can be, by what stands in the record
alone. Releases that believed every time have left rows with versions that nothing surpasses: a state that REST told and that names such
a version takes the row over.

Some columns describe what another column names: `customer_phone` is the phone of `customer_id`. Where two messages name different
things, the older one also empties the describing columns, at its own version. So what it or an older message told of them is gone, and what
a newer one tells stays. The version at which a column is emptied only ever grows as messages come, so their order does not matter here either.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from consumers.rows import Row, as_json, booking_row, empty_value, guess_version, without_guess
from ingest.booking import COLUMNS, Booking
from ingest.clock import add_span, is_ahead, is_long_before, with_instant
from ingest.errors import PayloadError
from ingest.event import Event, Via
from ingest.instant import format_instant, parse_instant

Key = tuple[str, str, str]

# Columns that say how a row came to be, not what a message says of the booking.
_OF_THE_LOAD = {"first_seen_at", "last_via", "loaded_at"}

# Columns that have no version of their own.
_NO_REGISTERS = {"booking_id", "version", "column_versions"}
_TICK = timedelta(microseconds=1)

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
class Candidate:
    """A booking as one event tells it."""

    event: Event
    booking: Booking

    @property
    def key(self) -> Key:
        """The primary key of `bookings`."""
        return (self.event.vendor, self.event.account, self.booking.booking_id)

    @property
    def version(self) -> str:
        """The vendor's version, and within one version (vendors cut times to seconds, even minutes) the event's time.

        A state that supersedes a row's is above it in the one or in the other.
        """
        event = self.event
        state, time = (
            self._state_version(),
            event.time if event.time <= event.latest_possible else event.happened_by,
        )
        superseded, _, superseded_time = event.supersedes.partition("/")
        if state <= superseded and not self.takes_over:
            state, time = superseded, max(time, _just_after(superseded_time))
        return f"{state}/{format_instant(time)}"

    def _state_version(self) -> str:
        """Return the vendor's version, with the nearest time that can be where its own cannot."""
        version, created_at, event = self.booking.version, self.booking.created_at, self.event
        if is_ahead(version, event.latest_possible):
            return with_instant(version, event.happened_by)
        if created_at and created_at <= event.latest_possible and is_long_before(version, created_at):
            return with_instant(version, created_at)
        return version

    @property
    def is_implausible(self) -> bool:
        """Whether the event or the state has a time that cannot be right."""
        return self.event.time > self.event.latest_possible or self._state_version() != self.booking.version

    @property
    def takes_over(self) -> bool:
        """Whether it supersedes a version of a time that had not come yet when REST told the state."""
        return is_ahead(self.event.supersedes, self.event.latest_possible)

    @property
    def replayed(self) -> bool:
        """Whether it comes a second time, because somebody asked for that."""
        return self.event.via is Via.REPLAY

    @property
    def tells_all(self) -> bool:
        """Say whether the event tells every column."""
        return not self.booking.untold and not self.booking.column_versions

    def made(self, stored: Row) -> bool:
        """Whether the row is of this very event: the same id, and the same time, because REST may tell one thing again later."""
        time: str = stored["version"].rpartition("/")[2]
        times = (format_instant(self.event.time), self.version.rpartition("/")[2])
        return self.event.id == stored["last_event_id"] and time in times

    def row(self, now: datetime) -> Row:
        """Make the row that it is where none is stored."""
        versions = {
            name: self._plausible(version) for name, version in (self.booking.column_versions or {}).items()
        }
        booking = replace(self.booking, column_versions=versions or None)
        return booking_row(booking, self.event, self.version, self.event.received_at, now)

    def before_takeover(self, stored: Row) -> Row:
        """Return a row that it takes over as one of before it, and whose columns are no newer than what it tells; any other row as it is."""
        if not self.takes_over or stored["version"] != self.event.supersedes:
            return stored
        versions = column_versions(stored)
        plausible = {
            name: self._plausible(versions.get(name, self.event.supersedes))
            for name in COLUMNS
            if name not in _NO_REGISTERS
        }
        return stored | {"version": "", "column_versions": as_json(plausible)}

    def _plausible(self, version: str) -> str:
        """Return a column's version, and one just below its own where that is of a time that had not come yet."""
        if not is_ahead(without_guess(version), self.event.latest_possible):
            return version
        state, _, time = self.version.partition("/")
        return version.replace(
            without_guess(version), f"{state}/{format_instant(parse_instant(time) - _TICK)}"
        )


def _just_after(time: str) -> datetime:
    """Return the next time there is; the first of all after what is none, which no program of ours writes."""
    try:
        return add_span(parse_instant(time), _TICK)
    except PayloadError:
        return datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What messages make of one booking: its `row`, None where it stays as it is stored, and the messages that were too old to count."""

    row: Row | None
    stale: Sequence[Candidate]


def by_booking(candidates: Iterable[Candidate]) -> dict[Key, list[Candidate]]:
    """Group the messages, in the order of the log."""
    groups: dict[Key, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.key, []).append(candidate)
    return groups


def needs_whole_row(candidates: Iterable[Candidate], stored: Row) -> bool:
    """Say whether more of the stored row than its version is needed: single columns may win or lose, or be read anew."""
    return stored["column_versions"] is not None or any(
        not candidate.tells_all or candidate.takes_over or (candidate.replayed and candidate.made(stored))
        for candidate in candidates
    )


def outcome(candidates: Sequence[Candidate], stored: Row | None, now: datetime) -> Outcome:
    """Put the messages about one booking, in the order of the log, into its stored row, which is whole where `needs_whole_row` says so."""
    row = stored if stored is None else _taken_over(candidates, _read_anew(candidates, stored, now))
    unused: list[Candidate] = []
    for candidate in _newest_first(candidates):
        before = row
        if row is None or candidate.version > row["version"] or row["column_versions"] is not None:
            row = merge(row, candidate.row(now))
        if row is before:
            unused.append(candidate)
    stale = [
        one for one in unused if stored is not None and not one.replayed and one.version < stored["version"]
    ]
    if row is None or row is stored:
        return Outcome(None, stale)
    first_seen_at = (stored or {}).get("first_seen_at") or min(
        candidate.event.received_at for candidate in candidates
    )
    return Outcome(row | {"first_seen_at": first_seen_at, "loaded_at": now}, stale)


def _taken_over(candidates: Iterable[Candidate], row: Row) -> Row:
    for candidate in candidates:
        row = candidate.before_takeover(row)
    return row


def _newest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort them, so that little is left to fill. Of equally new ones the first in the log stays the first, and wins."""
    return sorted(candidates, key=lambda candidate: candidate.version, reverse=True)


def merge(stored: Row | None, told: Row) -> Row:
    """Return the newer of two rows, with what the older one has in columns that the newer one's message does not tell.

    Of two rows of one version `stored` counts as the newer. Returns `stored` itself when nothing of it changes.
    """
    if stored is None:
        return told
    newer, older = (told, stored) if told["version"] > stored["version"] else (stored, told)
    names = column_versions(newer).keys()
    of_newer, of_older = (_written(row, {*names, *map(_described, names)}) for row in (newer, older))
    return _changed(newer, {name: _newest(name, of_newer, of_older) for name in names})


def column_versions(row: Row) -> dict[str, str]:
    """Return the versions of the columns that the row's newest message does not tell."""
    versions: dict[str, str] = orjson.loads(row["column_versions"] or "{}")
    return versions


@dataclass(frozen=True, slots=True)
class _Written:
    """What a column holds, and the version of the message that wrote it."""

    version: str
    value: Any


def _written(row: Row, names: Iterable[str]) -> dict[str, _Written]:
    default: str = row["version"]
    versions = column_versions(row)
    return {name: _Written(versions.get(name, default), row[name]) for name in names}


def _described(name: str) -> str:
    """Return the column that names what this one describes; the column itself where it describes no other."""
    return DESCRIBES.get(name, name)


def _newest(name: str, *rows: Mapping[str, _Written]) -> _Written:
    """Return what was written last to the column, of two rows, or that it is empty where all that describes something else by now."""
    outdated = _outdated(name, *rows)
    valid = [row[name] for row in rows if not outdated or without_guess(row[name].version) > outdated]
    return max(valid, key=lambda written: written.version, default=_Written(outdated, empty_value(name)))


def _outdated(name: str, *rows: Mapping[str, _Written]) -> str:
    """Return the version up to which the column describes another thing than the newest of the rows names, or "". A guess names nothing."""
    if name not in DESCRIBES:
        return ""
    first, second = (row[DESCRIBES[name]] for row in rows)
    earlier = min(first.version, second.version)
    return (
        earlier
        if _identity(first.value) != _identity(second.value) and earlier == without_guess(earlier)
        else ""
    )


def _identity(value: Any) -> Any:
    """Return what decides whether two values name the same thing: of a list, which `staff` is, the first."""
    return orjson.loads(value)[:1] if isinstance(value, str) and value.startswith("[") else value


def _changed(row: Row, changes: Mapping[str, _Written]) -> Row:
    """Return the row with these columns; the row itself when it has them already."""
    if _written(row, changes) == changes:
        return row
    versions = column_versions(row) | {name: change.version for name, change in changes.items()}
    return (
        row
        | {name: change.value for name, change in changes.items()}
        | {"column_versions": as_json(versions)}
    )


def _read_anew(candidates: Sequence[Candidate], stored: Row, now: datetime) -> Row:
    """Return the stored row as today's mapping has it, where messages that wrote it are replayed; the row itself when that is the same."""
    row = stored
    replayed = [candidate for candidate in candidates if candidate.replayed]
    made_by = next((candidate for candidate in replayed if candidate.made(stored)), None)
    if made_by:
        told = made_by.row(now)
        before, now_told = (_written(one, column_versions(row)) for one in (row, told))
        row = _changed(
            told,
            {name: written for name, written in before.items() if written.version > now_told[name].version},
        )
    if row["column_versions"] is not None:
        for candidate in replayed:
            row = _rewritten(row, candidate.row(now))
        for candidate in _newest_first(
            replayed
        ):  # a message that names something else also emptied columns that it does not tell
            row = merge(row, candidate.row(now))
    differs = (
        any(row[name] != stored[name] for name in row.keys() - _OF_THE_LOAD) if row is not stored else False
    )
    return row if differs else stored


def _rewritten(row: Row, told: Row) -> Row:
    """Return the row with the single columns that a message wrote, which their version shows, as that message tells them now, if it still does."""
    listed, untold = column_versions(row), column_versions(told)
    its_own = {told["version"], guess_version(told["version"])}
    wrote = {
        name: untold.get(name, told["version"]) for name, version in listed.items() if version in its_own
    }
    return row | {name: told[name] for name in wrote} | {"column_versions": as_json(listed | wrote)}
