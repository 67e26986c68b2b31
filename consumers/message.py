"""What one event says about a booking, and the version by which such messages are ordered. Pure.

A time that cannot be right orders nothing. A change cannot be later than its event was sent, or received
where the vendor tells no time of sending, nor earlier than the booking was created. A version with such a
time counts as one with the nearest possible time, by what the record itself says.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from consumers.rows import (
    UNVERSIONED_COLUMNS,
    Row,
    as_json,
    booking_row,
    column_versions,
    without_guess,
)
from ingest.booking import COLUMNS, Booking
from ingest.clock import add_span, is_ahead, is_long_before, with_instant
from ingest.errors import PayloadError
from ingest.event import Event, Via
from ingest.times import format_instant, parse_instant

Key = tuple[str, str, str]
"""The primary key of `bookings`: vendor, account and booking id."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BookingMessage:
    """A booking as one event describes it."""

    event: Event
    booking: Booking

    @property
    def key(self) -> Key:
        """The booking's key."""
        return (self.event.vendor, self.event.account, self.booking.booking_id)

    @property
    def version(self) -> str:
        """The vendor's version and the event's time, which orders messages of one version.

        Vendors cut times to seconds, even minutes. A repair's version is just above the one that it
        supersedes.
        """
        event = self.event
        state = self._plausible_state()
        time = event.time if event.time <= event.latest_possible else event.happened_by
        superseded_state, _, superseded_time = event.supersedes.partition("/")
        if state <= superseded_state and not self.takes_over:
            state, time = superseded_state, max(time, _just_after(superseded_time))
        return f"{state}/{format_instant(time)}"

    def _plausible_state(self) -> str:
        """Return the vendor's version, with the nearest possible time in place of an impossible one."""
        version, created_at, event = self.booking.version, self.booking.created_at, self.event
        if is_ahead(version, event.latest_possible):
            return with_instant(version, event.happened_by)
        if created_at and created_at <= event.latest_possible and is_long_before(version, created_at):
            return with_instant(version, created_at)
        return version

    @property
    def is_implausible(self) -> bool:
        """Whether the event or the booking has a time that cannot be right."""
        return self.event.time > self.event.latest_possible or self._plausible_state() != self.booking.version

    @property
    def takes_over(self) -> bool:
        """Whether it supersedes a version whose time was still in the future when REST returned the booking.

        Releases that believed every time have left rows with such versions, which no message could surpass.
        """
        return is_ahead(self.event.supersedes, self.event.latest_possible)

    @property
    def is_replayed(self) -> bool:
        """Whether it comes once more because somebody asked for that."""
        return self.event.via is Via.REPLAY

    @property
    def is_complete(self) -> bool:
        """Whether it has every column."""
        return not self.booking.untold and not self.booking.column_versions

    def wrote(self, stored: Row) -> bool:
        """Return whether a stored row was made from this very event.

        The id alone does not say so: REST may return the same thing again add_span, with another time.
        """
        row_time: str = stored["version"].rpartition("/")[2]
        times = (format_instant(self.event.time), self.version.rpartition("/")[2])
        return self.event.id == stored["last_event_id"] and row_time in times

    def to_row(self, now: datetime) -> Row:
        """Return the row of a booking that has no other message."""
        versions = {
            name: self._plausible_column(version)
            for name, version in (self.booking.column_versions or {}).items()
        }
        booking = replace(self.booking, column_versions=versions or None)
        return booking_row(booking, self.event, self.version, self.event.received_at, now)

    def before_takeover(self, stored: Row) -> Row:
        """Return a row that it takes over with versions below its own; any other row unchanged."""
        if not self.takes_over or stored["version"] != self.event.supersedes:
            return stored
        versions = column_versions(stored)
        plausible = {
            name: self._plausible_column(versions.get(name, self.event.supersedes))
            for name in COLUMNS
            if name not in UNVERSIONED_COLUMNS
        }
        return stored | {"version": "", "column_versions": as_json(plausible)}

    def _plausible_column(self, version: str) -> str:
        """Return a column's version; one just below the message's where its time was still in the future."""
        if not is_ahead(without_guess(version), self.event.latest_possible):
            return version
        state, _, time = self.version.partition("/")
        below = f"{state}/{format_instant(parse_instant(time) - _TICK)}"
        return version.replace(without_guess(version), below)


def _just_after(time: str) -> datetime:
    """Return the next instant; the first one after a text that is none, which we never write."""
    try:
        return add_span(parse_instant(time), _TICK)
    except PayloadError:
        return datetime.min.replace(tzinfo=UTC)
