"""Dead letters in short, each with whether its event was loaded after all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumers.dead_letters.letters import Letters, StoredLetter
from consumers.dead_letters.reading import Reader
from ingest.event import Event


@dataclass(frozen=True, slots=True)
class Listed:
    """One letter; `loaded` is whether the event it should have been is in the warehouse now."""

    id: str
    happened_at: datetime
    vendor: str
    account: str
    reason: str
    detail: str
    position: str
    loaded: bool


def listed(letters: Letters, reader: Reader, ids: Sequence[str]) -> Iterator[Listed]:
    """In the order of the ids. What cannot be read as an event today cannot have been loaded as one."""
    for some in letters.read(ids):
        events = {found.id: reader.identify(found) for found in some}
        loaded = letters.loaded(event for event in events.values() if isinstance(event, Event))
        for found in some:
            event = events[found.id]
            yield _listed(found, isinstance(event, Event) and (event.source, event.id) in loaded)


def _listed(found: StoredLetter, loaded: bool) -> Listed:
    letter = found.letter
    return Listed(found.id, letter.happened_at, found.vendor, found.account, letter.reason, letter.detail, letter.position, loaded)
