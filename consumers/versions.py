"""The version guard: dlt has none, so what is older than the warehouse's row is left out before the load."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ingest.booking import Booking
from ingest.event import Event, Via
from ingest.instant import format_instant

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the warehouse has of a booking; `last_event_id` is the event that made its row."""

    version: str
    first_seen_at: datetime
    last_event_id: str = ""


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

    def made(self, held: Stored) -> bool:
        """Whether the row is of this very event: the same id, and the same time, because REST may tell one thing again later."""
        return self.event.id == held.last_event_id and format_instant(self.event.time) == held.version.rpartition("/")[2]


def newest(candidates: Iterable[Candidate]) -> dict[Key, Candidate]:
    """One candidate per booking; of equal versions the first in the log, as when they come in two batches."""
    best: dict[Key, Candidate] = {}
    for candidate in candidates:
        held = best.get(candidate.key)
        if held is None or candidate.version > held.version:
            best[candidate.key] = candidate
    return best
