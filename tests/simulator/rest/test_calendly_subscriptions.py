"""Calendly's simulated webhook subscriptions: its rules for making one, and who gets which webhook."""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from ingest.errors import VerificationError
from ingest.simulator.calendly.api import CalendlyRest
from ingest.simulator.calendly.webhooks import API, user_uri
from ingest.simulator.world import Kind
from tests.simulator.rest.asking import Asking
from tests.simulator.rest.subscribing import a_change, event_read, kept_by, reached, story, subscribing
from tests.simulator.story import DIALECTS

OWN = f"{API}/organizations/OR00000000000001"
OTHER = f"{API}/organizations/OR00000000000002"
GROUP = f"{API}/groups/GR00000000000001"
OWNER = f"{API}/users/US00000000000001"
PUBLIC = "https://hooks.example.com"
URL = f"{PUBLIC}/webhooks/calendly/calendly"
BOOKINGS = ["invitee.created", "invitee.canceled"]
KEY = "a-key-of-our-own"
ASKED: dict[str, Any] = {
    "url": URL,
    "events": BOOKINGS,
    "organization": OWN,
    "scope": "organization",
    "signing_key": KEY,
}


@pytest.fixture
def calendly() -> Iterator[Asking]:
    with subscribing("calendly") as found:
        yield found


def create(found: Asking, **fields: Any) -> httpx.Response:
    """None leaves a field out."""
    asked = {name: value for name, value in (ASKED | fields).items() if value is not None}
    return found.client.post("webhook_subscriptions", json=asked)


def created(found: Asking, **fields: Any) -> dict[str, Any]:
    response = create(found, **fields)
    assert response.status_code == 201, response.text
    resource: dict[str, Any] = response.json()["resource"]
    return resource


def listed(found: Asking, **params: Any) -> list[str]:
    """The URLs."""
    page = found.get("webhook_subscriptions", organization=OWN, **{"scope": "organization", **params})
    return [subscription["callback_url"] for subscription in page["collection"]]


def path_of(resource: dict[str, Any]) -> str:
    return "webhook_subscriptions/" + str(resource["uri"].rpartition("/")[2])


def test_what_is_made_is_told_but_for_its_key(calendly: Asking) -> None:
    response = create(calendly)
    resource = response.json()["resource"]
    assert (response.status_code, response.headers["Location"]) == (201, resource["uri"])
    assert {
        name: resource[name]
        for name in ("callback_url", "events", "scope", "organization", "user", "group", "state")
    } == {
        "callback_url": URL,
        "events": BOOKINGS,
        "scope": "organization",
        "organization": OWN,
        "user": None,
        "group": None,
        "state": "active",
    }
    assert set(resource) >= {"uri", "created_at", "updated_at", "retry_started_at", "creator"}
    assert calendly.get(path_of(resource)) == {"resource": resource}
    assert calendly.get("webhook_subscriptions", organization=OWN, scope="organization")["collection"] == [
        resource
    ]
    assert KEY not in response.text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": None}, {"url"}),
        ({"url": "hooks.example.com"}, {"url"}),
        ({"url": "ftp://hooks.example.com"}, {"url"}),
        ({"url": "https://[hooks"}, {"url"}),
        ({"url": 1}, {"url"}),
        ({"events": None}, {"events"}),
        ({"events": []}, {"events"}),
        ({"events": "invitee.created"}, {"events"}),
        ({"events": ["invitee.moved"]}, {"events"}),
        ({"events": [["invitee.created"]]}, {"events"}),
        ({"organization": None}, {"organization"}),
        ({"organization": "OR00000000000001"}, {"organization"}),
        ({"scope": None}, {"scope"}),
        ({"scope": "everybody"}, {"scope"}),
        ({"scope": ["user"]}, {"scope"}),
        ({"scope": "user"}, {"user"}),
        ({"scope": "group"}, {"group"}),
        ({"scope": "user", "user": 1}, {"user"}),
        ({"signing_key": ""}, {"signing_key"}),
        ({"callback_url": URL}, {"callback_url"}),
        ({"url": None, "organization": None, "secret": "?"}, {"url", "organization", "secret"}),
    ],
)
def test_every_field_that_is_wrong_is_named(
    calendly: Asking, fields: dict[str, Any], named: set[str]
) -> None:
    response = create(calendly, **fields)
    assert (response.status_code, response.json()["title"]) == (400, "Invalid Argument")
    assert {detail["parameter"] for detail in response.json()["details"]} == named
    assert (listed(calendly), kept_by(calendly.rest).created) == ([], 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(calendly: Asking, body: bytes) -> None:
    response = calendly.client.post(
        "webhook_subscriptions", content=body, headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["title"]) == (400, "Invalid Argument")


def test_only_an_organization_hears_of_routing_forms(calendly: Asking) -> None:
    events = ["routing_form_submission.created"]
    response = create(calendly, events=events, scope="user", user=OWNER)
    assert [detail["parameter"] for detail in response.json()["details"]] == ["events"]
    assert created(calendly, events=events)["events"] == events


def test_only_a_user_hears_of_meeting_recaps(calendly: Asking) -> None:
    events = ["invitee.created", "meeting_recap.created"]
    response = create(calendly, events=events)
    assert [detail["parameter"] for detail in response.json()["details"]] == ["events"]
    assert created(calendly, events=events, scope="user", user=OWNER)["events"] == events


def test_another_organization_is_not_the_tokens(calendly: Asking) -> None:
    response = create(calendly, organization=OTHER)
    assert (response.status_code, response.json()["title"]) == (403, "Permission Denied")


def test_a_url_is_taken_once_also_by_a_disabled_one(calendly: Asking) -> None:
    first = created(calendly)
    again = [create(calendly, scope="user", user=OWNER)]
    kept_by(calendly.rest).disable(URL)
    again.append(create(calendly))
    assert [(response.status_code, response.json()["title"]) for response in again] == [
        (409, "Already Exists")
    ] * 2
    assert again[0].json()["message"] == "Hook with this url already exists"
    assert calendly.client.delete(path_of(first)).status_code == 204
    assert created(calendly)["uri"] != first["uri"]
    assert kept_by(calendly.rest).created == 2


def test_the_same_url_with_a_query_is_another(calendly: Asking) -> None:
    created(calendly)
    created(calendly, url=f"{URL}?2")
    assert listed(calendly) == [URL, f"{URL}?2"]


def test_what_was_deleted_is_gone(calendly: Asking) -> None:
    path = path_of(created(calendly))
    response = calendly.client.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    assert listed(calendly) == []
    assert [calendly.client.request(method, path).status_code for method in ("GET", "DELETE")] == [404, 404]


@pytest.mark.parametrize("name", ["WS99999999999999", "nonsense", "WS1"])
def test_an_unknown_one_is_not_found(calendly: Asking, name: str) -> None:
    response = calendly.client.delete(f"webhook_subscriptions/{name}")
    assert (response.status_code, response.json()["title"]) == (404, "Resource Not Found")


def test_none_can_be_changed(calendly: Asking) -> None:
    path = path_of(created(calendly))
    assert [
        calendly.client.request(method, path, json=ASKED).status_code for method in ("PUT", "PATCH", "POST")
    ] == [404] * 3


def test_a_list_is_of_one_scope(calendly: Asking) -> None:
    created(calendly)
    created(calendly, url=f"{URL}?owner", scope="user", user=OWNER)
    created(calendly, url=f"{URL}?other", scope="user", user=f"{API}/users/US00000000000002")
    created(calendly, url=f"{URL}?group", scope="group", group=GROUP)
    assert listed(calendly) == [URL]
    assert listed(calendly, scope="user", user=OWNER) == [f"{URL}?owner"]
    assert listed(calendly, scope="group", group=GROUP) == [f"{URL}?group"]


def test_who_is_no_admin_has_only_their_own(calendly: Asking) -> None:
    assert isinstance(calendly.rest, CalendlyRest)
    calendly.rest.subscriptions.is_admin = False
    refused = [create(calendly), create(calendly, scope="group", group=GROUP)]
    refused.append(
        calendly.client.get("webhook_subscriptions", params={"organization": OWN, "scope": "organization"})
    )
    assert [(response.status_code, response.json()["title"]) for response in refused] == [
        (403, "Permission Denied")
    ] * 3
    created(calendly, scope="user", user=OWNER)
    assert listed(calendly, scope="user", user=OWNER) == [URL]


@pytest.mark.parametrize(
    "params", [{}, {"organization": OWN}, {"scope": "organization"}, {"organization": OWN, "scope": "user"}]
)
def test_a_list_must_be_told_whose(calendly: Asking, params: dict[str, str]) -> None:
    assert calendly.client.get("webhook_subscriptions", params=params).status_code == 400


@pytest.mark.parametrize("sort", ["created_at:asc", "created_at:desc"])
def test_a_list_has_pages_in_either_order(calendly: Asking, sort: str) -> None:
    urls = [created(calendly, url=f"{URL}?{number}")["callback_url"] for number in range(5)]
    params: dict[str, Any] = {"organization": OWN, "scope": "organization", "count": 2, "sort": sort}
    found = []
    while params.get("page_token", "first"):
        page = calendly.get("webhook_subscriptions", **params)
        found += [subscription["callback_url"] for subscription in page["collection"]]
        params["page_token"] = page["pagination"]["next_page_token"]
    assert found == (urls if sort.endswith("asc") else urls[::-1])


def test_a_disabled_one_says_so_and_gets_nothing(calendly: Asking) -> None:
    path, change = path_of(created(calendly)), a_change(story("calendly", 60), Kind.CREATED)
    assert reached(calendly.rest, change) == [URL]
    kept_by(calendly.rest).disable(URL)
    told = calendly.get(path)["resource"]
    assert told["state"] == "disabled"
    assert told["retry_started_at"] < told["updated_at"]
    assert reached(calendly.rest, change) == []
    with pytest.raises(LookupError):
        kept_by(calendly.rest).disable(URL)


def test_each_gets_what_it_asked_for(calendly: Asking) -> None:
    created(calendly, url=f"{URL}?created", events=["invitee.created"])
    created(calendly, url=f"{URL}?canceled", events=["invitee.canceled"])
    kept_by(calendly.rest).add("https://other.example.org", BOOKINGS)
    told = story("calendly", 200)
    assert reached(calendly.rest, a_change(told, Kind.CREATED)) == [
        f"{URL}?created",
        "https://other.example.org",
    ]
    assert reached(calendly.rest, a_change(told, Kind.CANCELLED)) == [
        f"{URL}?canceled",
        "https://other.example.org",
    ]
    assert reached(calendly.rest, a_change(told, Kind.NO_SHOW)) == []
    assert [recipient.url for recipient in calendly.rest.recipients("invitee.created")] == [
        f"{URL}?created",
        "https://other.example.org",
    ]


def test_a_users_is_of_their_meetings_alone(calendly: Asking) -> None:
    told = story("calendly", 200)
    host = a_change(told, Kind.CREATED).meeting.host
    created(calendly, scope="user", user=user_uri(host))
    made = [change for change in told.changes if change.kind is Kind.CREATED]
    heard = [change.meeting.host for change in made if reached(calendly.rest, change)]
    assert set(heard) == {host}
    assert len(heard) == [change.meeting.host for change in made].count(host) < len(made)


def test_a_webhook_is_signed_with_the_key_of_its_subscription(calendly: Asking) -> None:
    change = a_change(story("calendly", 60), Kind.CREATED)
    created(calendly)
    assert event_read(calendly.rest, change, PUBLIC, KEY) == "calendly.invitee.created"
    with pytest.raises(VerificationError):
        event_read(calendly.rest, change, PUBLIC, DIALECTS["calendly"].secret)


def test_without_a_key_nobody_knows_what_it_is_signed_with(calendly: Asking) -> None:
    created(calendly, signing_key=None)
    created(calendly, signing_key=None, url=f"{URL}?2")
    first, second = calendly.rest.recipients("invitee.created")
    assert first.secret != second.secret
    assert DIALECTS["calendly"].secret not in {first.secret, second.secret}
    assert (
        first.secret
        not in orjson.dumps(
            calendly.get("webhook_subscriptions", organization=OWN, scope="organization")
        ).decode()
    )


def test_an_apps_key_is_one_whatever_it_asks_for(calendly: Asking) -> None:
    assert isinstance(calendly.rest, CalendlyRest)
    grant = {"grant_type": "refresh_token", **calendly.rest.oauth_settings()}
    token = calendly.client.post("oauth/token", data=grant).json()["access_token"]
    calendly.client.headers["Authorization"] = f"Bearer {token}"
    created(calendly)
    created(calendly, signing_key=None, url=f"{URL}?2")
    assert {recipient.secret for recipient in calendly.rest.recipients("invitee.created")} == {
        DIALECTS["calendly"].secret
    }
