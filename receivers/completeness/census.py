"""What a run lists, counted by the hour in which each booking changed last."""

from dataclasses import dataclass
from datetime import datetime

from ingest.booking import Booking
from ingest.clock import version_instant
from ingest.warehouse.completeness import hour_of
from receivers.completeness.digest import add, digest_of, subtract
from receivers.completeness.verdicts import HourCount


@dataclass(frozen=True, slots=True)
class _Entry:
    hour: datetime
    digest: int
    is_held: bool


class Census:
    """Counts the bookings that a vendor lists in a run, each one once, although windows overlap.

    `since` and `until` are the bounds of what was listed to the end, and `reached_future` says that bookings
    were listed however late they start. `began_at` is when the vendor was first asked, by its own clock; None
    if it was not asked, or if nothing told its time then. `counts` are the numbers by hour, and `unplaced`
    the entries that cannot be read, not even their hour. `unsteady` are the windows in which a booking may
    have been left out, because others changed their places while the list was read.
    """

    def __init__(self, since: datetime) -> None:
        self.since = self.until = since
        self.began_at: datetime | None = None
        self._is_timed = True
        self.counts: dict[datetime, HourCount] = {}
        self.unplaced = 0
        self.reached_future = False
        self.unsteady: list[tuple[datetime, datetime]] = []
        self._has_shifted = False
        self._entries: dict[str, _Entry] = {}
        self._entries_before: dict[str, _Entry] = {}  # those of the window before

    def begin_window(self) -> None:
        """Forget the bookings that were listed in the window before the last one."""
        self._entries, self._entries_before = {}, self._entries
        self._has_shifted = False

    def end_window(self, start: datetime, end: datetime, *, open_ended: bool) -> None:
        """Note that [start, end) was listed to the end, or all from `start` on if it is open-ended."""
        self.until = end
        self.reached_future = open_ended
        if self._has_shifted:
            self.unsteady.append((start, end))

    def note_request(self, at: datetime | None) -> None:
        """Note that the vendor was asked, by its own clock; None if nothing tells its time."""
        self._is_timed = self._is_timed and at is not None
        if at is None or not self._is_timed:
            self.began_at = None
        else:
            self.began_at = at if self.began_at is None else min(at, self.began_at)

    def note(self, booking: Booking, *, is_held: bool) -> None:
        """Count a booking that the vendor has, and whether the warehouse has that version or a newer one."""
        changed_at = version_instant(booking.version)
        if changed_at is None:
            self.unplaced += 1
            return
        entry = _Entry(hour_of(changed_at), digest_of(booking.booking_id, booking.version), is_held)
        self._replace(booking.booking_id, entry)

    def note_repaired(self, booking: Booking) -> None:
        """Note that a booking that was missing is in the warehouse now."""
        entry = self._entries.get(booking.booking_id)
        if entry and not entry.is_held and entry.digest == digest_of(booking.booking_id, booking.version):
            self._replace(booking.booking_id, _Entry(entry.hour, entry.digest, is_held=True))
            self.counts[entry.hour].repaired += 1

    def note_shifted(self, booking: Booking) -> None:
        """Note the present version of a booking that changed while the list was read.

        If it was listed in an earlier version, it left its place then, and another one may have moved up into
        a page that was read already.
        """
        entry = self._entries.get(booking.booking_id)
        if entry and entry.digest != digest_of(booking.booking_id, booking.version):
            self._has_shifted = True

    def note_unreadable(self, changed_at: datetime | None) -> None:
        """Count an entry that cannot be read. `changed_at` is None where not even that is known."""
        if changed_at is None:
            self.unplaced += 1
        else:
            self._count(hour_of(changed_at)).unreadable += 1

    def note_doubted(self, booking: Booking) -> None:
        """Count a booking of the warehouse that the vendor does not have, and that may not be gone."""
        changed_at = version_instant(booking.version)
        if changed_at is not None:
            self._count(hour_of(changed_at)).doubted += 1

    def _count(self, hour: datetime) -> HourCount:
        return self.counts.setdefault(hour, HourCount())

    def _replace(self, booking_id: str, entry: _Entry) -> None:
        listed = self._entries.get(booking_id)
        before = listed or self._entries_before.pop(booking_id, None)
        if before:
            count = self._count(before.hour)
            count.listed -= 1
            count.missing -= not before.is_held
            count.digest = subtract(count.digest, before.digest)
        if listed and listed.digest != entry.digest:
            self._has_shifted = True
        count = self._count(entry.hour)
        count.listed += 1
        count.missing += not entry.is_held
        count.digest = add(count.digest, entry.digest)
        self._entries[booking_id] = entry
