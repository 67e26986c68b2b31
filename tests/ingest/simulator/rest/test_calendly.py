"""Calendly's simulated REST API: pages, filters and errors, and records that equal its webhooks."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest

from ingest.booking import COLUMNS
from ingest.simulator.api import RateLimit
from ingest.simulator.calendly.records import API
from ingest.simulator.world import ChangeKind, Meeting
from tests.ingest.simulator.rest.served import AccountHistory, ServedAccount, history_of, served
from tests.support.accounts import ACCOUNTS

OWN = f"{API}/organizations/OR00000000000001"
OTHER = f"{API}/organizations/OR00000000000002"
REFERENCES: dict[str, dict[str, str]] = {
    "organization_memberships": {"organization": OWN},
    "event_types": {"organization": OWN},
    "groups": {"organization": OWN},
    "contacts": {},
    "routing_forms": {"organization": OWN},
    "routing_form_submissions": {"form": f"{API}/routing_forms/RF00000000000001"},
    "webhook_subscriptions": {"organization": OWN, "scope": "organization"},
}


@pytest.fixture(scope="module")
def history() -> AccountHistory:
    return history_of("calendly", 500)


@pytest.fixture(scope="module")
def calendly(history: AccountHistory) -> Iterator[ServedAccount]:
    with served(history) as account:
        yield account


def events(account: ServedAccount, **params: Any) -> list[dict[str, Any]]:
    """Return the events of all pages."""
    return [event for page in pages(account, **params) for event in page["collection"]]


def pages(account: ServedAccount, **params: Any) -> Iterator[dict[str, Any]]:
    """Return all pages, following the tokens with the same filters."""
    params = {"organization": OWN, **params}
    while True:
        page = account.get("scheduled_events", **params)
        yield page
        params["page_token"] = page["pagination"]["next_page_token"]
        if params["page_token"] is None:
            return


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [int(event["uri"][-14:]) for event in records]


def by_start(history: AccountHistory) -> list[int]:
    return [
        meeting.number
        for meeting in sorted(
            history.meetings.values(), key=lambda meeting: (meeting.starts_at, meeting.number)
        )
    ]


def event_path(meeting: Meeting) -> str:
    return f"scheduled_events/EV{meeting.number:014d}"


def invitee_path(meeting: Meeting) -> str:
    return f"{event_path(meeting)}/invitees/IN{meeting.number:014d}"


def bad_request(account: ServedAccount, path: str, **params: Any) -> str:
    """Return the parameter that the error names."""
    response = account.client.get(path, params=params)
    assert (response.status_code, response.json()["title"]) == (400, "Invalid Argument")
    return str(response.json()["details"][0]["parameter"])


@pytest.mark.parametrize("count", [1, 7, 100])
def test_the_pages_have_every_event_once_by_their_starts(
    history: AccountHistory, calendly: ServedAccount, count: int
) -> None:
    listed = list(pages(calendly, count=count))
    assert numbers([event for page in listed for event in page["collection"]]) == by_start(history)
    assert {len(page["collection"]) for page in listed[:-1]} == {count}
    assert [page["pagination"]["count"] for page in listed] == [len(page["collection"]) for page in listed]


def test_the_latest_start_comes_first_where_that_is_asked_for(
    history: AccountHistory, calendly: ServedAccount
) -> None:
    listed = [event["start_time"] for event in events(calendly, sort="start_time:desc", count=33)]
    assert listed == sorted(listed, reverse=True)
    assert len(listed) == len(history.meetings)


def test_a_page_has_twenty_unless_told(calendly: ServedAccount) -> None:
    assert len(calendly.get("scheduled_events", organization=OWN)["collection"]) == 20


def test_one_goes_on_and_back_by_the_addresses_in_a_page(calendly: ServedAccount) -> None:
    first = calendly.get("scheduled_events", organization=OWN, count=20, status="active")
    second = calendly.client.get(first["pagination"]["next_page"]).json()
    assert (first["pagination"]["previous_page"], first["pagination"]["previous_page_token"]) == (None, None)
    assert (
        calendly.client.get(second["pagination"]["previous_page"]).json()["collection"] == first["collection"]
    )
    third = calendly.client.get(second["pagination"]["next_page"]).json()
    assert calendly.client.get(third["pagination"]["previous_page"]).json() == second


def test_the_last_page_has_no_token(calendly: ServedAccount) -> None:
    last = list(pages(calendly, count=100))[-1]["pagination"]
    assert (last["next_page"], last["next_page_token"]) == (None, None)
    assert last["previous_page_token"]


def test_what_is_deleted_between_two_pages_hides_and_repeats_nothing() -> None:
    history = history_of("calendly", 60)
    order = by_start(history)
    with served(history) as account:
        walk = pages(account, count=10)
        listed = numbers(next(walk)["collection"])
        for number in (order[3], order[9], order[12]):
            history.world.delete("calendly", number)
        listed += [number for page in walk for number in numbers(page["collection"])]
    assert listed == [number for number in order if number != order[12]]


@pytest.mark.parametrize("token", ["nonsense", "bm9uc2Vuc2U=", "WzEsMiwzXQ==", "MQ=="])
def test_a_token_of_no_list_is_refused(calendly: ServedAccount, token: str) -> None:
    assert bad_request(calendly, "scheduled_events", organization=OWN, page_token=token) == "page_token"


def test_a_token_is_good_only_with_the_filters_it_was_made_for(calendly: ServedAccount) -> None:
    token = calendly.get("scheduled_events", organization=OWN)["pagination"]["next_page_token"]
    assert (
        calendly.get("scheduled_events", organization=OWN, page_token=token, count=3)["pagination"]["count"]
        == 3
    )
    assert (
        bad_request(calendly, "scheduled_events", organization=OWN, page_token=token, status="active")
        == "page_token"
    )
    assert bad_request(calendly, "event_types", organization=OWN, page_token=token) == "page_token"


def test_starts_are_after_the_one_bound_and_before_the_other(
    history: AccountHistory, calendly: ServedAccount
) -> None:
    starts = sorted({meeting.starts_at for meeting in history.meetings.values()})
    since, until = starts[10], starts[30]
    listed = events(
        calendly,
        min_start_time=since.isoformat(),
        max_start_time=until.isoformat().replace("+00:00", "Z"),
        count=100,
    )
    assert set(numbers(listed)) == {
        meeting.number for meeting in history.meetings.values() if since < meeting.starts_at < until
    }
    assert {starts[11], starts[29]} <= {datetime.fromisoformat(event["start_time"]) for event in listed}


@pytest.mark.parametrize(("status", "ended"), [("active", False), ("canceled", True)])
def test_a_status_lets_only_its_own_through(
    history: AccountHistory, calendly: ServedAccount, status: str, ended: bool
) -> None:
    listed = events(calendly, status=status, count=100)
    assert {event["status"] for event in listed} == {status}
    ended_ones = {
        meeting.number
        for meeting in history.meetings.values()
        if meeting.last_change in {ChangeKind.CANCELLED, ChangeKind.REPLACED}
    }
    assert set(numbers(listed)) == (ended_ones if ended else set(history.meetings) - ended_ones)


def test_the_users_own_events_are_those_they_host(history: AccountHistory, calendly: ServedAccount) -> None:
    me = calendly.get("users/me")["resource"]
    assert me["current_organization"] == OWN
    listed = events(calendly, user=me["uri"], count=100)
    assert set(numbers(listed)) == {
        meeting.number for meeting in history.meetings.values() if meeting.host.number == 1
    }
    assert {event["event_memberships"][0]["user_name"] for event in listed} == {me["name"]}


def test_events_are_found_by_their_invitees_address(history: AccountHistory, calendly: ServedAccount) -> None:
    email = history.first(ChangeKind.CANCELLED).meeting.customer.email
    listed = events(calendly, invitee_email=email)
    assert set(numbers(listed)) == {
        meeting.number for meeting in history.meetings.values() if meeting.customer.email == email
    }


@pytest.mark.parametrize(
    "whose",
    [{"organization": OTHER}, {"user": f"{API}/users/US00000000000002"}, {"group": f"{API}/groups/GR9"}],
)
def test_others_events_are_not_told(calendly: ServedAccount, whose: dict[str, str]) -> None:
    response = calendly.client.get("scheduled_events", params=whose)
    assert (response.status_code, response.json()["title"], response.json()["details"]) == (
        403,
        "Permission Denied",
        [],
    )


def test_another_user_is_named_together_with_the_organization(calendly: ServedAccount) -> None:
    user = f"{API}/users/US00000000000002"
    assert {event["event_memberships"][0]["user"] for event in events(calendly, user=user)} == {user}


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, "organization"),
        ({"organization": "OR1"}, "organization"),
        ({"organization": OWN, "count": "0"}, "count"),
        ({"organization": OWN, "count": "101"}, "count"),
        ({"organization": OWN, "count": "many"}, "count"),
        ({"organization": OWN, "sort": "updated_at:asc"}, "sort"),
        ({"organization": OWN, "status": "cancelled"}, "status"),
        ({"organization": OWN, "min_start_time": "yesterday"}, "min_start_time"),
        ({"organization": OWN, "max_start_time": ""}, "max_start_time"),
    ],
)
def test_what_the_list_of_events_does_not_take_is_named(
    calendly: ServedAccount, params: dict[str, str], names: str
) -> None:
    assert bad_request(calendly, "scheduled_events", **params) == names


def test_one_event_is_as_the_list_has_it(history: AccountHistory, calendly: ServedAccount) -> None:
    listed = events(calendly, count=100)[7]
    assert calendly.get(event_path(history.meetings[numbers([listed])[0]]))["resource"] == listed
    assert listed["calendar_event"]["kind"] == "google"


def test_an_event_has_one_invitee_who_carries_no_event(
    history: AccountHistory, calendly: ServedAccount
) -> None:
    for kind in (ChangeKind.CREATED, ChangeKind.CANCELLED, ChangeKind.REPLACED, ChangeKind.NO_SHOW):
        meeting = history.first(kind).meeting
        page = calendly.get(f"{event_path(meeting)}/invitees", count=100)
        assert page["collection"] == [calendly.get(invitee_path(meeting))["resource"]]
        assert page["pagination"]["next_page_token"] is None
        assert "scheduled_event" not in page["collection"][0]


def test_invitees_are_found_by_status_and_address(history: AccountHistory, calendly: ServedAccount) -> None:
    meeting = history.first(ChangeKind.CANCELLED).meeting
    path = f"{event_path(meeting)}/invitees"
    assert (
        len(
            calendly.get(path, status="canceled", email=meeting.customer.email, sort="created_at:desc")[
                "collection"
            ]
        )
        == 1
    )
    assert (
        calendly.get(path, status="active")["collection"]
        == calendly.get(path, email="nobody@example.com")["collection"]
        == []
    )
    assert bad_request(calendly, path, sort="email:asc") == "sort"
    assert bad_request(calendly, path, page_token="?") == "page_token"


def test_a_no_show_moves_the_time_of_neither_and_only_the_invitee_tells(
    history: AccountHistory, calendly: ServedAccount
) -> None:
    meeting = history.first(ChangeKind.NO_SHOW).meeting
    event, invitee = (
        calendly.get(event_path(meeting))["resource"],
        calendly.get(invitee_path(meeting))["resource"],
    )
    assert {event["updated_at"], invitee["updated_at"]} == {invitee["created_at"]}
    assert datetime.fromisoformat(invitee["no_show"]["created_at"]) == meeting.changed_at
    assert (event["status"], invitee["status"], event["invitees_counter"]) == (
        "active",
        "active",
        {"total": 1, "active": 1, "limit": 1},
    )


@pytest.mark.parametrize("kind", [ChangeKind.CANCELLED, ChangeKind.REPLACED])
def test_what_ended_says_so_in_the_event_and_in_the_invitee(
    history: AccountHistory, calendly: ServedAccount, kind: ChangeKind
) -> None:
    meeting = history.first(kind).meeting
    event, invitee = (
        calendly.get(event_path(meeting))["resource"],
        calendly.get(invitee_path(meeting))["resource"],
    )
    assert (event["status"], invitee["status"], event["invitees_counter"]) == (
        "canceled",
        "canceled",
        {"total": 1, "active": 0, "limit": 1},
    )
    assert event["cancellation"] == invitee["cancellation"]
    assert event["updated_at"] == invitee["updated_at"] == event["cancellation"]["created_at"]
    assert invitee["rescheduled"] == (kind is ChangeKind.REPLACED) == bool(invitee["new_invitee"])


def test_a_replacement_names_what_it_replaced(history: AccountHistory, calendly: ServedAccount) -> None:
    old = history.first(ChangeKind.REPLACED).meeting
    assert old.replaced_by
    new = calendly.get(invitee_path(history.meetings[old.replaced_by]))["resource"]
    listed = calendly.get(invitee_path(old))["resource"]
    assert (new["old_invitee"], listed["new_invitee"]) == (listed["uri"], new["uri"])


def test_times_have_six_decimals(calendly: ServedAccount) -> None:
    for event in calendly.get("scheduled_events", organization=OWN)["collection"]:
        assert {len(event[name]) for name in ("start_time", "end_time", "created_at", "updated_at")} == {
            len("2026-06-10T06:30:00.000000Z")
        }


@pytest.mark.parametrize(
    "path",
    [
        "scheduled_events/EV00000000099999",
        "scheduled_events/1",
        "scheduled_events/EV00000000000001/invitees/IN00000000000002",
        "scheduled_events/EV00000000000001/invitees/1",
        "scheduled_events/EV00000000099999/invitees",
        "no_such_thing",
    ],
)
def test_what_is_not_there_is_not_found(calendly: ServedAccount, path: str) -> None:
    response = calendly.client.get(path)
    assert (response.status_code, response.json()["title"]) == (404, "Resource Not Found")


def test_a_deleted_event_is_not_found_any_more() -> None:
    history = history_of("calendly", 5)
    meeting = next(iter(history.meetings.values()))
    with served(history) as account:
        assert account.get(event_path(meeting))
        history.world.delete("calendly", meeting.number)
        assert (
            account.client.get(event_path(meeting)).status_code
            == account.client.get(invitee_path(meeting)).status_code
            == 404
        )


def test_the_product_reads_by_rest_what_it_reads_in_webhooks(
    history: AccountHistory, calendly: ServedAccount
) -> None:
    right = history.bookings_of_webhooks()
    for event in events(calendly, count=100)[::4]:
        number = numbers([event])[0]
        (invitee,) = calendly.get(f"{event_path(history.meetings[number])}/invitees")["collection"]
        booking = ACCOUNTS["calendly"].booking_of_record(orjson.dumps({**invitee, "scheduled_event": event}))
        columns = [name for name in COLUMNS if name not in right[number].untold]
        assert [getattr(booking, name) for name in columns] == [
            getattr(right[number], name) for name in columns
        ]
        assert booking.untold == frozenset()


@pytest.mark.parametrize("path", REFERENCES)
def test_reference_lists_have_entries_of_their_own_paged_like_the_others(
    calendly: ServedAccount, path: str
) -> None:
    resource = calendly.get(path, count=100, **REFERENCES[path])["collection"]
    assert resource
    params: dict[str, Any] = {"count": 1, **REFERENCES[path]}
    for entry in resource[:10]:
        page = calendly.get(path, **params)
        assert page["collection"] == [entry]
        params["page_token"] = page["pagination"]["next_page_token"]
    assert len({entry["uri"] for entry in resource}) == len(resource)


def test_every_contact_is_a_customer(history: AccountHistory, calendly: ServedAccount) -> None:
    params: dict[str, Any] = {"count": 100}
    emails = []
    while "page_token" not in params or params["page_token"]:
        page = calendly.get("contacts", **params)
        emails += [contact["email"] for contact in page["collection"]]
        params["page_token"] = page["pagination"]["next_page_token"]
    assert sorted(emails) == sorted({meeting.customer.email for meeting in history.meetings.values()})


@pytest.mark.parametrize(
    ("path", "params", "names"),
    [
        ("organization_memberships", {}, "organization"),
        ("event_types", {}, "organization"),
        ("groups", {}, "organization"),
        ("routing_forms", {}, "organization"),
        ("routing_form_submissions", {}, "form"),
        ("webhook_subscriptions", {"organization": OWN}, "scope"),
        ("webhook_subscriptions", {"organization": OWN, "scope": "user"}, "user"),
    ],
)
def test_reference_lists_refuse_to_guess_whose(
    calendly: ServedAccount, path: str, params: dict[str, str], names: str
) -> None:
    assert bad_request(calendly, path, **params) == names


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic wrong"}, {"API-Key": "wrong"}]
)
def test_without_a_right_token_nothing_is_told(history: AccountHistory, headers: dict[str, str]) -> None:
    with served(history, headers) as account:
        response = account.client.get("users/me")
    assert (response.status_code, response.json()["title"], response.json()["details"]) == (
        401,
        "Unauthenticated",
        [],
    )


def test_every_answer_has_a_request_id_of_its_own(calendly: ServedAccount) -> None:
    answers = [
        calendly.client.get(path) for path in ("users/me", "users/me", "no_such_thing", "scheduled_events")
    ]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4
    assert not any(name.startswith("x-ratelimit") for answer in answers for name in answer.headers)


def test_the_allowance_is_told_in_every_answer_and_over_it_how_long_to_wait(history: AccountHistory) -> None:
    with served(history, limit=RateLimit(3, 3600)) as account:
        answers = [account.client.get(path) for path in ("users/me", "no_such_thing", "users/me", "users/me")]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert all(0 < int(answer.headers["X-RateLimit-Reset"]) <= 3600 for answer in answers)
    assert len(answers[-1].headers.get_list("X-RateLimit-Reset")) == 1
    assert "Retry-After" not in answers[-1].headers
