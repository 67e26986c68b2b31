"""A simulated account with some days of history, whose REST API is served to a client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import httpx

from ingest.booking import Booking
from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import RateLimit, SimulatedApi, Subscriptions
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, ChangeKind, Meeting, World
from tests.support.accounts import SIMULATED, advance, booking_of, delivery_from, product_account

STEP = timedelta(minutes=7, microseconds=1234)


@dataclass(frozen=True, slots=True)
class AccountHistory:
    """An account named after its vendor, and all changes to its meetings."""

    vendor: str
    world: World
    changes: list[Change]

    @property
    def meetings(self) -> dict[int, Meeting]:
        """The meetings in their current state."""
        return self.world.meetings[self.vendor]

    def first(self, kind: ChangeKind) -> Change:
        """Return the first change of a kind."""
        return next(change for change in self.changes if change.kind is kind)

    def bookings_of_webhooks(self) -> dict[int, Booking]:
        """Return what the product reads in the latest webhook of every meeting."""
        latest = {change.meeting.number: change for change in self.changes}
        return {number: booking_of(change) for number, change in latest.items()}


@dataclass(frozen=True, slots=True)
class ServedAccount:
    """A served API and a client, which has the credential and a base URL of `api_url`."""

    api: SimulatedApi
    server: RestServer
    client: httpx.Client

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a successful response."""
        response = self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()


def history_of(vendor: str, steps: int, seed: int = 11) -> AccountHistory:
    """Return the history of so many steps of the world."""
    world = World({vendor: SIMULATED[vendor].capabilities}, seed)
    return AccountHistory(vendor, world, advance(world, [STEP] * steps))


cached_history = cache(history_of)


@contextmanager
def served(
    history: AccountHistory, headers: Mapping[str, str] | None = None, limit: RateLimit | None = None
) -> Iterator[ServedAccount]:
    """Serve the account's API to a client with these headers, or with the right credential."""
    vendor = history.vendor
    api = load_simulated_vendor(vendor).api(SIMULATED[vendor], history.meetings)
    server = RestServer({vendor: api}, {vendor: limit} if limit else {})
    auth = api.auth_headers() if headers is None else headers
    with server.serving(), httpx.Client(base_url=server.api_url(vendor), headers=auth) as client:
        yield ServedAccount(api, server, client)


@contextmanager
def served_without_subscriptions(vendor: str) -> Iterator[ServedAccount]:
    """Serve an account without meetings, and without the subscription that it starts with."""
    with served(history_of(vendor, 0)) as account:
        subscriptions_of(account.api).clear()
        yield account


def subscriptions_of(api: SimulatedApi) -> Subscriptions:
    """Return the subscriptions of an API that has them."""
    assert api.subscriptions is not None
    return api.subscriptions


def recipient_urls(api: SimulatedApi, change: Change) -> list[str]:
    """Return the URLs that the change's webhook goes to."""
    return [
        f"{account.url}?{webhook.query}" if webhook.query else account.url
        for account, webhook in api.deliveries(change)
    ]


def parsed_event_type(api: SimulatedApi, change: Change, public_url: str, secret: str) -> str:
    """Verify the change's only webhook with the product, and return the event type it reads."""
    [(simulated, webhook)] = api.deliveries(change)
    received_at = change.meeting.changed_at
    account = product_account(simulated, public_url, secret)
    return account.parse(account.verify(delivery_from(simulated, webhook, received_at), received_at)).type
