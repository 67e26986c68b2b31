"""Bookeo's simulated webhooks: its rules for making one, and who gets which."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ingest.errors import VerificationError
from ingest.simulator.world import ChangeKind
from tests.ingest.simulator.rest.served import (
    ServedAccount,
    cached_history,
    parsed_event_type,
    recipient_urls,
    served_without_subscriptions,
    subscriptions_of,
)
from tests.support.accounts import SECRET, SIMULATED

PUBLIC = "https://hooks.example.com"
BASE = f"{PUBLIC}/webhooks/bookeo/bookeo"
URL = f"{BASE}?domain=bookings&type=created"
FIELDS: dict[str, Any] = {"domain": "bookings", "type": "created", "url": URL}


@pytest.fixture
def bookeo() -> Iterator[ServedAccount]:
    with served_without_subscriptions("bookeo") as account:
        yield account


def create(account: ServedAccount, **fields: Any) -> httpx.Response:
    """Create a subscription; a field that is None is left out."""
    return account.client.post(
        "webhooks", json={name: value for name, value in (FIELDS | fields).items() if value is not None}
    )


def created(account: ServedAccount, **fields: Any) -> str:
    """Create a subscription and return its URL."""
    response = create(account, **fields)
    assert (response.status_code, response.content) == (201, b"")
    return response.headers["Location"]


def listed(account: ServedAccount) -> list[dict[str, Any]]:
    webhooks: list[dict[str, Any]] = account.get("webhooks")["data"]
    return webhooks


def test_what_is_made_is_told_at_its_location_alone(bookeo: ServedAccount) -> None:
    location = created(bookeo)
    assert bookeo.get(location) == FIELDS | {"id": location.rpartition("/")[2]} == listed(bookeo)[0]


def test_a_second_one_takes_the_place_of_the_first(bookeo: ServedAccount) -> None:
    first, second = (
        created(bookeo),
        created(bookeo, url="https://other.example.org/?domain=bookings&type=created"),
    )
    assert first != second
    assert bookeo.client.get(first).status_code == 404
    assert [webhook["url"] for webhook in listed(bookeo)] == [
        "https://other.example.org/?domain=bookings&type=created"
    ]
    assert subscriptions_of(bookeo.api).created == 2


def test_other_types_and_domains_are_beside_it(bookeo: ServedAccount) -> None:
    pairs = [("bookings", "created"), ("bookings", "deleted"), ("customers", "created")]
    for domain, kind in pairs:
        created(bookeo, domain=domain, type=kind)
    assert [(webhook["domain"], webhook["type"]) for webhook in listed(bookeo)] == pairs


@pytest.mark.parametrize(
    "fields",
    [
        {"domain": None},
        {"type": None},
        {"url": None},
        {"domain": "meetings"},
        {"type": "moved"},
        {"type": ["created"]},
        {"url": "http://hooks.example.com"},
        {"url": "nowhere"},
        {"name": "Ours"},
    ],
)
def test_what_cannot_be_meant_is_refused(bookeo: ServedAccount, fields: dict[str, Any]) -> None:
    response = create(bookeo, **fields)
    assert (response.status_code, set(response.json())) == (400, {"httpStatus", "message", "errorId"})
    assert (listed(bookeo), subscriptions_of(bookeo.api).created) == ([], 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(bookeo: ServedAccount, body: bytes) -> None:
    assert (
        bookeo.client.post("webhooks", content=body, headers={"Content-Type": "application/json"}).status_code
        == 400
    )


def test_a_body_must_say_that_it_is_json(bookeo: ServedAccount) -> None:
    assert (
        bookeo.client.post("webhooks", data=FIELDS).json()["message"]
        == "Content-Type must be application/json"
    )


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:80"])
def test_on_loopback_no_tls_is_needed(bookeo: ServedAccount, host: str) -> None:
    assert bookeo.get(created(bookeo, url=f"http://{host}/hook"))["url"] == f"http://{host}/hook"


def test_what_was_deleted_is_gone(bookeo: ServedAccount) -> None:
    location = created(bookeo)
    response = bookeo.client.delete(location)
    assert (response.status_code, response.content) == (204, b"")
    assert listed(bookeo) == []
    assert [bookeo.client.request(method, location).status_code for method in ("GET", "DELETE")] == [404, 404]


@pytest.mark.parametrize("name", ["WH99999999", "nonsense", "WH1"])
def test_an_unknown_one_is_not_found(bookeo: ServedAccount, name: str) -> None:
    assert bookeo.client.get(f"webhooks/{name}").json()["httpStatus"] == 404


def test_keys_in_the_query_are_in_no_location(bookeo: ServedAccount) -> None:
    keys = bookeo.api.settings()
    params = {"secretKey": keys["secret_key"], "apiKey": keys["api_key"]}
    response = httpx.post(f"{bookeo.client.base_url}webhooks", params=params, json=FIELDS)
    assert response.status_code == 201
    assert "?" not in response.headers["Location"]


def test_a_blocked_one_says_why_and_gets_nothing_until_it_is_made_again(bookeo: ServedAccount) -> None:
    location, change = created(bookeo), cached_history("bookeo", 60).first(ChangeKind.CREATED)
    subscriptions_of(bookeo.api).disable(URL, "Connection refused")
    blocked = bookeo.get(location)
    assert (blocked["blockedReason"], set(blocked) - set(FIELDS)) == (
        "Connection refused",
        {"id", "blockedTime", "blockedReason"},
    )
    assert listed(bookeo) == [blocked]
    assert recipient_urls(bookeo.api, change) == []
    created(bookeo)
    assert "blockedTime" not in listed(bookeo)[0]
    assert recipient_urls(bookeo.api, change) == [URL]


def test_somebody_with_the_same_key_takes_our_webhook(bookeo: ServedAccount) -> None:
    created(bookeo)
    subscriptions_of(bookeo.api).add(
        "https://staging.example.org/hook?domain=bookings&type=created", ["bookings.created"]
    )
    change = cached_history("bookeo", 60).first(ChangeKind.CREATED)
    assert recipient_urls(bookeo.api, change) == [
        "https://staging.example.org/hook?domain=bookings&type=created"
    ]


def test_each_gets_its_own_type(bookeo: ServedAccount) -> None:
    for kind in ("created", "deleted"):
        created(bookeo, type=kind, url=f"{BASE}?domain=bookings&type={kind}")
    history = cached_history("bookeo", 200)
    assert recipient_urls(bookeo.api, history.first(ChangeKind.CREATED)) == [
        f"{BASE}?domain=bookings&type=created"
    ]
    assert recipient_urls(bookeo.api, history.first(ChangeKind.CANCELLED)) == [
        f"{BASE}?domain=bookings&type=deleted"
    ]
    assert recipient_urls(bookeo.api, history.first(ChangeKind.MOVED)) == []


def test_a_webhook_is_signed_with_the_applications_key_over_the_url_that_was_registered(
    bookeo: ServedAccount,
) -> None:
    change = cached_history("bookeo", 60).first(ChangeKind.CREATED)
    url = f"{BASE}?type=created&domain=bookings&version=2"
    created(bookeo, url=url)
    assert recipient_urls(bookeo.api, change) == [url]
    assert parsed_event_type(bookeo.api, change, PUBLIC, SECRET) == "bookeo.bookings.created"
    with pytest.raises(VerificationError):
        parsed_event_type(bookeo.api, change, "https://other.example.org", SECRET)


def test_a_url_without_a_query_is_signed_as_it_is(bookeo: ServedAccount) -> None:
    created(bookeo, url=BASE)
    change = cached_history("bookeo", 60).first(ChangeKind.CREATED)
    [(account, webhook)] = bookeo.api.deliveries(change)
    at = change.meeting.changed_at
    plain = SIMULATED["bookeo"].headers(webhook, at)
    assert recipient_urls(bookeo.api, change) == [BASE]
    assert account.headers(webhook, at) == plain != account.headers(account.webhook(change), at)
