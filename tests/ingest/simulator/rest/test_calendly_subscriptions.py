"""Calendly's simulated webhook subscriptions: its rules for making one, and who gets which webhook."""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from ingest.errors import VerificationError
from ingest.simulator.calendly.api import CalendlyApi
from ingest.simulator.calendly.records import API, user_uri
from ingest.simulator.world import ChangeKind
from tests.ingest.simulator.rest.served import (
    ServedAccount,
    cached_history,
    parsed_event_type,
    recipient_urls,
    served_without_subscriptions,
    subscriptions_of,
)
from tests.support.accounts import SIMULATED

OWN = f"{API}/organizations/OR00000000000001"
OTHER = f"{API}/organizations/OR00000000000002"
GROUP = f"{API}/groups/GR00000000000001"
OWNER = f"{API}/users/US00000000000001"
PUBLIC = "https://hooks.example.com"
URL = f"{PUBLIC}/webhooks/calendly/calendly"
BOOKINGS = ["invitee.created", "invitee.canceled"]
KEY = "a-key-of-our-own"
FIELDS: dict[str, Any] = {
    "url": URL,
    "events": BOOKINGS,
    "organization": OWN,
    "scope": "organization",
    "signing_key": KEY,
}


@pytest.fixture
def calendly() -> Iterator[ServedAccount]:
    with served_without_subscriptions("calendly") as account:
        yield account


def create(account: ServedAccount, **fields: Any) -> httpx.Response:
    """Create a subscription; a field that is None is left out."""
    fields = {name: value for name, value in (FIELDS | fields).items() if value is not None}
    return account.client.post("webhook_subscriptions", json=fields)


def created(account: ServedAccount, **fields: Any) -> dict[str, Any]:
    response = create(account, **fields)
    assert response.status_code == 201, response.text
    resource: dict[str, Any] = response.json()["resource"]
    return resource


def listed(account: ServedAccount, **params: Any) -> list[str]:
    """Return the URLs of the subscriptions."""
    page = account.get("webhook_subscriptions", organization=OWN, **{"scope": "organization", **params})
    return [subscription["callback_url"] for subscription in page["collection"]]


def path_of(resource: dict[str, Any]) -> str:
    return "webhook_subscriptions/" + str(resource["uri"].rpartition("/")[2])


def test_what_is_made_is_told_but_for_its_key(calendly: ServedAccount) -> None:
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
    ("fields", "names"),
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
    calendly: ServedAccount, fields: dict[str, Any], names: set[str]
) -> None:
    response = create(calendly, **fields)
    assert (response.status_code, response.json()["title"]) == (400, "Invalid Argument")
    assert {detail["parameter"] for detail in response.json()["details"]} == names
    assert (listed(calendly), subscriptions_of(calendly.api).created) == ([], 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(calendly: ServedAccount, body: bytes) -> None:
    response = calendly.client.post(
        "webhook_subscriptions", content=body, headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["title"]) == (400, "Invalid Argument")


def test_only_an_organization_hears_of_routing_forms(calendly: ServedAccount) -> None:
    events = ["routing_form_submission.created"]
    response = create(calendly, events=events, scope="user", user=OWNER)
    assert [detail["parameter"] for detail in response.json()["details"]] == ["events"]
    assert created(calendly, events=events)["events"] == events


def test_only_a_user_hears_of_meeting_recaps(calendly: ServedAccount) -> None:
    events = ["invitee.created", "meeting_recap.created"]
    response = create(calendly, events=events)
    assert [detail["parameter"] for detail in response.json()["details"]] == ["events"]
    assert created(calendly, events=events, scope="user", user=OWNER)["events"] == events


def test_another_organization_is_not_the_tokens(calendly: ServedAccount) -> None:
    response = create(calendly, organization=OTHER)
    assert (response.status_code, response.json()["title"]) == (403, "Permission Denied")


def test_a_url_is_taken_once_also_by_a_disabled_one(calendly: ServedAccount) -> None:
    first = created(calendly)
    again = [create(calendly, scope="user", user=OWNER)]
    subscriptions_of(calendly.api).disable(URL)
    again.append(create(calendly))
    assert [(response.status_code, response.json()["title"]) for response in again] == [
        (409, "Already Exists")
    ] * 2
    assert again[0].json()["message"] == "Hook with this url already exists"
    assert calendly.client.delete(path_of(first)).status_code == 204
    assert created(calendly)["uri"] != first["uri"]
    assert subscriptions_of(calendly.api).created == 2


def test_the_same_url_with_a_query_is_another(calendly: ServedAccount) -> None:
    created(calendly)
    created(calendly, url=f"{URL}?2")
    assert listed(calendly) == [URL, f"{URL}?2"]


def test_what_was_deleted_is_gone(calendly: ServedAccount) -> None:
    path = path_of(created(calendly))
    response = calendly.client.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    assert listed(calendly) == []
    assert [calendly.client.request(method, path).status_code for method in ("GET", "DELETE")] == [404, 404]


@pytest.mark.parametrize("name", ["WS99999999999999", "nonsense", "WS1"])
def test_an_unknown_one_is_not_found(calendly: ServedAccount, name: str) -> None:
    response = calendly.client.delete(f"webhook_subscriptions/{name}")
    assert (response.status_code, response.json()["title"]) == (404, "Resource Not Found")


def test_none_can_be_changed(calendly: ServedAccount) -> None:
    path = path_of(created(calendly))
    assert [
        calendly.client.request(method, path, json=FIELDS).status_code for method in ("PUT", "PATCH", "POST")
    ] == [404] * 3


def test_a_list_is_of_one_scope(calendly: ServedAccount) -> None:
    created(calendly)
    created(calendly, url=f"{URL}?owner", scope="user", user=OWNER)
    created(calendly, url=f"{URL}?other", scope="user", user=f"{API}/users/US00000000000002")
    created(calendly, url=f"{URL}?group", scope="group", group=GROUP)
    assert listed(calendly) == [URL]
    assert listed(calendly, scope="user", user=OWNER) == [f"{URL}?owner"]
    assert listed(calendly, scope="group", group=GROUP) == [f"{URL}?group"]


def test_who_is_no_admin_has_only_their_own(calendly: ServedAccount) -> None:
    assert isinstance(calendly.api, CalendlyApi)
    calendly.api.subscriptions.is_admin = False
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
def test_a_list_must_be_told_whose(calendly: ServedAccount, params: dict[str, str]) -> None:
    assert calendly.client.get("webhook_subscriptions", params=params).status_code == 400


@pytest.mark.parametrize("sort", ["created_at:asc", "created_at:desc"])
def test_a_list_has_pages_in_either_order(calendly: ServedAccount, sort: str) -> None:
    urls = [created(calendly, url=f"{URL}?{number}")["callback_url"] for number in range(5)]
    params: dict[str, Any] = {"organization": OWN, "scope": "organization", "count": 2, "sort": sort}
    listed_urls = []
    while params.get("page_token", "first"):
        page = calendly.get("webhook_subscriptions", **params)
        listed_urls += [subscription["callback_url"] for subscription in page["collection"]]
        params["page_token"] = page["pagination"]["next_page_token"]
    assert listed_urls == (urls if sort.endswith("asc") else urls[::-1])


def test_a_disabled_one_says_so_and_gets_nothing(calendly: ServedAccount) -> None:
    path, change = path_of(created(calendly)), cached_history("calendly", 60).first(ChangeKind.CREATED)
    assert recipient_urls(calendly.api, change) == [URL]
    subscriptions_of(calendly.api).disable(URL)
    resource = calendly.get(path)["resource"]
    assert resource["state"] == "disabled"
    assert resource["retry_started_at"] < resource["updated_at"]
    assert recipient_urls(calendly.api, change) == []
    with pytest.raises(LookupError):
        subscriptions_of(calendly.api).disable(URL)


def test_each_gets_what_it_asked_for(calendly: ServedAccount) -> None:
    created(calendly, url=f"{URL}?created", events=["invitee.created"])
    created(calendly, url=f"{URL}?canceled", events=["invitee.canceled"])
    subscriptions_of(calendly.api).add("https://other.example.org", BOOKINGS)
    history = cached_history("calendly", 200)
    assert recipient_urls(calendly.api, history.first(ChangeKind.CREATED)) == [
        f"{URL}?created",
        "https://other.example.org",
    ]
    assert recipient_urls(calendly.api, history.first(ChangeKind.CANCELLED)) == [
        f"{URL}?canceled",
        "https://other.example.org",
    ]
    assert recipient_urls(calendly.api, history.first(ChangeKind.NO_SHOW)) == []
    assert [recipient.url for recipient in calendly.api.recipients("invitee.created")] == [
        f"{URL}?created",
        "https://other.example.org",
    ]


def test_a_users_is_of_their_meetings_alone(calendly: ServedAccount) -> None:
    history = cached_history("calendly", 200)
    host = history.first(ChangeKind.CREATED).meeting.host
    created(calendly, scope="user", user=user_uri(host))
    created_changes = [change for change in history.changes if change.kind is ChangeKind.CREATED]
    hosts = [change.meeting.host for change in created_changes if recipient_urls(calendly.api, change)]
    assert set(hosts) == {host}
    assert (
        len(hosts) == [change.meeting.host for change in created_changes].count(host) < len(created_changes)
    )


def test_a_webhook_is_signed_with_the_key_of_its_subscription(calendly: ServedAccount) -> None:
    change = cached_history("calendly", 60).first(ChangeKind.CREATED)
    created(calendly)
    assert parsed_event_type(calendly.api, change, PUBLIC, KEY) == "calendly.invitee.created"
    with pytest.raises(VerificationError):
        parsed_event_type(calendly.api, change, PUBLIC, SIMULATED["calendly"].secret)


def test_without_a_key_nobody_knows_what_it_is_signed_with(calendly: ServedAccount) -> None:
    created(calendly, signing_key=None)
    created(calendly, signing_key=None, url=f"{URL}?2")
    first, second = calendly.api.recipients("invitee.created")
    assert first.secret != second.secret
    assert SIMULATED["calendly"].secret not in {first.secret, second.secret}
    assert (
        first.secret
        not in orjson.dumps(
            calendly.get("webhook_subscriptions", organization=OWN, scope="organization")
        ).decode()
    )


def test_an_apps_key_is_one_whatever_it_asks_for(calendly: ServedAccount) -> None:
    assert isinstance(calendly.api, CalendlyApi)
    grant = {"grant_type": "refresh_token", **calendly.api.oauth_settings()}
    token = calendly.client.post("oauth/token", data=grant).json()["access_token"]
    calendly.client.headers["Authorization"] = f"Bearer {token}"
    created(calendly)
    created(calendly, signing_key=None, url=f"{URL}?2")
    assert {recipient.secret for recipient in calendly.api.recipients("invitee.created")} == {
        SIMULATED["calendly"].secret
    }
