"""What may be missing of an account, as noted in the audit topic: reconciliation reads it there, and compares the account at once.

Receivers, consumers and reconciliation may run on different machines; the log is what they share.
"""

from datetime import datetime

import orjson

from ingest.event import Event, digest
from ingest.instant import format_instant

# The type of a note; its data says when it became known.
LOST = "ingest.delivery.lost"


def loss_note(source: str, known_at: datetime, *what: str | bytes) -> Event:
    """Make the note that something of this account may be missing; `what` tells it from other notes of that moment."""
    return Event(
        id=digest(source, LOST, format_instant(known_at), *what),
        source=source,
        type=LOST,
        subject=source,
        time=known_at,
        received_at=known_at,
        data=orjson.dumps({"reported_at": format_instant(known_at)}),
    )
