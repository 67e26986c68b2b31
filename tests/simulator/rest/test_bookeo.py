"""Bookeo's simulated REST side: its searches, pages and refusals, and that it tells what its webhooks tell."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from ingest.simulator.api import Allowed
from ingest.simulator.world import Kind, Meeting
from tests.simulator.rest.asking import Asking, Story, asking, credential_of, story_of
from tests.simulator.story import BEGINNING, VENDORS

ALL = {"startTime": "2026-06-01T00:00:00Z", "endTime": "2026-07-02T00:00:00Z"}
EVERYTHING = {**ALL, "includeCanceled": "true", "expandCustomer": "true", "expandParticipants": "true"}
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def story() -> Story:
    return story_of("bookeo", 500)


@pytest.fixture(scope="module")
def bookeo(story: Story) -> Iterator[Asking]:
    with asking(story) as found:
        yield found


def pages(found: Asking, path: str = "bookings", **params: Any) -> Iterator[dict[str, Any]]:
    """By token and number, the search said once."""
    page = found.get(path, **params)
    yield page
    for number in range(2, page["info"]["totalPages"] + 1):
        yield found.get(path, pageNavigationToken=page["info"]["pageNavigationToken"], pageNumber=number)


def records(found: Asking, path: str = "bookings", **params: Any) -> list[dict[str, Any]]:
    return [record for page in pages(found, path, **params) for record in page["data"]]


def numbers(told: list[dict[str, Any]]) -> list[int]:
    return [int(record["bookingNumber"][4:]) for record in told]


def one(story: Story, kind: Kind) -> Meeting:
    return next(meeting for meeting in story.meetings.values() if meeting.last is kind)


def path_of(meeting: Meeting) -> str:
    return f"bookings/2570{meeting.number:010d}"


def minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def refused(found: Asking, path: str, **params: Any) -> int:
    """The status of a refusal in Bookeo's form."""
    response = found.client.get(path, params=params)
    assert set(response.json()) == {"httpStatus", "message", "errorId"}
    assert response.json()["httpStatus"] == response.status_code
    return response.status_code


@pytest.mark.parametrize("per_page", [7, 100])
def test_the_pages_have_every_booking_once(story: Story, bookeo: Asking, per_page: int) -> None:
    told = list(pages(bookeo, **EVERYTHING, itemsPerPage=per_page))
    assert sorted(numbers([record for page in told for record in page["data"]])) == sorted(story.meetings)
    assert [page["info"]["currentPage"] for page in told] == list(range(1, len(told) + 1))
    assert {page["info"]["totalItems"] for page in told} == {len(story.meetings)}
    assert {len(page["data"]) for page in told[:-1]} == {per_page}


def test_all_pages_of_a_search_share_a_token_and_a_single_page_has_none(bookeo: Asking) -> None:
    assert len({page["info"]["pageNavigationToken"] for page in pages(bookeo, **EVERYTHING)}) == 1
    single = bookeo.get("settings/products")["info"]
    assert single == {"totalItems": 4, "totalPages": 1, "currentPage": 1}


def test_a_page_has_fifty_unless_told(bookeo: Asking) -> None:
    assert len(bookeo.get("bookings", **EVERYTHING)["data"]) == 50


def test_nothing_found_is_an_empty_page(bookeo: Asking) -> None:
    page = bookeo.get("bookings", startTime="2020-01-01T00:00:00Z", endTime="2020-01-02T00:00:00Z")
    assert (page["data"], page["info"]["totalItems"]) == ([], 0)


def test_what_is_deleted_between_two_pages_hides_and_repeats_nothing() -> None:
    story = story_of("bookeo", 60)
    with asking(story) as found:
        walk = pages(found, **EVERYTHING, itemsPerPage=10)
        told = numbers(next(walk)["data"])
        gone = max(set(story.meetings) - set(told))
        for number in (told[3], gone):
            story.world.forget("bookeo", number)
        told += [number for page in walk for number in numbers(page["data"])]
    assert sorted(told) == sorted({*story.meetings, told[3]})


def test_a_page_of_a_search_needs_nothing_of_the_search_and_keeps_all_of_it(bookeo: Asking) -> None:
    _, second, *_ = pages(bookeo, **EVERYTHING)
    assert all("customer" in record and "details" in record["participants"] for record in second["data"])
    _, second, *_ = pages(bookeo, **ALL)
    assert not any("customer" in record or "details" in record["participants"] for record in second["data"])


def test_a_token_is_good_for_its_own_list_and_its_own_pages(bookeo: Asking) -> None:
    info = bookeo.get("bookings", **EVERYTHING)["info"]
    token, last = info["pageNavigationToken"], info["totalPages"]
    assert bookeo.get("bookings", pageNavigationToken=token)["info"]["currentPage"] == 1
    assert bookeo.get("bookings", pageNavigationToken=token, pageNumber=last)["data"]
    assert refused(bookeo, "bookings", pageNavigationToken=token, pageNumber=last + 1) == 400
    assert refused(bookeo, "bookings", pageNavigationToken=token, pageNumber=0) == 400
    assert refused(bookeo, "customers", pageNavigationToken=token, pageNumber=2) == 400
    assert refused(bookeo, "bookings", pageNavigationToken="wrong", pageNumber=2) == 400
    assert refused(bookeo, "bookings", pageNumber=2, **ALL) == 400


def test_tokens_of_searches_long_ago_are_good_no_more(bookeo: Asking) -> None:
    first, *later = [
        bookeo.get("bookings", **ALL, itemsPerPage=1)["info"]["pageNavigationToken"] for _ in range(101)
    ]
    assert bookeo.get("bookings", pageNavigationToken=later[0], pageNumber=2)["data"]
    assert refused(bookeo, "bookings", pageNavigationToken=first, pageNumber=2) == 400


def test_canceled_bookings_are_told_of_only_when_asked_for(story: Story, bookeo: Asking) -> None:
    told = numbers(records(bookeo, **ALL))
    assert sorted(told) == sorted(
        meeting.number for meeting in story.meetings.values() if meeting.last is not Kind.CANCELLED
    )
    canceled = [record for record in records(bookeo, **ALL, includeCanceled="true") if record["canceled"]]
    assert set(numbers(canceled)) == set(story.meetings) - set(told) != set()
    assert all("cancelationTime" in record for record in canceled)


@pytest.mark.parametrize("path", ["list", "one"])
def test_customers_and_participants_are_told_of_only_when_asked_for(
    story: Story, bookeo: Asking, path: str
) -> None:
    meeting = one(story, Kind.CREATED)

    def told(**params: str) -> dict[str, Any]:
        if path == "one":
            found: dict[str, Any] = bookeo.get(path_of(meeting), **params)
            return found
        return next(
            record for record in records(bookeo, **ALL, **params) if numbers([record]) == [meeting.number]
        )

    bare = told()
    assert "customer" not in bare
    assert set(bare["participants"]) == {"numbers"}
    assert bare["customerId"] == told(expandCustomer="true")["customer"]["id"]
    booker, *others = told(expandParticipants="true")["participants"]["details"]
    assert booker["personDetails"] == told(expandCustomer="true")["customer"]
    assert tuple(other["personDetails"]["emailAddress"] for other in others) == meeting.guests


def test_starts_may_be_at_both_ends_of_the_window(story: Story, bookeo: Asking) -> None:
    starts = sorted({meeting.starts_at for meeting in story.meetings.values()})
    since, until = starts[10], starts[20]
    told = records(bookeo, startTime=written(since), endTime=written(until), includeCanceled="true")
    assert set(numbers(told)) == {
        meeting.number for meeting in story.meetings.values() if since <= meeting.starts_at <= until
    }
    assert {since, until} <= {datetime.fromisoformat(record["startTime"]) for record in told}


def test_changes_are_found_by_their_minute_both_ends_of_the_window_in_it(
    story: Story, bookeo: Asking
) -> None:
    moments = sorted(meeting.changed_at for meeting in story.meetings.values())
    since, until = minute(moments[100]), minute(moments[300])
    told = records(
        bookeo, lastUpdatedStartTime=written(since), lastUpdatedEndTime=written(until), includeCanceled="true"
    )
    right = {
        meeting.number for meeting in story.meetings.values() if since <= minute(meeting.changed_at) <= until
    }
    assert set(numbers(told)) == right
    assert any(record.get("lastChangeTime") is None for record in told), (
        "a booking never changed is found by when it was made"
    )


def test_a_change_is_not_found_from_a_second_of_its_minute_on(story: Story, bookeo: Asking) -> None:
    meeting = next(meeting for meeting in story.meetings.values() if meeting.changed_at.second > 2)
    at = minute(meeting.changed_at)
    for since, found in ((at, True), (at + SECOND, False)):
        told = records(
            bookeo,
            lastUpdatedStartTime=written(since),
            lastUpdatedEndTime=written(at + SECOND),
            includeCanceled="true",
        )
        assert (meeting.number in numbers(told)) is found


def test_windows_of_starts_and_of_changes_both_hold_where_both_are_given(bookeo: Asking) -> None:
    half = BEGINNING + timedelta(days=1)
    changed = {
        "lastUpdatedStartTime": written(BEGINNING - timedelta(days=1)),
        "lastUpdatedEndTime": written(half),
    }
    starting = {"startTime": written(half), "endTime": written(half + timedelta(days=9))}
    told = set(numbers(records(bookeo, **changed, **starting)))
    assert told == set(numbers(records(bookeo, **changed))) & set(numbers(records(bookeo, **starting)))
    assert told < set(numbers(records(bookeo, **changed)))
    assert told < set(numbers(records(bookeo, **starting)))


def test_bookings_are_found_by_product(bookeo: Asking) -> None:
    product = bookeo.get("settings/products")["data"][0]
    told = records(bookeo, **ALL, productId=product["productId"])
    assert {record["productName"] for record in told} == {product["name"]}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"startTime": "2026-06-01T00:00:00Z"},
        {"endTime": "2026-06-01T00:00:00Z"},
        {"lastUpdatedStartTime": "2026-06-01T00:00:00Z"},
        {**ALL, "lastUpdatedEndTime": "2026-06-01T00:00:00Z"},
        {"startTime": "2026-06-01T00:00:00Z", "endTime": "2026-07-02T00:00:01Z"},
        {"lastUpdatedStartTime": "2026-06-01T00:00:00Z", "lastUpdatedEndTime": "2026-07-02T00:00:01Z"},
        {"startTime": "2026-06-02T00:00:00Z", "endTime": "2026-06-01T00:00:00Z"},
        {"startTime": "2026-06-01T00:00:00", "endTime": "2026-06-02T00:00:00"},
        {"startTime": "2026-06-01T00:00:00", "endTime": "2026-06-02T00:00:00Z"},
        {"startTime": "2026-06-01T00:00:00 02:00", "endTime": "2026-06-02T00:00:00Z"},
        {**ALL, "itemsPerPage": "101"},
        {**ALL, "itemsPerPage": "0"},
        {**ALL, "itemsPerPage": "many"},
        {**ALL, "includeCanceled": "yes"},
        {**ALL, "expandCustomer": "1"},
    ],
)
def test_what_the_list_of_bookings_does_not_take_is_refused(bookeo: Asking, params: dict[str, str]) -> None:
    assert refused(bookeo, "bookings", **params) == 400


def test_a_window_may_have_offsets_and_be_thirty_one_days_long(story: Story, bookeo: Asking) -> None:
    told = records(
        bookeo,
        startTime="2026-06-01T02:00:00+02:00",
        endTime="2026-07-01T19:00:00-05:00",
        includeCanceled="true",
    )
    assert sorted(numbers(told)) == sorted(story.meetings)


def test_one_booking_is_as_the_list_has_it_canceled_or_not(story: Story, bookeo: Asking) -> None:
    listed = {numbers([record])[0]: record for record in records(bookeo, **EVERYTHING)}
    for kind in (Kind.CREATED, Kind.MOVED, Kind.CANCELLED, Kind.NO_SHOW):
        meeting = one(story, kind)
        assert (
            bookeo.get(path_of(meeting), expandCustomer="true", expandParticipants="true")
            == listed[meeting.number]
        )


def test_a_deleted_booking_is_not_found_any_more() -> None:
    story = story_of("bookeo", 5)
    meeting = next(iter(story.meetings.values()))
    with asking(story) as found:
        assert found.get(path_of(meeting))
        story.world.forget("bookeo", meeting.number)
        assert refused(found, path_of(meeting)) == 404
        assert meeting.number not in numbers(records(found, **EVERYTHING))


@pytest.mark.parametrize(
    "path",
    [
        "bookings/25700000099999",
        "bookings/1",
        "bookings/99990000000001",
        "customers/1",
        "customers/1/linkedpeople",
        "holds",
    ],
)
def test_what_is_not_there_is_not_found(bookeo: Asking, path: str) -> None:
    assert refused(bookeo, path) == 404


def test_the_product_reads_by_rest_what_it_reads_in_webhooks(story: Story, bookeo: Asking) -> None:
    right = story.as_webhooks_tell()
    for record in records(bookeo, **EVERYTHING):
        assert VENDORS["bookeo"].booking_of_record(orjson.dumps(record)) == right.pop(numbers([record])[0])
    assert right == {}


def test_times_are_local_minutes_and_money_is_text(bookeo: Asking) -> None:
    for record in records(bookeo, **ALL):
        for name in ("startTime", "endTime", "creationTime", "lastChangeTime"):
            assert record.get(name, "2026-06-01T04:12:00-05:00").endswith(":00-05:00")
        assert isinstance(record["price"]["totalGross"]["amount"], str)


def test_customers_are_those_who_booked_and_their_bookings_are_counted(story: Story, bookeo: Asking) -> None:
    told = records(bookeo, "customers", itemsPerPage=100)
    assert len(told) == len({record["id"] for record in told})
    assert sorted(person["emailAddress"] for person in told) == sorted(
        {meeting.customer.email for meeting in story.meetings.values()}
    )
    assert sum(person["numBookings"] for person in told) == len(story.meetings)
    assert sum(person["numNoShows"] for person in told) == sum(
        meeting.last is Kind.NO_SHOW for meeting in story.meetings.values()
    )
    assert bookeo.get(f"customers/{told[3]['id']}") == told[3]


def test_some_customers_book_for_others_too(bookeo: Asking) -> None:
    people = [
        bookeo.get(f"customers/{person['id']}/linkedpeople")["data"]
        for person in records(bookeo, "customers")[:40]
    ]
    assert {len(linked) for linked in people} == {0, 1}
    assert all(linked[0]["id"] and linked[0]["firstName"] == "Junior" for linked in people if linked)


def test_payments_are_found_by_when_they_were_received(story: Story, bookeo: Asking) -> None:
    paid = sorted(
        meeting.changed_at
        for meeting in story.meetings.values()
        if meeting.last is Kind.NO_SHOW and meeting.service.price
    )
    told = records(
        bookeo,
        "payments",
        startTime=written(minute(paid[1])),
        endTime=written(minute(paid[-2])),
        itemsPerPage=300,
    )
    assert (
        len(told)
        == len([moment for moment in paid if minute(paid[1]) <= minute(moment) <= minute(paid[-2])])
        < len(paid)
    )
    assert all(
        payment["description"].startswith("Booking 2570") and payment["amount"]["amount"] > "0"
        for payment in told
    )
    assert refused(bookeo, "payments") == refused(bookeo, "payments", **ALL, itemsPerPage=301) == 400


def test_settings_and_webhooks_are_told(story: Story, bookeo: Asking) -> None:
    assert {product["type"] for product in bookeo.get("settings/products", type="fixed")["data"]} == {"fixed"}
    assert bookeo.get("settings/products", type="flexibleTime")["data"] == []
    (staff,) = bookeo.get("settings/resources")["data"]
    assert {host["name"] for host in staff["resources"]} == {
        meeting.host.name for meeting in story.meetings.values()
    }
    assert {language["tag"] for language in bookeo.get("settings/languages")["data"]} == {"en-US", "de-DE"}
    assert bookeo.get("settings/apikeyinfo")["accountId"]
    assert {webhook["url"].partition("?")[0] for webhook in bookeo.get("webhooks")["data"]} == {
        bookeo.rest.dialect.url
    }


@pytest.mark.parametrize("wrong", ["X-Bookeo-secretKey", "X-Bookeo-apiKey"])
def test_both_keys_are_needed(story: Story, bookeo: Asking, wrong: str) -> None:
    right = credential_of(bookeo.rest)
    for headers in (
        {**right, wrong: "wrong"},
        {name: key for name, key in right.items() if name != wrong},
        {},
    ):
        with asking(story, headers) as found:
            assert refused(found, "settings/apikeyinfo") == 403


def test_the_keys_may_be_in_the_query(story: Story, bookeo: Asking) -> None:
    keys = bookeo.rest.settings()
    with asking(story, {}) as found:
        assert found.get("settings/apikeyinfo", secretKey=keys["secret_key"], apiKey=keys["api_key"])


def test_over_the_limit_it_says_how_long_to_wait(story: Story) -> None:
    with asking(story, limit=Allowed(1, 3600)) as found:
        assert found.get("settings/apikeyinfo")
        response = found.client.get("settings/apikeyinfo")
    assert (response.status_code, response.json()["httpStatus"]) == (429, 429)
    assert 0 < int(response.headers["Retry-After"]) <= 3600
