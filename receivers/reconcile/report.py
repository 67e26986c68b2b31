"""What a reconciliation found, for people, for scripts, and as the row of `reconciliations`."""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from ingest.errors import IngestError
from ingest.event import RECONCILED, Event, Via, digest
from ingest.instant import format_instant


@dataclass(slots=True)
class Counts:
    """Bookings, but for `requests`: those sent, and the fewest that could have shown as much.

    `seen` at the vendor; of these `matched`, `missed` (lacking or older here), `untold` (the same, but no webhook tells of
    them), `newer_here`. `repaired` of the missed are loaded. `gone` are here, and no longer at the vendor.
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
    """One account's run. `until` is None where it reached into the future; `unrecorded` tells why no row tells of it yet.

    `unproven` tells of bookings that were not marked as gone, because the key proves nothing, and what to do.

    Times are the vendor's; `clock_ahead` is how far this machine's clock was found to be ahead of that, None where it could not be compared.
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
        """Nothing is missing any more, all could be read, and what is gone is marked."""
        is_whole = not (self.failure or self.unproven or self.counts.unreadable)
        return is_whole and self.counts.missed == self.counts.repaired

    @property
    def id(self) -> str:
        """A run that was stopped and one that went on from there are two."""
        return digest(
            f"/{self.vendor}/{self.account}",
            RECONCILED,
            format_instant(self.started_at),
            format_instant(self.finished_at),
        )

    def columns(self) -> dict[str, Any]:
        """As in `reconciliations`."""
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
        """For the audit topic."""
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
