"""What the warehouse says about how soon webhooks were visible, and the table `freshness`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ingest.settings import Settings
from ingest.times import parse_stored_instant
from ingest.warehouse.completeness import loads_table
from ingest.warehouse.query import query_or_empty

# The most that a load takes, from when its rows were made until it is noted.
_LONGEST_LOAD = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook: when it was received, when its event happened, and when its load began.

    `happened_at` is the same as `received_at` where the vendor does not tell.
    """

    received_at: datetime
    happened_at: datetime
    loaded_at: datetime


class FreshnessTable:
    """The table `freshness`, and the webhooks and loads that its rows are made from.

    Every call raises WarehouseUnavailable.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def last_stated(self, vendor: str, account: str) -> datetime | None:
        """Return when an account's newest row was stated; None where there is none."""
        sql = "SELECT max(stated_at) FROM freshness WHERE vendor = %s AND account = %s"
        rows = self._rows(sql, [vendor, account])
        return parse_stored_instant(rows[0][0]) if rows and rows[0][0] else None

    def quantiles(self, vendor: str, account: str, since: datetime) -> dict[datetime, tuple[float, float]]:
        """Return p50 and p95 of the hours that begin since then, in seconds, by hour."""
        sql = "SELECT hour, p50, p95 FROM freshness WHERE vendor = %s AND account = %s AND hour >= %s"
        rows = self._rows(sql, [vendor, account, since])
        return {parse_stored_instant(hour): (p50, p95) for hour, p50, p95 in rows}

    def receipts(self, vendor: str, account: str, since: datetime) -> Iterator[datetime]:
        """Yield when each webhook was received that was loaded since then."""
        sql = (
            "SELECT received_at FROM booking_events"
            " WHERE vendor = %s AND account = %s AND via = 'webhook' AND loaded_at >= %s"
        )
        for (received_at,) in self._rows(sql, [vendor, account, since]):
            yield parse_stored_instant(received_at)

    def arrivals(self, vendor: str, account: str, since: datetime, until: datetime) -> list[Arrival]:
        """Return the webhooks that were received in [since, until)."""
        sql = (
            "SELECT received_at, time, loaded_at FROM booking_events WHERE vendor = %s AND account = %s"
            " AND via = 'webhook' AND received_at >= %s AND received_at < %s"
        )
        rows = self._rows(sql, [vendor, account, since, until])
        return [Arrival(*map(parse_stored_instant, row)) for row in rows]

    def loads(self, arrivals: Sequence[Arrival]) -> list[datetime]:
        """Return when the loads were visible that may have loaded these webhooks, in order."""
        began = [arrival.loaded_at for arrival in arrivals]
        sql = (
            f"SELECT inserted_at FROM {loads_table(self._settings)}"  # noqa: S608 - our own names
            " WHERE status = 0 AND inserted_at >= %s AND inserted_at <= %s"
        )
        rows = self._rows(sql, [min(began), max(began) + _LONGEST_LOAD]) if began else []
        return sorted(parse_stored_instant(visible_at) for (visible_at,) in rows)

    def _rows(self, sql: str, parameters: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        return query_or_empty(self._settings, sql, parameters).rows
