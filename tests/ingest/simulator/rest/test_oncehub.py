"""OnceHub's simulated REST API, called over HTTP, and compared with the world and with the webhooks."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from ingest.booking import COLUMNS
from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import RateLimit
from ingest.simulator.oncehub.api import OncehubApi
from ingest.simulator.oncehub.records import booking_id, user_id
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, ChangeKind, Meeting
from tests.support.accounts import ACCOUNTS, SIMULATED, advance, booking_of, new_world

A_MILLISECOND = timedelta(milliseconds=1)
CHANGES = [
    change
    for change in advance(new_world(11), [timedelta(minutes=4, microseconds=700_137)] * 1200)
    if change.account == "oncehub"
]
LATEST: dict[int, Change] = {change.meeting.number: change for change in CHANGES}
MEETINGS: dict[int, Meeting] = {number: change.meeting for number, change in LATEST.items()}


@pytest.fixture
def meetings() -> dict[int, Meeting]:
    return MEETINGS.copy()


@pytest.fixture
def api(meetings: dict[int, Meeting]) -> OncehubApi:
    return OncehubApi(SIMULATED["oncehub"], meetings)


@pytest.fixture
def client(api: OncehubApi) -> Iterator[httpx.Client]:
    server = RestServer({"sales": api})
    with server.serving(), client_of(server, api) as client:
        yield client


def client_of(server: RestServer, api: OncehubApi) -> httpx.Client:
    return httpx.Client(base_url=server.api_url("sales"), headers={"API-Key": api.settings()["api_key"]})


def list_all(client: httpx.Client, path: str = "/bookings", **params: Any) -> list[dict[str, Any]]:
    """Return the objects of all pages, following ids and `has_more`."""
    records: list[dict[str, Any]] = []
    while True:
        page = client.get(path, params={"limit": 100, **params}).raise_for_status().json()
        records += page["data"]
        if not page["has_more"]:
            return records
        params["after"] = page["data"][-1]["id"]


def ids(records: list[dict[str, Any]]) -> list[str]:
    return [entry["id"] for entry in records]


def ids_of(meetings: list[Meeting]) -> list[str]:
    """Return the ids in the order of lists, newest first."""
    return [
        booking_id(meeting.number)
        for meeting in sorted(meetings, key=lambda meeting: meeting.created_at, reverse=True)
    ]


def cut_to_millisecond(moment: datetime) -> datetime:
    """Cut an instant to the millisecond, as records have it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def iso(moment: Any) -> str:
    return str(moment.isoformat())


def refusal(client: httpx.Client, path: str = "/bookings", **params: Any) -> tuple[int, str, str | None]:
    answer = client.get(path, params=params)
    body = answer.json()
    assert set(body) <= {"type", "message", "param"}
    assert body["type"] == "invalid_request_error"
    return answer.status_code, body["message"], body.get("param")


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulated_vendor("oncehub").api is OncehubApi


def test_the_story_has_all_that_can_become_of_a_meeting() -> None:
    assert {meeting.last_change for meeting in MEETINGS.values()} == set(ChangeKind) - {ChangeKind.REPLACED}
    assert len(MEETINGS) > 150


@pytest.mark.parametrize("limit", [7, 100])
def test_pages_have_every_booking_once_newest_first(client: httpx.Client, limit: int) -> None:
    assert ids(list_all(client, limit=limit)) == ids_of(list(MEETINGS.values()))


def test_ten_are_on_a_page_unless_told(client: httpx.Client) -> None:
    page = client.get("/bookings").json()
    assert set(page) == {"object", "data", "has_more"}
    assert (page["object"], len(page["data"]), page["has_more"]) == ("list", 10, True)


def test_before_gives_the_page_that_was_there_before(client: httpx.Client) -> None:
    first = client.get("/bookings", params={"limit": 5}).json()["data"]
    second = client.get("/bookings", params={"limit": 5, "after": first[-1]["id"]}).json()["data"]
    back = client.get("/bookings", params={"limit": 3, "before": second[0]["id"]}).json()
    assert (back["data"], back["has_more"]) == (first[-3:], True)
    assert client.get("/bookings", params={"before": first[0]["id"]}).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
    }


def test_a_link_leads_nowhere_without_the_version_and_has_no_filter(client: httpx.Client) -> None:
    answer = client.get("/bookings", params={"limit": 5, "status": "canceled"})
    link = answer.links["next"]["url"]
    last = answer.json()["data"][-1]["id"]
    assert link == f"{str(client.base_url).removesuffix('/v2/')}/bookings?limit=5&after={last}"
    assert client.get(link).status_code == 404
    assert "previous" not in answer.links
    assert (
        client.get("/bookings", params={"after": last})
        .links["previous"]["url"]
        .split("?")[1]
        .startswith("limit=10&before=")
    )


def test_older_answers_have_only_links_to_say_that_there_is_more(
    client: httpx.Client, api: OncehubApi
) -> None:
    api.lists_have_more = False
    answer = client.get("/bookings", params={"limit": 5})
    assert "has_more" not in answer.json()
    assert "next" in answer.links


def test_a_list_that_fits_has_no_link(client: httpx.Client) -> None:
    assert "Link" not in client.get("/users").headers


def test_paging_goes_on_where_the_last_of_a_page_was_deleted(
    client: httpx.Client, meetings: dict[int, Meeting]
) -> None:
    first = client.get("/bookings").json()["data"]
    del meetings[int(first[-1]["id"].removeprefix("BKNG-"))]
    rest_of_it = list_all(client, after=first[-1]["id"])
    assert ids(first + rest_of_it) == ids_of(list(MEETINGS.values()))


@pytest.mark.parametrize(
    ("name", "column"),
    [("creation_time", "created_at"), ("starting_time", "starts_at"), ("last_updated_time", "changed_at")],
)
def test_bounds_are_strict_and_by_the_milliseconds_that_are_told(
    client: httpx.Client, name: str, column: str
) -> None:
    moments = sorted({cut_to_millisecond(getattr(meeting, column)) for meeting in MEETINGS.values()})
    low, high = moments[len(moments) // 3], moments[2 * len(moments) // 3]
    expected = [
        meeting for meeting in MEETINGS.values() if low < cut_to_millisecond(getattr(meeting, column)) < high
    ]
    assert ids(list_all(client, **{f"{name}.gt": iso(low), f"{name}.lt": iso(high)})) == ids_of(expected)
    wider = [
        meeting
        for meeting in MEETINGS.values()
        if low <= cut_to_millisecond(getattr(meeting, column)) <= high
    ]
    assert ids(
        list_all(client, **{f"{name}.gt": iso(low - A_MILLISECOND), f"{name}.lt": iso(high + A_MILLISECOND)})
    ) == ids_of(wider)
    assert len(wider) > len(expected) > 10


def test_a_bound_in_the_far_future_leaves_nothing(client: httpx.Client) -> None:
    assert list_all(client, **{"last_updated_time.gt": "2099-01-01"}) == []


def test_words_choose_too(client: httpx.Client) -> None:
    cancelled = [meeting for meeting in MEETINGS.values() if meeting.last_change is ChangeKind.CANCELLED]
    assert ids(list_all(client, status="canceled")) == ids_of(cancelled)
    hers = [meeting for meeting in cancelled if meeting.host.number == 2]
    assert ids(list_all(client, status="canceled", owner=user_id(2))) == ids_of(hers)
    assert hers


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"last_updated_time.gt": "soon"}, (400, "Invalid date: soon", "last_updated_time.gt")),
        (
            {"limit": "101"},
            (400, "Out of range value: 101. Please provide a number between 1 and 100.", "limit"),
        ),
        ({"limit": "0"}, (400, "Out of range value: 0. Please provide a number between 1 and 100.", "limit")),
        ({"status": "cancelled"}, (400, "Invalid status: cancelled", "status")),
        ({"expand": "host"}, (400, "This property cannot be expanded: host", "expand")),
        ({"after": "BKNG-1"}, (400, "No such object: BKNG-1", "after")),
        (
            {"after": booking_id(1), "before": booking_id(1)},
            (400, "Received both before and after parameters. Please provide only one.", None),
        ),
        (
            {"starting_time.gt": "2026-06-02T00:00:00Z", "starting_time.lt": "2026-06-01T00:00:00Z"},
            (400, "starting_time.gt cannot be later than starting_time.lt", "starting_time.gt"),
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    client: httpx.Client, params: dict[str, str], error: tuple[int, str, str | None]
) -> None:
    assert refusal(client, **params) == error


def test_one_booking_is_told_as_in_lists(client: httpx.Client) -> None:
    for record in list_all(client)[:20]:
        assert client.get(f"/bookings/{record['id']}").json() == record


@pytest.mark.parametrize("unknown", ["BKNG-999999999999", "nonsense", "BKNG-1"])
def test_an_unknown_booking_is_not_found(client: httpx.Client, unknown: str) -> None:
    assert refusal(client, f"/bookings/{unknown}") == (404, f"No such booking: {unknown}", "id")


def test_a_deleted_booking_is_in_no_list_and_by_its_id_only_said_to_be_deleted(
    client: httpx.Client, meetings: dict[int, Meeting]
) -> None:
    list_all(client)
    number = min(meetings)
    del meetings[number]
    assert booking_id(number) not in ids(list_all(client))
    assert client.get(f"/bookings/{booking_id(number)}").json() == {
        "id": booking_id(number),
        "object": "booking",
        "deleted": True,
    }


def test_other_things_are_ids_until_expanded(client: httpx.Client, api: OncehubApi) -> None:
    plain = client.get("/bookings").json()["data"]
    for prefix in ("", "data."):
        api.prefix = prefix
        resource = client.get(
            "/bookings", params={"expand": f"{prefix}owner,{prefix}contact,{prefix}conversation"}
        ).json()["data"]
        for name in ("owner", "contact", "conversation"):
            assert [record[name] and record[name]["id"] for record in resource] == [
                record[name] for record in plain
            ]
    assert all(
        record["booking_calendar"].startswith("BKC-") and record["contact"].startswith("CTC-")
        for record in plain
    )


def test_what_lists_may_expand_may_be_less(client: httpx.Client, api: OncehubApi) -> None:
    api.expandable = frozenset({"owner"})
    assert refusal(client, expand="owner,contact") == (
        400,
        "This property cannot be expanded: contact",
        "expand",
    )
    api.prefix = "data."
    assert refusal(client, expand="owner") == (400, "This property cannot be expanded: owner", "expand")


def test_records_have_milliseconds_and_what_only_rest_tells(client: httpx.Client) -> None:
    for record in list_all(client):
        for name in ("creation_time", "starting_time", "last_updated_time"):
            assert len(record[name]) == len("2026-06-10T06:30:00.000Z")
        assert {"contact", "utm_params", "ics_url", "cancel_url"} <= set(record)
        assert "cancel_reschedule_url" not in record


def test_a_booking_of_a_conversation_has_no_form(client: httpx.Client) -> None:
    records = list_all(client)
    assert {record["form_submission"] is None for record in records} == {True, False}
    assert all(
        (record["form_submission"] is None) == (record["conversation"] is not None) for record in records
    )


def test_rest_and_webhooks_tell_the_same_of_every_booking_where_both_tell(client: httpx.Client) -> None:
    account = ACCOUNTS["oncehub"]
    for record in list_all(client, expand="contact,conversation"):
        change = LATEST[int(record["id"].removeprefix("BKNG-"))]
        by_rest = account.booking_of_record(orjson.dumps(record))
        by_webhook = booking_of(change)
        both = set(COLUMNS) - by_rest.untold - by_webhook.untold
        assert {name: getattr(by_rest, name) for name in both} == {
            name: getattr(by_webhook, name) for name in both
        }
        assert by_rest.untold <= {"staff_name", "guests", "participants"}
        assert by_webhook.untold <= {"staff_name", "guests", "participants", "customer_id", "tracking"}


def test_an_expanded_owner_has_the_name_that_webhooks_tell(client: httpx.Client) -> None:
    for record in list_all(client, expand="owner"):
        booking = ACCOUNTS["oncehub"].booking_of_record(orjson.dumps(record))
        assert booking.staff_name == MEETINGS[int(record["id"].removeprefix("BKNG-"))].host.name


@pytest.mark.parametrize(
    "name",
    [
        "users",
        "teams",
        "contacts",
        "booking-calendars",
        "booking-pages",
        "event-types",
        "master-pages",
        "webhooks",
    ],
)
def test_every_other_list_has_its_things_once(client: httpx.Client, name: str) -> None:
    records = ids(list_all(client, f"/{name}", limit=3))
    assert records
    assert len(set(records)) == len(records)


def test_everybody_in_a_booking_can_be_looked_up(client: httpx.Client) -> None:
    records = list_all(client)
    assert {record["owner"] for record in records} == set(ids(list_all(client, "/users")))
    assert {record["contact"] for record in records} == set(ids(list_all(client, "/contacts")))
    assert {record["booking_calendar"] for record in records} == set(
        ids(list_all(client, "/booking-calendars"))
    )


def test_contacts_are_found_by_address_and_by_time_of_change(client: httpx.Client) -> None:
    contact = list_all(client, "/contacts")[5]
    assert list_all(client, "/contacts", email=contact["email"]) == [contact]
    later = list_all(client, "/contacts", **{"last_updated_time.gt": contact["last_updated_time"]})
    assert contact not in later
    assert all(other["last_updated_time"] > contact["last_updated_time"] for other in later)


def test_a_calendar_and_its_free_times(client: httpx.Client) -> None:
    calendar = list_all(client, "/booking-calendars")[0]
    assert client.get(f"/booking-calendars/{calendar['id']}").json() == calendar
    starts = [
        slot["start_time"] for slot in client.get(f"/booking-calendars/{calendar['id']}/time-slots").json()
    ]
    assert len(set(starts)) == len(starts) > 0
    assert refusal(client, "/booking-calendars/BKC-9/time-slots")[0] == 404


def test_the_webhook_may_be_listed_with_its_secret(client: httpx.Client, api: OncehubApi) -> None:
    """Whoever stores this list stores the secret, unless they leave it out."""
    api.subscriptions.shows_secrets = True
    (webhook,) = list_all(client, "/webhooks")
    assert (webhook["url"], webhook["secret"]) == (SIMULATED["oncehub"].url, SIMULATED["oncehub"].secret)


def test_there_are_no_webhook_events(client: httpx.Client) -> None:
    assert refusal(client, "/webhook-events") == (404, "No such resource", None)


def test_every_answer_has_a_request_id_of_its_own(client: httpx.Client) -> None:
    answers = [
        client.get("/test"),
        client.get("/bookings/x"),
        client.get("/test", headers={"API-Key": "wrong"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 401]
    assert len({answer.headers["Request-Id"] for answer in answers}) == 3


@pytest.mark.parametrize("key", ["", "wrong", "schlüssel"])
def test_a_wrong_key_is_refused(client: httpx.Client, key: str) -> None:
    answer = client.get("/bookings", headers={b"API-Key": key.encode()})
    assert (answer.status_code, answer.json()["type"]) == (401, "authentication_error")


def test_a_plan_without_the_api_is_refused(client: httpx.Client, api: OncehubApi) -> None:
    api.plan_allows = False
    answer = client.get("/bookings")
    assert (answer.status_code, answer.json()["type"]) == (403, "authentication_error")


@pytest.mark.parametrize("kind", ["account", "address"])
def test_over_either_limit_nothing_says_for_how_long(api: OncehubApi, kind: str) -> None:
    allowed = RateLimit(2, 3600)
    limits, addresses = ({"sales": allowed}, {}) if kind == "account" else ({}, {"oncehub": allowed})
    server = RestServer({"sales": api}, limits, addresses)
    with server.serving(), client_of(server, api) as client:
        answers = [client.get("/test") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json() == {"type": "rate_limit_error", "message": "Request rate limit exceeded"}
    assert not [name for name in answers[-1].headers if name == "retry-after" or "ratelimit" in name]
