"""The version guard: each column of `bookings` holds what the newest message that tells it said. Pure.

dlt has no version guard: an older message's row would replace a newer one's. And not every message tells every column: a
deletion may name nothing but the booking, and what an earlier message told of it has to stay. So each column is a
last-writer-wins register: a message writes the columns that it tells, and only where it is newer than the one that wrote them.
Then the order in which messages come does not matter.

A row has one `version`, that of its newest message. `column_versions` has the versions of the columns which that message
does not tell: that of the message which wrote the column, or "" where none did. A message may guess at a column that it does not
tell: the newest guess stays until a message tells the column, whatever its version.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from consumers.rows import Row, as_json, booking_row, guess_version
from ingest.booking import Booking
from ingest.event import Event, Via
from ingest.instant import format_instant

Key = tuple[str, str, str]

# Columns that say how a row came to be, not what a message says of the booking.
_OF_THE_LOAD = {"first_seen_at", "last_via", "loaded_at"}


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
        """The vendor's version, and within one version (vendors cut times to seconds, even minutes) the event's time."""
        return f"{max(self.booking.version, self.event.supersedes)}/{format_instant(self.event.time)}"

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
        return self.event.id == stored["last_event_id"] and format_instant(self.event.time) == time

    def row(self, now: datetime) -> Row:
        """Make the row that it is where none is stored."""
        return booking_row(self.booking, self.event, self.version, self.event.received_at, now)


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
        not candidate.tells_all or (candidate.replayed and candidate.made(stored)) for candidate in candidates
    )


def outcome(candidates: Sequence[Candidate], stored: Row | None, now: datetime) -> Outcome:
    """Put the messages about one booking, in the order of the log, into its stored row, which is whole where `needs_whole_row` says so."""
    row = stored if stored is None else _read_anew(candidates, stored, now)
    unused: list[Candidate] = []
    # The newest first, so that little is left to fill. Of equally new ones the first in the log stays the first, and wins.
    for candidate in sorted(candidates, key=lambda candidate: candidate.version, reverse=True):
        before = row
        if row is None or candidate.version > row["version"] or row["column_versions"] is not None:
            row = merge(row, candidate.row(now))
        if row is before:
            unused.append(candidate)
    stale = [one for one in unused if stored is not None and not one.replayed and one.version < stored["version"]]
    if row is None or row is stored:
        return Outcome(None, stale)
    first_seen_at = stored["first_seen_at"] if stored else min(candidate.event.received_at for candidate in candidates)
    return Outcome(row | {"first_seen_at": first_seen_at, "loaded_at": now}, stale)


def merge(stored: Row | None, told: Row) -> Row:
    """Return the newer of two rows, with what the older one has in columns that the newer one's message does not tell.

    Of two rows of one version `stored` counts as the newer. Returns `stored` itself when nothing of it changes.
    """
    if stored is None:
        return told
    newer, older = (told, stored) if told["version"] > stored["version"] else (stored, told)
    default: str = older["version"]
    listed = column_versions(older)
    return _filled(newer, older, {name: listed.get(name, default) for name in column_versions(newer)})


def column_versions(row: Row) -> dict[str, str]:
    """Return the versions of the columns that the row's newest message does not tell."""
    versions: dict[str, str] = orjson.loads(row["column_versions"] or "{}")
    return versions


def _filled(row: Row, source: Row, versions: Mapping[str, str]) -> Row:
    """Return the row with those of the source's columns that have a newer version there; the row itself when none has."""
    default: str = row["version"]
    listed = column_versions(row)
    newer = {name: version for name, version in versions.items() if version > listed.get(name, default)}
    if not newer:
        return row
    return row | {name: source[name] for name in newer} | {"column_versions": as_json(listed | newer)}


def _read_anew(candidates: Sequence[Candidate], stored: Row, now: datetime) -> Row:
    """Return the stored row as today's mapping has it, where messages that wrote it are replayed; the row itself when that is the same."""
    row = stored
    replayed = [candidate for candidate in candidates if candidate.replayed]
    made_by = next((candidate for candidate in replayed if candidate.made(stored)), None)
    if made_by:
        told = made_by.row(now)
        row = _filled(told, row, column_versions(row))
    if row["column_versions"] is not None:
        for candidate in replayed:
            row = _rewritten(row, candidate.row(now))
    differs = any(row[name] != stored[name] for name in row.keys() - _OF_THE_LOAD) if row is not stored else False
    return row if differs else stored


def _rewritten(row: Row, told: Row) -> Row:
    """Return the row with the single columns that a message wrote, which their version shows, as that message tells them now, if it still does."""
    listed, untold = column_versions(row), column_versions(told)
    its_own = {told["version"], guess_version(told["version"])}
    wrote = {name: untold.get(name, told["version"]) for name, version in listed.items() if version in its_own}
    return row | {name: told[name] for name in wrote} | {"column_versions": as_json(listed | wrote)}
