"""Signed deliveries of simulated accounts, one of each vendor, for benchmarks."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.world import Change, World
from ingest.vendors import Delivery, vendor_names
from ingest.vendors.delivery import Headers

PUBLIC_URL = "https://hooks.example.com"
SECRET = "not-a-secret"
_FIRST_CHANGE_AGO = timedelta(days=3)
_BETWEEN_CHANGES = timedelta(milliseconds=200)


def path_of(vendor: str) -> str:
    """Return the path to which the account of a vendor sends; the account has the vendor's name."""
    return f"/webhooks/{vendor}/{vendor}"


def simulated_account(vendor: str) -> SimulatedAccount:
    """Return the simulated account of a vendor."""
    return load_simulated_vendor(vendor).account(PUBLIC_URL + path_of(vendor), SECRET)


def account_settings() -> dict[str, dict[str, Any]]:
    """Return the settings of all accounts, secrets included, by name."""
    return {
        name: {**simulated_account(name).settings(), "webhook_secrets": [SECRET]} for name in vendor_names()
    }


def deliveries(count: int, *vendors: str) -> Iterator[tuple[str, Delivery]]:
    """Yield vendors and deliveries, signed now, of a world whose bookings are made, moved and cancelled.

    Without `vendors` they are of all vendors.
    """
    accounts = {name: simulated_account(name) for name in vendors or vendor_names()}
    world = World({name: account.capabilities for name, account in accounts.items()})
    at = datetime.now(UTC) - _FIRST_CHANGE_AGO

    def changes() -> Iterator[Change]:
        nonlocal at
        while True:
            at += _BETWEEN_CHANGES
            yield from world.step(at)

    for change in islice(changes(), count):
        account, now = accounts[change.account], datetime.now(UTC)
        webhook = account.webhook(change)
        headers = Headers.of(account.headers(webhook, now).items())
        yield change.account, Delivery(webhook.query, headers, webhook.body, now)
