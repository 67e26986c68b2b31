"""The version guard: dlt has none, so what is older than the warehouse's row is left out before the load."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ingest.booking import Booking
from ingest.event import Event, Via
from ingest.instant import format_instant

Key = tuple[str, str, str]

_CACHED = 50_000


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


class VersionGuard:
    """Knows what the warehouse has, from a bounded cache or by asking. Right only while one consumer writes a booking."""

    def __init__(self, ask: Callable[[Iterable[Key]], Mapping[Key, Stored]]) -> None:
        """`ask` gives what the warehouse has of some keys."""
        self._ask = ask
        self._known: OrderedDict[Key, Stored] = OrderedDict()

    def stored(self, keys: Iterable[Key], doubted: Collection[Key] = ()) -> dict[Key, Stored]:
        """What the warehouse has of these; it is asked for the doubted ones, whatever is remembered. Raises WarehouseUnavailable."""
        wanted = list(keys)
        known = {key: self._known[key] for key in wanted if key in self._known and key not in doubted}
        missing = [key for key in wanted if key not in known]
        return known | (dict(self._ask(missing)) if missing else {})

    def remember(self, loaded: Mapping[Key, Stored]) -> None:
        """After a load that succeeded."""
        for key, stored in loaded.items():
            self._known[key] = stored
            self._known.move_to_end(key)
        while len(self._known) > _CACHED:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """After anything that may have let another consumer write, or left a load half known."""
        self._known.clear()
