"""An account to which nobody has subscribed yet, and what reaches those who then do."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import httpx

from ingest.simulator.api import RestDialect, load_rest_dialect
from ingest.simulator.server import RestServer
from ingest.simulator.subscriptions import Subscriptions
from ingest.simulator.world import Change, Kind
from ingest.vendors import Delivery, load_account_class
from ingest.vendors.delivery import Headers
from tests.simulator.rest.asking import Asking, Story, credential_of, story_of
from tests.simulator.story import DIALECTS

story = cache(story_of)


@contextmanager
def subscribing(vendor: str) -> Iterator[Asking]:
    """The account's own webhook, which is there from the beginning, is gone."""
    rest = load_rest_dialect(vendor)(DIALECTS[vendor], {})
    kept_by(rest).clear()
    server = RestServer({vendor: rest})
    headers = {"API-Key": rest.settings()["api_key"]} if vendor == "oncehub" else credential_of(rest)
    with server.serving(), httpx.Client(base_url=server.api_url(vendor), headers=headers) as client:
        yield Asking(rest, server, client)


def kept_by(rest: RestDialect) -> Subscriptions:
    """What Appointedd has not."""
    found = vars(rest)["subscriptions"]
    assert isinstance(found, Subscriptions)
    return found


def a_change(told: Story, kind: Kind) -> Change:
    """The first of its kind."""
    return next(change for change in told.changes if change.kind is kind)


def reached(rest: RestDialect, change: Change) -> list[str]:
    """The URLs that the change's webhook goes to."""
    return [
        f"{dialect.url}?{webhook.query}" if webhook.query else dialect.url
        for dialect, webhook in rest.deliveries(change)
    ]


def event_read(rest: RestDialect, change: Change, public_url: str, secret: str) -> str:
    """The type that the product reads in the only webhook of the change, which must be signed as it expects."""
    ((dialect, webhook),) = rest.deliveries(change)
    at = change.meeting.changed_at
    found = load_account_class(rest.vendor)
    settings = found.settings_model.model_validate(
        {**dialect.settings(), "name": rest.vendor, "webhook_secrets": [secret]}
    )
    delivery = Delivery(webhook.query, Headers.of(dialect.headers(webhook, at).items()), webhook.body, at)
    account = found(settings, public_url)
    return account.parse(account.verify(delivery, at)).type
