"""The accounts of the tests on both sides: as vendors simulate them, and as the product reads them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.booking_rows import Row
from consumers.message import BookingMessage
from consumers.rows import TABLES
from ingest.booking import Booking
from ingest.event import Event
from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.world import Change, World
from ingest.vendors import AnyAccount, Delivery, load_account_class, vendor_names
from ingest.vendors.delivery import Headers
from ingest.warehouse import parsed_json

BEGINNING = datetime(2026, 6, 1, 9, 12, 34, 567891, UTC)
PUBLIC_URL = "https://hooks.example.com"
SECRET = "one-that-only-these-tests-use"


def simulated_account(vendor: str, public_url: str, name: str) -> SimulatedAccount:
    """Return an account whose webhooks go to this public URL."""
    return load_simulated_vendor(vendor).account(f"{public_url}/webhooks/{vendor}/{name}", SECRET)


def simulated_accounts(url: str) -> Mapping[str, SimulatedAccount]:
    """Return one account per vendor, named after it."""
    return {vendor: simulated_account(vendor, url, vendor) for vendor in vendor_names()}


def product_account(
    account: SimulatedAccount, public_url: str, secret: str = SECRET, name: str = ""
) -> AnyAccount:
    """Return the product's side of a simulated account."""
    account_class = load_account_class(account.vendor)
    table = {**account.settings(), "name": name or account.vendor, "webhook_secrets": [secret]}
    return account_class(account_class.settings_model.model_validate(table), public_url)


def product_accounts(url: str) -> Mapping[str, AnyAccount]:
    """Return the product's side of `simulated_accounts`."""
    return {name: product_account(account, url) for name, account in simulated_accounts(url).items()}


SIMULATED = simulated_accounts(PUBLIC_URL)
ACCOUNTS = product_accounts(PUBLIC_URL)


def new_world(seed: int = 1) -> World:
    """Return a world of these accounts in which nothing has happened yet."""
    return World({name: account.capabilities for name, account in SIMULATED.items()}, seed)


def advance(world: World, gaps: Iterable[timedelta]) -> list[Change]:
    """Advance the world by one step after each gap, and return the changes."""
    now, changes = BEGINNING, []
    for gap in gaps:
        now += gap
        changes += world.step(now)
    return changes


def delivery_from(account: SimulatedAccount, webhook: Webhook, received_at: datetime) -> Delivery:
    """Return a webhook as it arrives at that time."""
    headers = Headers.of(account.headers(webhook, received_at).items())
    return Delivery(webhook.query, headers, webhook.body, received_at)


def delivery_of(change: Change, received_at: datetime) -> Delivery:
    """Return the webhook about a change as it arrives at that time."""
    account = SIMULATED[change.account]
    return delivery_from(account, account.webhook(change), received_at)


def candidate_of(change: Change, received_at: datetime) -> BookingMessage:
    """Return what the consumer makes of a change's webhook that arrives at that time."""
    return BookingMessage.of(*_event_and_booking(change, received_at))


def booking_of(change: Change) -> Booking:
    """Return the booking in the webhook about a change, which arrives when the meeting is changed."""
    return _event_and_booking(change, change.meeting.changed_at)[1]


def _event_and_booking(change: Change, received_at: datetime) -> tuple[Event, Booking]:
    account = ACCOUNTS[change.account]
    event = account.parse(account.verify(delivery_of(change, received_at), received_at))
    booking = account.booking(Event.from_record(event.to_record()))
    assert booking is not None, f"{event.type} tells of no booking"
    return event, booking


def row(candidate: BookingMessage, loaded_at: datetime) -> dict[str, Any]:
    """Return the row of `bookings` as a query does, with JSON columns as values."""
    return row_as_queried(candidate.to_row(loaded_at))


def row_as_queried(written: Row) -> dict[str, Any]:
    """Return a row of `bookings` with the values of its JSON columns."""
    return written | {
        name: parsed_json(written[name])
        for table in TABLES
        if table.name == "bookings"
        for name in table.json
    }


def as_queried(booking: Booking) -> dict[str, Any]:
    """Return the JSON columns of a booking as values, as a query does."""
    return {
        "staff": list(booking.staff),
        "guests": list(booking.guests),
        "answers": [asdict(answer) for answer in booking.answers],
        "tracking": booking.tracking,
    }
