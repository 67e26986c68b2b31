"""Notes in the audit topic that deliveries of an account may be missing.

Reconciliation reads them, and compares the account at once.

Receivers, consumers and reconciliation may run on different machines; the log is what they share.
"""

from datetime import datetime

import orjson

from ingest.event import Event, digest
from ingest.instant import format_instant

# The type of such a note; its data says when the loss became known.
LOST = "ingest.delivery.lost"


def build_loss_note(source: str, known_at: datetime, *details: str | bytes) -> Event:
    """Make the note that deliveries of a source may be missing.

    `details` distinguish it from other notes of that moment.
    """
    return Event(
        id=digest(source, LOST, format_instant(known_at), *details),
        source=source,
        type=LOST,
        subject=source,
        time=known_at,
        received_at=known_at,
        data=orjson.dumps({"reported_at": format_instant(known_at)}),
    )
