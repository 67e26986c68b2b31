"""The result of a reconciliation, for people, for scripts, and as the row of `reconciliations`."""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from ingest.errors import IngestError
from ingest.event import RECONCILED, Event, Via, digest, source_of
from ingest.times import format_instant


@dataclass(slots=True)
class Counts:
    """Numbers of bookings, and of the requests that were sent.

    The vendor has `seen` bookings. Of these, `matched` are the same in the warehouse, `missed` are lacking
    or older there, `untold` are so too but in a state that no webhook tells of, and `newer_here` are newer
    there. `repaired` is how many of the missed are loaded by now. `gone` are in the warehouse, and no longer
    at the vendor. `least_requests` is the fewest requests that could have shown as much as those sent.
    """

    seen: int = 0
    matched: int = 0
    missed: int = 0
    repaired: int = 0
    untold: int = 0
    newer_here: int = 0
    gone: int = 0
    unreadable: int = 0
    requests: int = 0
    least_requests: int = 0


@dataclass(slots=True)
class Report:
    """The report of one account's run.

    Times are by the vendor's clock. `until` is None for a run that reached into the future. `clock_ahead` is
    how far this machine's clock is ahead of the vendor's, None where they could not be compared.
    `unproven` tells of bookings that were not marked as gone because nothing proves the key, and what to do.
    `unrecorded` is why the report is not in the log yet.
    """

    vendor: str
    account: str
    since: datetime
    until: datetime | None
    started_at: datetime
    finished_at: datetime
    counts: Counts = field(default_factory=Counts)
    failure: IngestError | None = None
    unrecorded: IngestError | None = None
    clock_ahead: timedelta | None = None
    unproven: str | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is missing any more, all could be read, and what is gone is marked."""
        has_trouble = self.failure or self.unproven or self.counts.unreadable
        return not has_trouble and self.counts.missed == self.counts.repaired

    @property
    def id(self) -> str:
        """The id of the row: a run that was stopped and the one that resumed it are two rows."""
        return digest(
            source_of(self.vendor, self.account),
            RECONCILED,
            format_instant(self.started_at),
            format_instant(self.finished_at),
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns of the row in `reconciliations`."""
        return {
            "id": self.id,
            "vendor": self.vendor,
            "account": self.account,
            "since": format_instant(self.since),
            "until": format_instant(self.until) if self.until else None,
            "started_at": format_instant(self.started_at),
            "finished_at": format_instant(self.finished_at),
            "duration_seconds": round((self.finished_at - self.started_at).total_seconds(), 3),
            **asdict(self.counts),
            "outcome": "failed" if self.failure else "complete",
            "error": str(self.failure) if self.failure else self.unproven,
        }

    def event(self) -> Event:
        """Return the event that carries the report in the audit topic."""
        source = f"/{self.vendor}/{self.account}"
        return Event(
            id=self.id,
            source=source,
            type=RECONCILED,
            subject=source,
            time=self.finished_at,
            received_at=self.finished_at,
            data=orjson.dumps(self.columns()),
            via=Via.RECONCILE,
        )
