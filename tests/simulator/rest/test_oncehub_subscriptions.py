"""OnceHub's simulated webhook subscriptions: its rules for making one, and who gets which webhook."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ingest.errors import VerificationError
from ingest.simulator.oncehub.api import OncehubRest
from ingest.simulator.world import Kind
from tests.simulator.rest.asking import Asking
from tests.simulator.rest.subscribing import a_change, event_read, kept_by, reached, story, subscribing

PUBLIC = "https://hooks.example.com"
URL = f"{PUBLIC}/webhooks/oncehub/oncehub"
EVENTS = ["booking.scheduled", "booking.canceled"]
ASKED: dict[str, Any] = {"name": "Ours", "url": URL, "events": EVENTS}


@pytest.fixture
def oncehub() -> Iterator[Asking]:
    with subscribing("oncehub") as found:
        yield found


def create(found: Asking, **fields: Any) -> httpx.Response:
    """None leaves a field out."""
    return found.client.post(
        "webhooks", json={name: value for name, value in (ASKED | fields).items() if value is not None}
    )


def created(found: Asking, **fields: Any) -> dict[str, Any]:
    response = create(found, **fields)
    assert response.status_code == 200, response.text
    webhook: dict[str, Any] = response.json()
    return webhook


def names(found: Asking, **params: Any) -> list[str]:
    return [webhook["name"] for webhook in found.get("webhooks", **params)["data"]]


def test_its_secret_is_told_once(oncehub: Asking) -> None:
    webhook = created(oncehub)
    assert webhook | ASKED | {"object": "webhook", "api_version": "v2"} == webhook
    without = {name: value for name, value in webhook.items() if name != "secret"}
    assert len(without) == len(webhook) - 1
    assert oncehub.get(f"webhooks/{webhook['id']}") == without
    assert oncehub.get("webhooks") == {"object": "list", "data": [without], "has_more": False}


def test_it_may_be_told_always(oncehub: Asking) -> None:
    assert isinstance(oncehub.rest, OncehubRest)
    webhook = created(oncehub)
    oncehub.rest.subscriptions.tells_secrets = True
    assert oncehub.get(f"webhooks/{webhook['id']}") == webhook == oncehub.get("webhooks")["data"][0]


def test_every_webhook_has_a_secret_of_its_own(oncehub: Asking) -> None:
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
def test_what_cannot_be_meant_is_refused(oncehub: Asking, fields: dict[str, Any], param: str) -> None:
    response = create(oncehub, **fields)
    assert (response.status_code, response.json()["type"], response.json()["param"]) == (
        400,
        "invalid_request_error",
        param,
    )
    assert (names(oncehub), kept_by(oncehub.rest).created) == ([], 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(oncehub: Asking, body: bytes) -> None:
    assert oncehub.client.post("webhooks", content=body).json()["type"] == "invalid_request_error"


def test_names_are_taken_once_and_urls_are_not(oncehub: Asking) -> None:
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
    assert kept_by(oncehub.rest).created == 3


def test_the_newest_comes_first_and_pages_go_by_ids(oncehub: Asking) -> None:
    ids = [created(oncehub, name=f"Number {number}")["id"] for number in range(4)]
    first = oncehub.get("webhooks", limit=3)
    assert ([webhook["id"] for webhook in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    assert names(oncehub, after=ids[1]) == ["Number 0"]
    assert names(oncehub, before=ids[2]) == ["Number 3"]


def test_what_was_deleted_is_in_no_list_and_by_its_id_only_said_to_be_deleted(oncehub: Asking) -> None:
    name = created(oncehub)["id"]
    response = oncehub.client.delete(f"webhooks/{name}")
    assert (response.status_code, response.json()) == (200, {"id": name, "deleted": True})
    assert names(oncehub) == []
    assert oncehub.get(f"webhooks/{name}") == {"id": name, "object": "webhook", "deleted": True}
    again = oncehub.client.delete(f"webhooks/{name}")
    assert (again.status_code, again.json()["param"]) == (404, "id")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["WHK-99999999", "WHK-00000000", "nonsense"])
def test_an_unknown_one_is_not_found(oncehub: Asking, method: str, name: str) -> None:
    response = oncehub.client.request(method, f"webhooks/{name}")
    assert (response.status_code, response.json()["param"]) == (404, "id")


def test_none_can_be_changed(oncehub: Asking) -> None:
    path = f"webhooks/{created(oncehub)['id']}"
    assert [
        oncehub.client.request(method, path, json=ASKED).status_code for method in ("PUT", "PATCH", "POST")
    ] == [404] * 3


def test_a_disabled_one_looks_as_before_and_gets_nothing(oncehub: Asking) -> None:
    path, change = f"webhooks/{created(oncehub)['id']}", a_change(story("oncehub", 60), Kind.CREATED)
    before = oncehub.get(path), oncehub.get("webhooks")
    assert reached(oncehub.rest, change) == [URL]
    kept_by(oncehub.rest).disable(URL)
    assert (oncehub.get(path), oncehub.get("webhooks")) == before
    assert reached(oncehub.rest, change) == []


def test_each_gets_what_it_asked_for_by_event_or_by_family(oncehub: Asking) -> None:
    created(oncehub, events=["booking.scheduled", "booking"])
    created(oncehub, name="Ends", url=f"{URL}?ends", events=["booking.canceled"])
    created(oncehub, name="Talk", url=f"{URL}?talk", events=["conversation"])
    kept_by(oncehub.rest).add("https://other.example.org", ["booking.scheduled"])
    told = story("oncehub", 200)
    assert reached(oncehub.rest, a_change(told, Kind.CREATED)) == [URL, "https://other.example.org"]
    assert reached(oncehub.rest, a_change(told, Kind.CANCELLED)) == [URL, f"{URL}?ends"]
    assert len(oncehub.get("webhooks")["data"]) == 4


def test_a_webhook_is_signed_with_the_secret_of_its_subscription(oncehub: Asking) -> None:
    change = a_change(story("oncehub", 60), Kind.CREATED)
    secret = created(oncehub)["secret"]
    assert event_read(oncehub.rest, change, PUBLIC, secret) == "oncehub.booking.scheduled"
    with pytest.raises(VerificationError):
        event_read(oncehub.rest, change, PUBLIC, "another")
