"""What came of an account's webhooks, as the warehouse has it: the newest, what was missed, and which secret signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest.clock import CLOCK_SKEW, add_span
from ingest.errors import NoSuchTable, NothingLoaded
from ingest.settings import Settings
from ingest.vendors.trial import TRIAL
from ingest.warehouse.query import query

# Webhooks alone are signed; one that was replayed since, into another warehouse, says so no other way.
# Deliveries of our own (`ingest webhooks test`) prove nothing of the vendor's.
_DELIVERED = f"signed_by IS NOT NULL AND type <> concat(vendor, '.{TRIAL}')"
_EVENTS = f"FROM booking_events WHERE vendor = %s AND account = %s AND {_DELIVERED}"
_OF_EACH = f"SELECT vendor, account, max(received_at) FROM booking_events WHERE {_DELIVERED} GROUP BY vendor, account"  # noqa: S608 - our own names
# OnceHub tells nobody of a request that waits for approval, and reconciliation alone sees it.
_MISSED = "SELECT max(updated_at) FROM bookings WHERE vendor = %s AND account = %s AND last_via = 'reconcile' AND status <> 'pending'"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """`last`: when the newest webhook came; `missed`: when the newest change happened that reconciliation had to find."""

    last: datetime | None = None
    missed: datetime | None = None


def has_event(settings: Settings, vendor: str, account: str, event_id: str) -> bool:
    """Whether this event was loaded. Raises WarehouseUnavailable."""
    return bool(
        _ask(
            settings,
            "SELECT id FROM booking_events WHERE vendor = %s AND account = %s AND id = %s",
            [vendor, account, event_id],
        )
    )


def arrivals(settings: Settings, vendor: str, account: str) -> Arrivals:
    """Raises WarehouseUnavailable; where nothing was loaded yet, nothing came. Times of the future, of a clock that was wrong, are left out."""
    latest = add_span(datetime.now(UTC), CLOCK_SKEW)
    last = _ask(
        settings, f"SELECT max(received_at) {_EVENTS} AND received_at <= %s", [vendor, account, latest]
    )
    missed = _ask(settings, f"{_MISSED} AND updated_at <= %s", [vendor, account, latest])
    return Arrivals(_first(last), _first(missed))


def last_deliveries(settings: Settings) -> dict[tuple[str, str], datetime]:
    """When each account's newest webhook came, by vendor and account. Raises WarehouseUnavailable."""
    return {(vendor, account): last for vendor, account, last in _ask(settings, _OF_EACH, [])}


def arrived_types(settings: Settings, vendor: str, account: str) -> dict[str, datetime]:
    """When the newest of each type came. Raises WarehouseUnavailable."""
    return dict(
        _ask(
            settings,
            f"SELECT type, max(received_at) {_EVENTS} GROUP BY type ORDER BY type",
            [vendor, account],
        )
    )


def last_signed(
    settings: Settings, vendor: str, account: str, since: datetime, old: Sequence[str]
) -> tuple[datetime | None, datetime | None]:
    """When the newest webhook since then came that none of the `old` secrets had signed, and one that one of them had.

    These are told by their places among the account's secrets, from "1" on. Raises WarehouseUnavailable.
    """
    is_old = f"signed_by IN ({', '.join(['%s'] * len(old))})"
    by = f"max(CASE WHEN {is_old} THEN NULL ELSE received_at END), max(CASE WHEN {is_old} THEN received_at END)"
    rows = _ask(settings, f"SELECT {by} {_EVENTS} AND received_at > %s", [*old, *old, vendor, account, since])
    return rows[0] if rows else (None, None)


def _ask(settings: Settings, sql: str, parameters: Sequence[Any]) -> Sequence[Any]:
    try:
        return query(settings, sql, parameters).rows
    except (NothingLoaded, NoSuchTable):
        return []


def _first(rows: Sequence[Any]) -> datetime | None:
    found: datetime | None = rows[0][0] if rows else None
    return found
