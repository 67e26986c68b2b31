"""When webhooks of an account arrived, and which secret signed them, as the warehouse has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from ingest.clock import CLOCK_SKEW, add_span
from ingest.destinations import DUCKDB, POSTGRES
from ingest.settings import Settings
from ingest.vendors import TEST_EVENT
from ingest.vendors.registry import vendor_names
from ingest.warehouse.query import query_or_empty

# Only webhooks are signed, also when they were replayed into another warehouse.
# Deliveries of our own (`ingest webhooks test`) prove nothing about the vendor's.
_TEST_TYPES = ", ".join(f"'{vendor}.{TEST_EVENT}'" for vendor in vendor_names())
_DELIVERED = f"signed_by IS NOT NULL AND type NOT IN ({_TEST_TYPES})"
_EVENTS = f"FROM booking_events WHERE vendor = %s AND account = %s AND {_DELIVERED}"
_LAST_PER_ACCOUNT = (
    "SELECT vendor, account, max(received_at) FROM booking_events"  # noqa: S608 - our own names
    f" WHERE {_DELIVERED} GROUP BY vendor, account"
)
# OnceHub sends nothing about a request that waits for approval: only reconciliation sees it.
_MISSED = (
    "SELECT max(updated_at) FROM bookings"
    " WHERE vendor = %s AND account = %s AND last_via = 'reconcile' AND status <> 'pending'"
)


_MISSED_CHANGES = (
    "SELECT vendor, account, updated_at FROM bookings WHERE last_via = 'reconcile' AND status <> 'pending'"
    " AND gone_at IS NULL AND loaded_at >= %s AND updated_at >= %s ORDER BY updated_at DESC LIMIT 1000"
)
_AROUND = (
    "SELECT max(CASE WHEN received_at <= %s THEN received_at END),"
    f" min(CASE WHEN received_at >= %s THEN received_at END) {_EVENTS}"
)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When the newest webhook came, and when the newest change happened that webhooks missed."""

    last: datetime | None = None
    missed: datetime | None = None


def has_event(settings: Settings, vendor: str, account: str, event_id: str) -> bool:
    """Return whether an event was loaded. Raises WarehouseUnavailable."""
    sql = "SELECT id FROM booking_events WHERE vendor = %s AND account = %s AND id = %s"
    return bool(query_or_empty(settings, sql, [vendor, account, event_id]).rows)


def arrivals(settings: Settings, vendor: str, account: str, until: datetime | None = None) -> Arrivals:
    """Return the arrivals of an account, empty where nothing was loaded yet. Raises WarehouseUnavailable.

    Those after `until` are left out, and times in the future, which a wrong clock has written.
    """
    latest = add_span(datetime.now(UTC), CLOCK_SKEW)
    latest = min(until, latest) if until else latest
    last_sql = f"SELECT max(received_at) {_EVENTS} AND received_at <= %s"
    missed_sql = f"{_MISSED} AND updated_at <= %s"
    last, missed = (
        next((row[0] for row in query_or_empty(settings, sql, [vendor, account, latest]).rows), None)
        for sql in (last_sql, missed_sql)
    )
    return Arrivals(last, missed)


def missed_changes(
    settings: Settings, loaded_since: datetime, changed_since: datetime
) -> dict[tuple[str, str], list[datetime]]:
    """Return when changes happened that webhooks missed and reconciliation has loaded, newest first.

    They are by vendor and account: those loaded and changed since these times, at most the newest 1,000.
    Raises WarehouseUnavailable.
    """
    changes: dict[tuple[str, str], list[datetime]] = {}
    for vendor, account, at in query_or_empty(settings, _MISSED_CHANGES, [loaded_since, changed_since]).rows:
        changes.setdefault((vendor, account), []).append(at)
    return changes


def deliveries_around(
    settings: Settings, account: tuple[str, str], before: datetime, after: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return when the last webhook came until `before`, and when the first one since `after`.

    `account` is a vendor and an account. None where there is none. Raises WarehouseUnavailable.
    """
    rows = query_or_empty(settings, _AROUND, [before, after, *account]).rows
    return (rows[0][0], rows[0][1]) if rows else (None, None)


def last_deliveries(settings: Settings) -> dict[tuple[str, str], datetime]:
    """Return when each account's newest webhook came, by vendor and account. Raises WarehouseUnavailable."""
    return {
        (vendor, account): last for vendor, account, last in query_or_empty(settings, _LAST_PER_ACCOUNT).rows
    }


def hourly_deliveries(
    settings: Settings, since: datetime, account: tuple[str, str] | None = None
) -> dict[tuple[str, str], dict[datetime, int]]:
    """Return how many webhooks came in each hour since then, by vendor and account and the hour's beginning.

    With an `account`, only its own. Hours without any are left out. Raises WarehouseUnavailable.
    """
    hour = "date_trunc('hour', received_at)"  # takes a fraction of the time, but not all destinations have it
    if settings.warehouse.kind not in (DUCKDB, POSTGRES):
        hour = ", ".join(f"extract({part} from received_at)" for part in ("year", "month", "day", "hour"))
    wanted, values = (" AND vendor = %s AND account = %s", account) if account else ("", ())
    sql = (
        f"SELECT vendor, account, {hour}, count(*) FROM booking_events"  # noqa: S608 - our own names
        f" WHERE {_DELIVERED} AND received_at >= %s{wanted} GROUP BY vendor, account, {hour}"
    )
    deliveries: dict[tuple[str, str], dict[datetime, int]] = {}
    for vendor, name, *begin, count in query_or_empty(settings, sql, [since, *values]).rows:
        deliveries.setdefault((vendor, name), {})[_begin_of_hour(begin)] = int(count)
    return deliveries


def _begin_of_hour(values: Sequence[Any]) -> datetime:
    """Return the begin of an hour of what a query has for it: an instant, or its parts."""
    if len(values) == 1:
        return cast(datetime, values[0])
    year, month, day, hour = map(int, values)
    return datetime(year, month, day, hour, tzinfo=UTC)


def arrived_types(settings: Settings, vendor: str, account: str) -> dict[str, datetime]:
    """Return when the newest webhook of each type came, by type. Raises WarehouseUnavailable."""
    sql = f"SELECT type, max(received_at) {_EVENTS} GROUP BY type ORDER BY type"
    return dict(query_or_empty(settings, sql, [vendor, account]).rows)


def last_signed(
    settings: Settings, vendor: str, account: str, since: datetime, old: Sequence[str]
) -> tuple[datetime | None, datetime | None]:
    """Return when the newest webhooks came that were signed with a new secret, and with an `old` one.

    Only webhooks after `since` count. Secrets are named by their places among the account's secrets, from "1"
    on. Raises WarehouseUnavailable.
    """
    is_old = f"signed_by IN ({', '.join(['%s'] * len(old))})"
    times = (
        f"max(CASE WHEN {is_old} THEN NULL ELSE received_at END), max(CASE WHEN {is_old} THEN received_at"
        " END)"
    )
    sql = f"SELECT {times} {_EVENTS} AND received_at > %s"
    rows = query_or_empty(settings, sql, [*old, *old, vendor, account, since]).rows
    return (rows[0][0], rows[0][1]) if rows else (None, None)
