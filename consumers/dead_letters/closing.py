"""Which dead letters are closed: all that their events must change is in the warehouse."""

from collections.abc import Sequence
from datetime import UTC, datetime

from consumers.dead_letters.letters import Letters, identity_of
from consumers.dead_letters.reading import Reader, Trouble
from consumers.versions import outcome
from ingest.event import Event


def closed(letters: Letters, reader: Reader, events: Sequence[Event | Trouble]) -> list[bool]:
    """Say of each whether its row is there, and loading it again would leave its booking as it is.

    The row of an event says nothing of its booking: a load writes one table after the other, and only the second may have been refused.
    """
    loaded = letters.loaded(event for event in events if isinstance(event, Event))
    told = [
        reader.candidates(event) if isinstance(event, Event) and identity_of(event) in loaded else None
        for event in events
    ]
    stored = letters.bookings({candidate.key for some in told for candidate in some or ()})
    now = datetime.now(UTC)
    return [
        some is not None and all(outcome([one], stored.get(one.key), now).row is None for one in some)
        for some in told
    ]
