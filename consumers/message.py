"""What one event says about a booking, and the version by which such messages are ordered. Pure.

A time that cannot be right orders nothing. A change cannot be later than its event was sent, or received
where the vendor tells no time of sending, nor earlier than the booking was created. A version with such a
time counts as one with the nearest possible time, by what the record itself says.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from consumers.booking_rows import (
    UNVERSIONED_COLUMNS,
    Row,
    booking_row,
    column_versions,
    without_guess,
)
from ingest.booking import COLUMNS, Booking, BookingStatus
from ingest.clock import add_span, is_ahead, is_long_before, with_instant
from ingest.errors import PayloadError
from ingest.event import Event, Via
from ingest.fitting import as_json
from ingest.times import format_instant, parse_instant

Key = tuple[str, str, str]
"""The primary key of `bookings`: vendor, account and booking id."""

_TICK = timedelta(microseconds=1)


# Frozen ones take three times as long to make, and one is made of each event; nothing changes them.
@dataclass(slots=True)
class BookingMessage:
    """What one event says about a booking: the row that it would have if there were no other message.

    The row has no `loaded_at` yet.
    `changed_at` is the vendor's version of the booking, whether it can be right or not.
    `is_complete` says whether the message has every column, `is_implausible` whether the event or the booking
    has a time that cannot be right, and `has_unknown_status` whether its status is a word that is not known.
    """

    event: Event
    row: Row
    changed_at: str
    is_complete: bool
    is_implausible: bool
    has_unknown_status: bool

    @classmethod
    def of(cls, event: Event, booking: Booking) -> "BookingMessage":
        """Return what an event says about this booking."""
        latest_possible = event.latest_possible
        state = _plausible_state(event, booking, latest_possible)
        version = _version(event, state, latest_possible)
        if booking.column_versions:
            versions = {
                name: _plausible_column(column_version, version, latest_possible)
                for name, column_version in booking.column_versions.items()
            }
            plausible = replace(booking, column_versions=versions)
        else:
            plausible = booking
        return cls(
            event,
            booking_row(plausible, event, version, event.received_at, None),
            booking.version,
            is_complete=not booking.untold and not booking.column_versions,
            is_implausible=event.time > latest_possible or state != booking.version,
            has_unknown_status=booking.status is BookingStatus.UNKNOWN and "status" not in booking.untold,
        )

    @property
    def key(self) -> Key:
        """The booking's key."""
        return self.row["vendor"], self.row["account"], self.row["booking_id"]

    @property
    def version(self) -> str:
        """The vendor's version and the event's time, which orders messages of one version.

        Vendors cut times to seconds, even minutes. A repair's version is just above the one that it
        supersedes.
        """
        version: str = self.row["version"]
        return version

    @property
    def takes_over(self) -> bool:
        """Whether it supersedes a version whose time was still in the future when REST returned the booking.

        Releases that believed every time have left rows with such versions, which no message could surpass.
        """
        return _takes_over(self.event, self.event.latest_possible)

    @property
    def is_replayed(self) -> bool:
        """Whether it comes once more because somebody asked for that."""
        return self.event.via is Via.REPLAY

    def wrote(self, stored: Row) -> bool:
        """Return whether a stored row was made from this very event.

        The id alone does not say so: REST may return the same thing again later, with another time.
        """
        row_time: str = stored["version"].rpartition("/")[2]
        times = (format_instant(self.event.time), self.version.rpartition("/")[2])
        return self.event.id == stored["last_event_id"] and row_time in times

    def to_row(self, now: datetime) -> Row:
        """Return the row of a booking that has no other message, as it is loaded now."""
        return self.row | {"loaded_at": now}

    def before_takeover(self, stored: Row) -> Row:
        """Return a row that it takes over with versions below its own; any other row unchanged."""
        if stored["version"] != self.event.supersedes or not self.takes_over:
            return stored
        versions = column_versions(stored)
        latest_possible = self.event.latest_possible
        plausible = {
            name: _plausible_column(versions.get(name, self.event.supersedes), self.version, latest_possible)
            for name in COLUMNS
            if name not in UNVERSIONED_COLUMNS
        }
        return stored | {"version": "", "column_versions": as_json(plausible)}


def _plausible_state(event: Event, booking: Booking, latest_possible: datetime) -> str:
    """Return the vendor's version, with the nearest possible time in place of an impossible one."""
    version, created_at = booking.version, booking.created_at
    if is_ahead(version, latest_possible):
        return with_instant(version, event.happened_by)
    if created_at and created_at <= latest_possible and is_long_before(version, created_at):
        return with_instant(version, created_at)
    return version


def _version(event: Event, state: str, latest_possible: datetime) -> str:
    time = event.time if event.time <= latest_possible else event.happened_by
    if event.supersedes:
        superseded_state, _, superseded_time = event.supersedes.partition("/")
        if state <= superseded_state and not _takes_over(event, latest_possible):
            state, time = superseded_state, max(time, _just_after(superseded_time))
    return f"{state}/{format_instant(time)}"


def _takes_over(event: Event, latest_possible: datetime) -> bool:
    return bool(event.supersedes) and is_ahead(event.supersedes, latest_possible)


def _plausible_column(column_version: str, version: str, latest_possible: datetime) -> str:
    """Return a column's version; one just below the message's where its time was still in the future."""
    if not is_ahead(without_guess(column_version), latest_possible):
        return column_version
    state, _, time = version.partition("/")
    below = f"{state}/{format_instant(parse_instant(time) - _TICK)}"
    return column_version.replace(without_guess(column_version), below)


def _just_after(time: str) -> datetime:
    """Return the next instant; the first one after a text that is none, which we never write."""
    try:
        return add_span(parse_instant(time), _TICK)
    except PayloadError:
        return datetime.min.replace(tzinfo=UTC)
