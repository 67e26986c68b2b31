"""Subscriptions that are made and of which the answer is lost; and what is there before anybody made one."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from ingest.simulator.api import load_rest_dialect
from ingest.simulator.server import Lost
from ingest.simulator.world import Kind
from ingest.vendors import vendor_names
from tests.simulator.rest.asking import Asking
from tests.simulator.rest.subscribing import a_change, kept_by, reached, story, subscribing
from tests.simulator.rest.test_bookeo_subscriptions import ASKED as BOOKEO
from tests.simulator.rest.test_calendly_subscriptions import ASKED as CALENDLY
from tests.simulator.rest.test_oncehub_subscriptions import ASKED as ONCEHUB
from tests.simulator.story import DIALECTS, SECRET

CREATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "bookeo": ("webhooks", BOOKEO),
    "calendly": ("webhook_subscriptions", CALENDLY),
    "oncehub": ("webhooks", ONCEHUB),
}


@pytest.fixture(params=sorted(CREATIONS))
def account(request: pytest.FixtureRequest) -> Iterator[Asking]:
    with subscribing(request.param) as found:
        yield found


def create(found: Asking, timeout: float | None = 30.0) -> httpx.Response:
    path, asked = CREATIONS[found.rest.vendor]
    return found.client.post(path, json=asked, timeout=timeout)


def urls(found: Asking) -> list[str]:
    return [kept.url for kept in kept_by(found.rest).all()]


def lose(found: Asking, lost: Lost) -> None:
    """The answers of all creations."""

    def loss(account: str, request: Request) -> Lost | None:
        return lost if (account, request.method) == (found.rest.vendor, "POST") else None

    found.server.losses.append(loss)


def test_an_error_may_be_answered_of_what_was_done(account: Asking) -> None:
    lose(account, Lost.ERROR)
    assert create(account).status_code == 500
    assert urls(account) == [CREATIONS[account.rest.vendor][1]["url"]]
    assert account.server.requests == {(account.rest.vendor, 500): 1}
    account.server.losses.clear()
    assert (
        create(account).status_code == {"bookeo": 201, "calendly": 409, "oncehub": 409}[account.rest.vendor]
    )


def test_nothing_may_be_answered_until_the_client_gives_up(account: Asking) -> None:
    lose(account, Lost.SILENCE)
    with pytest.raises(httpx.ReadTimeout):
        create(account, timeout=2.0)
    assert len(urls(account)) == 1


def test_what_is_not_lost_is_answered(account: Asking) -> None:
    lose(account, Lost.SILENCE)
    path, _ = CREATIONS[account.rest.vendor]
    assert account.client.get(f"{path}/nothing").status_code == 404


def test_what_reaches_no_endpoint_is_not_asked_of(account: Asking) -> None:
    lose(account, Lost.ERROR)
    path, asked = CREATIONS[account.rest.vendor]
    assert httpx.post(f"{account.client.base_url}{path}", json=asked).status_code in {401, 403}
    assert urls(account) == []


def test_a_server_stops_though_somebody_waits_for_an_answer() -> None:
    done, statuses = threading.Event(), list[int]()
    with subscribing("bookeo") as found:

        def loss(_: str, __: Request) -> Lost:
            done.set()
            return Lost.SILENCE

        found.server.losses.append(loss)
        path, asked = CREATIONS["bookeo"]
        address, headers = f"{found.client.base_url}{path}", found.client.headers
        thread = threading.Thread(
            target=lambda: statuses.append(
                httpx.post(address, json=asked, headers=headers, timeout=60).status_code
            )
        )
        thread.start()
        assert done.wait(30)
    thread.join(30)
    assert statuses == [500]


@pytest.mark.parametrize("vendor", vendor_names())
def test_from_the_beginning_the_accounts_own_webhook_is_there(vendor: str) -> None:
    rest, change = load_rest_dialect(vendor)(DIALECTS[vendor], {}), a_change(story(vendor, 60), Kind.CREATED)
    query = "?domain=bookings&type=created" if vendor == "bookeo" else ""
    assert reached(rest, change) == [DIALECTS[vendor].url + query]
    ((dialect, webhook),) = rest.deliveries(change)
    at = change.meeting.changed_at
    assert webhook == DIALECTS[vendor].webhook(change)
    assert dialect.secret == SECRET
    assert dialect.headers(webhook, at) == DIALECTS[vendor].headers(webhook, at)
