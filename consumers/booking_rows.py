"""Rows of the table `bookings`: as messages make them, and as a warehouse returns them.

Without Arrow, which the reading process does not need.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson

from ingest.booking import COLUMNS, EMPTY, Booking, BookingStatus, rounded
from ingest.event import Event, vendor_and_account
from ingest.fitting import as_json
from ingest.times import parse_stored_instant
from ingest.warehouse import is_instant, is_version, parsed_json

Row = dict[str, Any]

UNREADABLE_VERSION = "0"
"""The version of a row whose own cannot be read: below all others, and above a column's without a message."""

# Columns of a booking that have no version of their own.
UNVERSIONED_COLUMNS = {"booking_id", "version", "column_versions"}

BOOKINGS_JSON = ("staff", "answers", "tracking", "guests", "column_versions")
_EMPTY_BOOKING = Booking(booking_id="", version="", status=BookingStatus.UNKNOWN)


def booking_row(
    booking: Booking, event: Event, version: str, first_seen_at: datetime, now: datetime | None
) -> Row:
    """Make the row of a booking.

    `version` is the whole one, by which rows are compared; `first_seen_at` is kept from the booking's first
    row. `now` is None where the row is not loaded yet.
    """
    vendor, account = vendor_and_account(event.source)
    row: Row = {
        "vendor": vendor,
        "account": account,
        "booking_id": booking.booking_id,
        "version": version,
        "status": booking.status.value,
        "starts_at": booking.starts_at,
        "ends_at": booking.ends_at,
        "group_id": booking.group_id,
        "timezone": booking.timezone,
        "created_at": booking.created_at,
        "updated_at": booking.updated_at,
        "service_id": booking.service_id,
        "service_name": booking.service_name,
        "staff": as_json(booking.staff),
        "staff_name": booking.staff_name,
        "location": booking.location,
        "customer_id": booking.customer_id,
        "customer_name": booking.customer_name,
        "customer_email": booking.customer_email,
        "customer_phone": booking.customer_phone,
        "participants": booking.participants,
        "price": None if booking.price is None else rounded(booking.price),
        "currency": booking.currency,
        "cancel_reason": booking.cancel_reason,
        "cancelled_by": booking.cancelled_by,
        "rescheduled_from": booking.rescheduled_from,
        "rescheduled_to": booking.rescheduled_to,
        "answers": as_json(booking.answers),
        "tracking": as_json(booking.tracking),
        "guests": as_json(booking.guests),
        "cancelled_at": booking.cancelled_at,
        "conference_url": booking.conference_url,
        "gone_at": booking.gone_at,
        "column_versions": None,
        "first_seen_at": first_seen_at,
        "last_event_id": event.id,
        "last_via": event.via.value,
        "loaded_at": now,
    }
    if booking.untold or booking.column_versions:
        guessed = {
            name: guess_version(version) for name in booking.untold if getattr(booking, name) not in EMPTY
        }
        versions = dict.fromkeys(booking.untold, "") | guessed | dict(booking.column_versions or {})
        row["column_versions"] = as_json(versions)
    return row


def column_versions(row: Row) -> dict[str, str]:
    """Return the versions of the columns that the newest message of a row of `bookings` does not have."""
    versions: dict[str, str] = orjson.loads(row["column_versions"] or "{}")
    return versions


def guess_version(version: str) -> str:
    """Return the version of a column at which a message guesses: below all versions without a guess."""
    return f"(guess) {version}"  # versions begin with a digit, and "(" sorts before those


def without_guess(version: str) -> str:
    """Return the version of the message that wrote a column, whether it guessed or not."""
    return version.removeprefix("(guess) ")


def empty_value(name: str) -> Any:
    """Return the value of a column of `bookings` that no message has written."""
    value = getattr(_EMPTY_BOOKING, name)
    return as_json(value) if name in BOOKINGS_JSON else value


def stored_booking_row(columns: Iterable[str], values: Iterable[Any]) -> Row:
    """Make a row as `booking_row` does of what a warehouse returned: JSON as text, instants in UTC.

    Somebody may have changed the row. A version that cannot be read becomes `UNREADABLE_VERSION`, so that the
    next message replaces the row. Column versions that cannot be read count as the row's, so that no older
    message wins.
    """
    row = dict(zip(columns, values, strict=True))
    for name, value in row.items():
        if is_instant(name):
            row[name] = parse_stored_instant(value) if isinstance(value, datetime | str) else None
        elif name in BOOKINGS_JSON:
            try:
                row[name] = as_json(parsed_json(value))
            except ValueError:
                row[name] = None
    if "version" in row and not is_version(row["version"]):
        return row | {"version": UNREADABLE_VERSION, "column_versions": None}
    return row if _are_column_versions(row.get("column_versions")) else row | {"column_versions": None}


def _are_column_versions(text: str | None) -> bool:
    versions = orjson.loads(text or "{}")
    return isinstance(versions, dict) and all(
        name in COLUMNS and isinstance(version, str) and (not version or is_version(without_guess(version)))
        for name, version in versions.items()
    )
