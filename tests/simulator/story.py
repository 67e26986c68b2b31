"""A world's story, and each of its changes read as the product reads it: signed, verified, parsed, mapped."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.message import BookingMessage
from consumers.rows import TABLES, Row
from ingest.booking import Booking
from ingest.event import Event
from ingest.simulator.dialect import Dialect, load_dialect
from ingest.simulator.world import Change, World
from ingest.vendors import AnyAccount, Delivery, load_account_class, vendor_names
from ingest.vendors.delivery import Headers
from ingest.warehouse.values import parsed_json

BEGINNING = datetime(2026, 6, 1, 9, 12, 34, 567891, UTC)
SECRET = "one-that-only-these-tests-use"


def dialects_at(url: str) -> Mapping[str, Dialect]:
    """One account per vendor, named like it."""
    return {
        vendor: load_dialect(vendor)(f"{url}/webhooks/{vendor}/{vendor}", SECRET) for vendor in vendor_names()
    }


def vendors_at(url: str) -> Mapping[str, AnyAccount]:
    """The product's side of the same accounts."""
    return {vendor: _vendor(dialect, url) for vendor, dialect in dialects_at(url).items()}


def _vendor(dialect: Dialect, url: str) -> AnyAccount:
    found = load_account_class(dialect.vendor)
    table = {**dialect.settings(), "name": dialect.vendor, "webhook_secrets": [SECRET]}
    return found(found.settings_model.model_validate(table), url)


DIALECTS = dialects_at("https://hooks.example.com")
VENDORS = vendors_at("https://hooks.example.com")


def new_world(seed: int = 1) -> World:
    """Of the four accounts, in which nothing has happened."""
    return World({name: dialect.habits for name, dialect in DIALECTS.items()}, seed)


def live(world: World, gaps: Iterable[timedelta]) -> list[Change]:
    """One step after each gap."""
    now, changes = BEGINNING, []
    for gap in gaps:
        now += gap
        changes += world.step(now)
    return changes


def delivered(change: Change, at: datetime) -> Delivery:
    """The webhook as it arrives at that time."""
    dialect = DIALECTS[change.account]
    webhook = dialect.webhook(change)
    return Delivery(webhook.query, Headers.of(dialect.headers(webhook, at).items()), webhook.body, at)


def read(change: Change, at: datetime) -> BookingMessage:
    """What becomes of it when it arrives at that time, by way of the log's form."""
    account = VENDORS[change.account]
    event = account.parse(account.verify(delivered(change, at), at))
    booking = account.booking(Event.from_record(event.to_record()))
    assert booking is not None, f"{event.type} tells of no booking"
    return BookingMessage(event, booking)


def row(candidate: BookingMessage, at: datetime) -> dict[str, Any]:
    """The row of `bookings` as a query gives it: JSON columns as values."""
    return row_as_queried(candidate.to_row(at))


def row_as_queried(written: Row) -> dict[str, Any]:
    """A row of `bookings` with the values of its JSON columns."""
    return written | {
        name: parsed_json(written[name])
        for table in TABLES
        if table.name == "bookings"
        for name in table.json
    }


def as_queried(booking: Booking) -> dict[str, Any]:
    """The JSON columns of a booking as values, as a query gives them."""
    return {
        "staff": list(booking.staff),
        "guests": list(booking.guests),
        "answers": [asdict(answer) for answer in booking.answers],
        "tracking": booking.tracking,
    }
