"""Watches rows become visible, by asking the warehouse as any reader would."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.warehouse.query import query, query_all
from ingest.warehouse.values import QueryResult

_EPOCH = datetime.fromtimestamp(0, UTC)
_CLOSER = (
    "select account, status, count(*) from bookings group by all",
    "select vendor, status, starts_at, customer_name, service_name, price from bookings order by loaded_at desc limit 8",
)


@dataclass(slots=True)
class Watch:
    """`freshness`: seconds from an event's receipt to the first look that saw its row, so never flattering."""

    settings: Settings
    events: int = 0
    bookings: int = 0
    freshness: list[float] = field(default_factory=list)
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    newest: list[tuple[Any, ...]] = field(default_factory=list)
    first_row_at: datetime | None = None
    _seen_until: datetime = _EPOCH

    async def look(self, *, details: bool = True) -> None:
        """One look; a warehouse that is not there yet has no rows."""
        try:
            await asyncio.to_thread(self._look, details)
        except IngestError:
            return

    def _look(self, details: bool) -> None:
        new, *closer = query_all(self.settings, [self._new_events(), *(_CLOSER if details else ())])
        now = datetime.now(UTC)
        if new.rows:
            self.first_row_at = self.first_row_at or now
            self._seen_until = max(loaded for _, loaded in new.rows)
            self.freshness += [(now - received).total_seconds() for received, _ in new.rows]
            self.events += len(new.rows)
        if closer:
            self._look_closer(*closer)

    def _new_events(self) -> str:
        return f"select received_at, loaded_at from booking_events where loaded_at > timestamptz '{self._seen_until.isoformat()}'"  # noqa: S608 - a time of ours

    def _look_closer(self, counts: QueryResult, newest: QueryResult) -> None:
        self.statuses = {}
        for account, status, count in counts.rows:
            self.statuses.setdefault(account, {})[status] = count
        self.bookings = sum(count for _, _, count in counts.rows)
        self.newest = list(newest.rows)


def rows_as_dicts(settings: Settings, sql: str) -> list[dict[str, Any]]:
    """The rows of a query by column name."""
    answer = query(settings, sql)
    return answer.dicts()
