"""A served account without subscriptions, and the recipients of its webhooks."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ingest.simulator.api import SimulatedApi
from ingest.simulator.subscriptions import Subscriptions
from ingest.simulator.world import Change
from tests.ingest.simulator.rest.served import ServedAccount, history_of, served
from tests.support.accounts import delivery_from, product_account

cached_history = cache(history_of)


@contextmanager
def served_without_subscriptions(vendor: str) -> Iterator[ServedAccount]:
    """Serve an account without meetings, and without the subscription that it starts with."""
    with served(history_of(vendor, 0)) as account:
        subscriptions_of(account.api).clear()
        yield account


def subscriptions_of(api: SimulatedApi) -> Subscriptions:
    """Return the subscriptions, which Appointedd's API does not have."""
    subscriptions = vars(api)["subscriptions"]
    assert isinstance(subscriptions, Subscriptions)
    return subscriptions


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
