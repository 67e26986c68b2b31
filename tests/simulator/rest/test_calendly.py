"""Calendly's simulated REST side: its paging, filters and refusals, and that it tells what its webhooks tell."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest

from ingest.booking import COLUMNS
from ingest.simulator.api import Allowed
from ingest.simulator.calendly.webhooks import API
from ingest.simulator.world import Kind, Meeting
from tests.simulator.rest.asking import Asking, Story, asking, story_of
from tests.simulator.story import VENDORS

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
def story() -> Story:
    return story_of("calendly", 500)


@pytest.fixture(scope="module")
def calendly(story: Story) -> Iterator[Asking]:
    with asking(story) as found:
        yield found


def events(found: Asking, **params: Any) -> list[dict[str, Any]]:
    """Of all pages."""
    return [event for page in pages(found, **params) for event in page["collection"]]


def pages(found: Asking, **params: Any) -> Iterator[dict[str, Any]]:
    """By tokens, with the same filters."""
    params = {"organization": OWN, **params}
    while True:
        page = found.get("scheduled_events", **params)
        yield page
        params["page_token"] = page["pagination"]["next_page_token"]
        if params["page_token"] is None:
            return


def numbers(told: list[dict[str, Any]]) -> list[int]:
    return [int(event["uri"][-14:]) for event in told]


def by_start(story: Story) -> list[int]:
    return [
        meeting.number
        for meeting in sorted(story.meetings.values(), key=lambda one: (one.starts_at, one.number))
    ]


def one(story: Story, kind: Kind) -> Meeting:
    return next(meeting for meeting in story.meetings.values() if meeting.last is kind)


def event_path(meeting: Meeting) -> str:
    return f"scheduled_events/EV{meeting.number:014d}"


def invitee_path(meeting: Meeting) -> str:
    return f"{event_path(meeting)}/invitees/IN{meeting.number:014d}"


def bad_request(found: Asking, path: str, **params: Any) -> str:
    """The parameter that the refusal names."""
    response = found.client.get(path, params=params)
    assert (response.status_code, response.json()["title"]) == (400, "Invalid Argument")
    return str(response.json()["details"][0]["parameter"])


@pytest.mark.parametrize("count", [1, 7, 100])
def test_the_pages_have_every_event_once_by_their_starts(story: Story, calendly: Asking, count: int) -> None:
    told = list(pages(calendly, count=count))
    assert numbers([event for page in told for event in page["collection"]]) == by_start(story)
    assert {len(page["collection"]) for page in told[:-1]} == {count}
    assert [page["pagination"]["count"] for page in told] == [len(page["collection"]) for page in told]


def test_the_latest_start_comes_first_where_that_is_asked_for(story: Story, calendly: Asking) -> None:
    told = [event["start_time"] for event in events(calendly, sort="start_time:desc", count=33)]
    assert told == sorted(told, reverse=True)
    assert len(told) == len(story.meetings)


def test_a_page_has_twenty_unless_told(calendly: Asking) -> None:
    assert len(calendly.get("scheduled_events", organization=OWN)["collection"]) == 20


def test_one_goes_on_and_back_by_the_addresses_in_a_page(calendly: Asking) -> None:
    first = calendly.get("scheduled_events", organization=OWN, count=20, status="active")
    second = calendly.client.get(first["pagination"]["next_page"]).json()
    assert (first["pagination"]["previous_page"], first["pagination"]["previous_page_token"]) == (None, None)
    assert (
        calendly.client.get(second["pagination"]["previous_page"]).json()["collection"] == first["collection"]
    )
    third = calendly.client.get(second["pagination"]["next_page"]).json()
    assert calendly.client.get(third["pagination"]["previous_page"]).json() == second


def test_the_last_page_has_no_token(calendly: Asking) -> None:
    last = list(pages(calendly, count=100))[-1]["pagination"]
    assert (last["next_page"], last["next_page_token"]) == (None, None)
    assert last["previous_page_token"]


def test_what_is_deleted_between_two_pages_hides_and_repeats_nothing() -> None:
    story = story_of("calendly", 60)
    order = by_start(story)
    with asking(story) as found:
        walk = pages(found, count=10)
        told = numbers(next(walk)["collection"])
        for number in (order[3], order[9], order[12]):
            story.world.forget("calendly", number)
        told += [number for page in walk for number in numbers(page["collection"])]
    assert told == [number for number in order if number != order[12]]


@pytest.mark.parametrize("token", ["nonsense", "bm9uc2Vuc2U=", "WzEsMiwzXQ==", "MQ=="])
def test_a_token_of_no_list_is_refused(calendly: Asking, token: str) -> None:
    assert bad_request(calendly, "scheduled_events", organization=OWN, page_token=token) == "page_token"


def test_a_token_is_good_only_with_the_filters_it_was_made_for(calendly: Asking) -> None:
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


def test_starts_are_after_the_one_bound_and_before_the_other(story: Story, calendly: Asking) -> None:
    starts = sorted({meeting.starts_at for meeting in story.meetings.values()})
    since, until = starts[10], starts[30]
    told = events(
        calendly,
        min_start_time=since.isoformat(),
        max_start_time=until.isoformat().replace("+00:00", "Z"),
        count=100,
    )
    assert set(numbers(told)) == {
        meeting.number for meeting in story.meetings.values() if since < meeting.starts_at < until
    }
    assert {starts[11], starts[29]} <= {datetime.fromisoformat(event["start_time"]) for event in told}


@pytest.mark.parametrize(("status", "ended"), [("active", False), ("canceled", True)])
def test_a_status_lets_only_its_own_through(story: Story, calendly: Asking, status: str, ended: bool) -> None:
    told = events(calendly, status=status, count=100)
    assert {event["status"] for event in told} == {status}
    ended_ones = {
        meeting.number
        for meeting in story.meetings.values()
        if meeting.last in {Kind.CANCELLED, Kind.REPLACED}
    }
    assert set(numbers(told)) == (ended_ones if ended else set(story.meetings) - ended_ones)


def test_the_users_own_events_are_those_they_host(story: Story, calendly: Asking) -> None:
    me = calendly.get("users/me")["resource"]
    assert me["current_organization"] == OWN
    told = events(calendly, user=me["uri"], count=100)
    assert set(numbers(told)) == {
        meeting.number for meeting in story.meetings.values() if meeting.host.number == 1
    }
    assert {event["event_memberships"][0]["user_name"] for event in told} == {me["name"]}


def test_events_are_found_by_their_invitees_address(story: Story, calendly: Asking) -> None:
    email = one(story, Kind.CANCELLED).customer.email
    told = events(calendly, invitee_email=email)
    assert set(numbers(told)) == {
        meeting.number for meeting in story.meetings.values() if meeting.customer.email == email
    }


@pytest.mark.parametrize(
    "whose",
    [{"organization": OTHER}, {"user": f"{API}/users/US00000000000002"}, {"group": f"{API}/groups/GR9"}],
)
def test_others_events_are_not_told(calendly: Asking, whose: dict[str, str]) -> None:
    response = calendly.client.get("scheduled_events", params=whose)
    assert (response.status_code, response.json()["title"], response.json()["details"]) == (
        403,
        "Permission Denied",
        [],
    )


def test_another_user_is_named_together_with_the_organization(calendly: Asking) -> None:
    user = f"{API}/users/US00000000000002"
    assert {event["event_memberships"][0]["user"] for event in events(calendly, user=user)} == {user}


@pytest.mark.parametrize(
    ("params", "named"),
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
    calendly: Asking, params: dict[str, str], named: str
) -> None:
    assert bad_request(calendly, "scheduled_events", **params) == named


def test_one_event_is_as_the_list_has_it(story: Story, calendly: Asking) -> None:
    told = events(calendly, count=100)[7]
    assert calendly.get(event_path(story.meetings[numbers([told])[0]]))["resource"] == told
    assert told["calendar_event"]["kind"] == "google"


def test_an_event_has_one_invitee_who_carries_no_event(story: Story, calendly: Asking) -> None:
    for kind in (Kind.CREATED, Kind.CANCELLED, Kind.REPLACED, Kind.NO_SHOW):
        meeting = one(story, kind)
        page = calendly.get(f"{event_path(meeting)}/invitees", count=100)
        assert page["collection"] == [calendly.get(invitee_path(meeting))["resource"]]
        assert page["pagination"]["next_page_token"] is None
        assert "scheduled_event" not in page["collection"][0]


def test_invitees_are_found_by_status_and_address(story: Story, calendly: Asking) -> None:
    meeting = one(story, Kind.CANCELLED)
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
    story: Story, calendly: Asking
) -> None:
    meeting = one(story, Kind.NO_SHOW)
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


@pytest.mark.parametrize("kind", [Kind.CANCELLED, Kind.REPLACED])
def test_what_ended_says_so_in_the_event_and_in_the_invitee(
    story: Story, calendly: Asking, kind: Kind
) -> None:
    meeting = one(story, kind)
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
    assert invitee["rescheduled"] == (kind is Kind.REPLACED) == bool(invitee["new_invitee"])


def test_a_replacement_names_what_it_replaced(story: Story, calendly: Asking) -> None:
    old = one(story, Kind.REPLACED)
    assert old.replaced_by
    new = calendly.get(invitee_path(story.meetings[old.replaced_by]))["resource"]
    told = calendly.get(invitee_path(old))["resource"]
    assert (new["old_invitee"], told["new_invitee"]) == (told["uri"], new["uri"])


def test_times_have_six_decimals(calendly: Asking) -> None:
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
def test_what_is_not_there_is_not_found(calendly: Asking, path: str) -> None:
    response = calendly.client.get(path)
    assert (response.status_code, response.json()["title"]) == (404, "Resource Not Found")


def test_a_deleted_event_is_not_found_any_more() -> None:
    story = story_of("calendly", 5)
    meeting = next(iter(story.meetings.values()))
    with asking(story) as found:
        assert found.get(event_path(meeting))
        story.world.forget("calendly", meeting.number)
        assert (
            found.client.get(event_path(meeting)).status_code
            == found.client.get(invitee_path(meeting)).status_code
            == 404
        )


def test_the_product_reads_by_rest_what_it_reads_in_webhooks(story: Story, calendly: Asking) -> None:
    right = story.as_webhooks_tell()
    for event in events(calendly, count=100)[::4]:
        number = numbers([event])[0]
        (invitee,) = calendly.get(f"{event_path(story.meetings[number])}/invitees")["collection"]
        booking = VENDORS["calendly"].booking_of_record(orjson.dumps({**invitee, "scheduled_event": event}))
        columns = [name for name in COLUMNS if name not in right[number].untold]
        assert [getattr(booking, name) for name in columns] == [
            getattr(right[number], name) for name in columns
        ]
        assert booking.untold == frozenset()


@pytest.mark.parametrize("path", REFERENCES)
def test_reference_lists_have_entries_of_their_own_paged_like_the_others(calendly: Asking, path: str) -> None:
    whole = calendly.get(path, count=100, **REFERENCES[path])["collection"]
    assert whole
    params: dict[str, Any] = {"count": 1, **REFERENCES[path]}
    for entry in whole[:10]:
        page = calendly.get(path, **params)
        assert page["collection"] == [entry]
        params["page_token"] = page["pagination"]["next_page_token"]
    assert len({entry["uri"] for entry in whole}) == len(whole)


def test_every_contact_is_a_customer(story: Story, calendly: Asking) -> None:
    params: dict[str, Any] = {"count": 100}
    emails = []
    while "page_token" not in params or params["page_token"]:
        page = calendly.get("contacts", **params)
        emails += [contact["email"] for contact in page["collection"]]
        params["page_token"] = page["pagination"]["next_page_token"]
    assert sorted(emails) == sorted({meeting.customer.email for meeting in story.meetings.values()})


@pytest.mark.parametrize(
    ("path", "params", "named"),
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
    calendly: Asking, path: str, params: dict[str, str], named: str
) -> None:
    assert bad_request(calendly, path, **params) == named


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic wrong"}, {"API-Key": "wrong"}]
)
def test_without_a_right_token_nothing_is_told(story: Story, headers: dict[str, str]) -> None:
    with asking(story, headers) as found:
        response = found.client.get("users/me")
    assert (response.status_code, response.json()["title"], response.json()["details"]) == (
        401,
        "Unauthenticated",
        [],
    )


def test_every_answer_has_a_request_id_of_its_own(calendly: Asking) -> None:
    answers = [
        calendly.client.get(path) for path in ("users/me", "users/me", "no_such_thing", "scheduled_events")
    ]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4
    assert not any(name.startswith("x-ratelimit") for answer in answers for name in answer.headers)


def test_the_allowance_is_told_in_every_answer_and_over_it_how_long_to_wait(story: Story) -> None:
    with asking(story, limit=Allowed(3, 3600)) as found:
        answers = [found.client.get(path) for path in ("users/me", "no_such_thing", "users/me", "users/me")]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert all(0 < int(answer.headers["X-RateLimit-Reset"]) <= 3600 for answer in answers)
    assert len(answers[-1].headers.get_list("X-RateLimit-Reset")) == 1
    assert "Retry-After" not in answers[-1].headers
