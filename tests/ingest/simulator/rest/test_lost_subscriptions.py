"""Subscriptions that are created although the response is lost, and those that exist from the beginning."""

import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request

from ingest.simulator import load_simulated_vendor
from ingest.simulator.server import LostResponse
from ingest.simulator.world import ChangeKind
from ingest.vendors import vendor_names
from tests.ingest.simulator.rest.served import (
    ServedAccount,
    cached_history,
    recipient_urls,
    served_without_subscriptions,
    subscriptions_of,
)
from tests.support.accounts import ACCOUNTS, SECRET, SIMULATED

# The vendors whose API has subscriptions.
WITH_SUBSCRIPTIONS = [
    vendor
    for vendor, account in SIMULATED.items()
    if load_simulated_vendor(vendor).api(account, {}).subscriptions is not None
]


@pytest.fixture(params=WITH_SUBSCRIPTIONS)
def account(request: pytest.FixtureRequest) -> Iterator[ServedAccount]:
    with served_without_subscriptions(request.param) as account:
        yield account


def create(
    account: ServedAccount, timeout: float | None = 30.0, *, authenticated: bool = True
) -> httpx.Response:
    """Create a subscription with the account's own URL."""
    subscriptions = subscriptions_of(account.api)
    fields = subscriptions.fields_for(account.api.account.url)
    headers = account.api.auth_headers() if authenticated else {}
    url = f"{account.server.api_url(account.api.vendor)}{subscriptions.path}"
    return httpx.post(url, json=fields, headers=dict(headers), timeout=timeout)


def urls(account: ServedAccount) -> list[str]:
    return [subscription.url for subscription in subscriptions_of(account.api).all()]


def lose(account: ServedAccount, lost: LostResponse) -> None:
    """Lose the responses of all creations."""

    def loss(name: str, request: Request) -> LostResponse | None:
        return lost if (name, request.method) == (account.api.vendor, "POST") else None

    account.server.losses.append(loss)


def test_an_error_may_be_answered_of_what_was_done(account: ServedAccount) -> None:
    lose(account, LostResponse.ERROR)
    assert create(account).status_code == 500
    assert urls(account) == [account.api.account.url]
    assert account.server.requests == {(account.api.vendor, 500): 1}
    account.server.losses.clear()
    assert create(account).status_code == (201 if subscriptions_of(account.api).replaces else 409)


def test_nothing_may_be_answered_until_the_client_gives_up(account: ServedAccount) -> None:
    lose(account, LostResponse.SILENCE)
    with pytest.raises(httpx.ReadTimeout):
        create(account, timeout=2.0)
    assert len(urls(account)) == 1


def test_what_is_not_lost_is_answered(account: ServedAccount) -> None:
    lose(account, LostResponse.SILENCE)
    path = subscriptions_of(account.api).path
    assert account.client.get(f"{path}/nothing").status_code == 404


def test_what_reaches_no_endpoint_is_not_asked_of(account: ServedAccount) -> None:
    lose(account, LostResponse.ERROR)
    assert create(account, authenticated=False).status_code in {401, 403}
    assert urls(account) == []


def test_a_server_stops_though_somebody_waits_for_an_answer() -> None:
    done, statuses = threading.Event(), list[int]()
    with served_without_subscriptions(WITH_SUBSCRIPTIONS[0]) as account:

        def loss(_: str, __: Request) -> LostResponse:
            done.set()
            return LostResponse.SILENCE

        account.server.losses.append(loss)
        thread = threading.Thread(target=lambda: statuses.append(create(account, timeout=60.0).status_code))
        thread.start()
        assert done.wait(30)
    thread.join(30)
    assert statuses == [500]


@pytest.mark.parametrize("vendor", vendor_names())
def test_from_the_beginning_the_accounts_own_webhook_is_there(vendor: str) -> None:
    api = load_simulated_vendor(vendor).api(SIMULATED[vendor], {})
    change = cached_history(vendor, 60).first(ChangeKind.CREATED)
    [query, *_] = ACCOUNTS[vendor].webhook_queries()
    url = SIMULATED[vendor].url
    assert recipient_urls(api, change) == [f"{url}?{query}" if query else url]
    [(account, webhook)] = api.deliveries(change)
    sent_at = change.meeting.changed_at
    assert webhook == SIMULATED[vendor].webhook(change)
    assert account.secret == SECRET
    assert account.headers(webhook, sent_at) == SIMULATED[vendor].headers(webhook, sent_at)
