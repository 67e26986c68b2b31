"""OnceHub's simulated webhook subscriptions: its rules for making one, and who gets which webhook."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ingest.errors import VerificationError
from ingest.simulator.oncehub.api import OncehubApi
from ingest.simulator.world import ChangeKind
from tests.ingest.simulator.rest.served import (
    ServedAccount,
    cached_history,
    parsed_event_type,
    recipient_urls,
    served_without_subscriptions,
    subscriptions_of,
)

PUBLIC = "https://hooks.example.com"
URL = f"{PUBLIC}/webhooks/oncehub/oncehub"
EVENTS = ["booking.scheduled", "booking.canceled"]
FIELDS: dict[str, Any] = {"name": "Ours", "url": URL, "events": EVENTS}


@pytest.fixture
def oncehub() -> Iterator[ServedAccount]:
    with served_without_subscriptions("oncehub") as account:
        yield account


def create(account: ServedAccount, **fields: Any) -> httpx.Response:
    """Create a subscription; a field that is None is left out."""
    return account.client.post(
        "webhooks", json={name: value for name, value in (FIELDS | fields).items() if value is not None}
    )


def created(account: ServedAccount, **fields: Any) -> dict[str, Any]:
    response = create(account, **fields)
    assert response.status_code == 200, response.text
    webhook: dict[str, Any] = response.json()
    return webhook


def names(account: ServedAccount, **params: Any) -> list[str]:
    return [webhook["name"] for webhook in account.get("webhooks", **params)["data"]]


def test_its_secret_is_told_once(oncehub: ServedAccount) -> None:
    webhook = created(oncehub)
    assert webhook | FIELDS | {"object": "webhook", "api_version": "v2"} == webhook
    without = {name: value for name, value in webhook.items() if name != "secret"}
    assert len(without) == len(webhook) - 1
    assert oncehub.get(f"webhooks/{webhook['id']}") == without
    assert oncehub.get("webhooks") == {"object": "list", "data": [without], "has_more": False}


def test_it_may_be_told_always(oncehub: ServedAccount) -> None:
    assert isinstance(oncehub.api, OncehubApi)
    webhook = created(oncehub)
    oncehub.api.subscriptions.shows_secrets = True
    assert oncehub.get(f"webhooks/{webhook['id']}") == webhook == oncehub.get("webhooks")["data"][0]


def test_every_webhook_has_a_secret_of_its_own(oncehub: ServedAccount) -> None:
    assert created(oncehub)["secret"] != created(oncehub, name="Another")["secret"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": None}, "name"),
        ({"name": "?!"}, "name"),
        ({"name": 7}, "name"),
        ({"url": None}, "url"),
        ({"url": "http://hooks.example.com"}, "url"),
        ({"url": "nowhere"}, "url"),
        ({"events": None}, "events"),
        ({"events": []}, "events"),
        ({"events": ["booking.created"]}, "events"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_what_cannot_be_meant_is_refused(oncehub: ServedAccount, fields: dict[str, Any], param: str) -> None:
    response = create(oncehub, **fields)
    assert (response.status_code, response.json()["type"], response.json()["param"]) == (
        400,
        "invalid_request_error",
        param,
    )
    assert (names(oncehub), subscriptions_of(oncehub.api).created) == ([], 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(oncehub: ServedAccount, body: bytes) -> None:
    assert oncehub.client.post("webhooks", content=body).json()["type"] == "invalid_request_error"


def test_names_are_taken_once_and_urls_are_not(oncehub: ServedAccount) -> None:
    first = created(oncehub)
    response = create(oncehub, url=f"{URL}?2")
    assert (response.status_code, response.json()) == (
        409,
        {
            "type": "invalid_request_error",
            "message": "A webhook subscription with this name already exists: 'Ours'",
            "param": "name",
        },
    )
    created(oncehub, name="Another")
    oncehub.client.delete(f"webhooks/{first['id']}")
    assert created(oncehub)["id"] != first["id"]
    assert subscriptions_of(oncehub.api).created == 3


def test_the_newest_comes_first_and_pages_go_by_ids(oncehub: ServedAccount) -> None:
    ids = [created(oncehub, name=f"Number {number}")["id"] for number in range(4)]
    first = oncehub.get("webhooks", limit=3)
    assert ([webhook["id"] for webhook in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    assert names(oncehub, after=ids[1]) == ["Number 0"]
    assert names(oncehub, before=ids[2]) == ["Number 3"]


def test_what_was_deleted_is_in_no_list_and_by_its_id_only_said_to_be_deleted(oncehub: ServedAccount) -> None:
    name = created(oncehub)["id"]
    response = oncehub.client.delete(f"webhooks/{name}")
    assert (response.status_code, response.json()) == (200, {"id": name, "deleted": True})
    assert names(oncehub) == []
    assert oncehub.get(f"webhooks/{name}") == {"id": name, "object": "webhook", "deleted": True}
    again = oncehub.client.delete(f"webhooks/{name}")
    assert (again.status_code, again.json()["param"]) == (404, "id")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["WHK-99999999", "WHK-00000000", "nonsense"])
def test_an_unknown_one_is_not_found(oncehub: ServedAccount, method: str, name: str) -> None:
    response = oncehub.client.request(method, f"webhooks/{name}")
    assert (response.status_code, response.json()["param"]) == (404, "id")


def test_none_can_be_changed(oncehub: ServedAccount) -> None:
    path = f"webhooks/{created(oncehub)['id']}"
    assert [
        oncehub.client.request(method, path, json=FIELDS).status_code for method in ("PUT", "PATCH", "POST")
    ] == [404] * 3


def test_a_disabled_one_looks_as_before_and_gets_nothing(oncehub: ServedAccount) -> None:
    path, change = (
        f"webhooks/{created(oncehub)['id']}",
        cached_history("oncehub", 60).first(ChangeKind.CREATED),
    )
    before = oncehub.get(path), oncehub.get("webhooks")
    assert recipient_urls(oncehub.api, change) == [URL]
    subscriptions_of(oncehub.api).disable(URL)
    assert (oncehub.get(path), oncehub.get("webhooks")) == before
    assert recipient_urls(oncehub.api, change) == []


def test_each_gets_what_it_asked_for_by_event_or_by_family(oncehub: ServedAccount) -> None:
    created(oncehub, events=["booking.scheduled", "booking"])
    created(oncehub, name="Ends", url=f"{URL}?ends", events=["booking.canceled"])
    created(oncehub, name="Talk", url=f"{URL}?talk", events=["conversation"])
    subscriptions_of(oncehub.api).add("https://other.example.org", ["booking.scheduled"])
    history = cached_history("oncehub", 200)
    assert recipient_urls(oncehub.api, history.first(ChangeKind.CREATED)) == [
        URL,
        "https://other.example.org",
    ]
    assert recipient_urls(oncehub.api, history.first(ChangeKind.CANCELLED)) == [URL, f"{URL}?ends"]
    assert len(oncehub.get("webhooks")["data"]) == 4


def test_a_webhook_is_signed_with_the_secret_of_its_subscription(oncehub: ServedAccount) -> None:
    change = cached_history("oncehub", 60).first(ChangeKind.CREATED)
    secret = created(oncehub)["secret"]
    assert parsed_event_type(oncehub.api, change, PUBLIC, secret) == "oncehub.booking.scheduled"
    with pytest.raises(VerificationError):
        parsed_event_type(oncehub.api, change, PUBLIC, "another")
