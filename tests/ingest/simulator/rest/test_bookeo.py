"""Bookeo's simulated REST API: searches, pages and errors, and records that equal its webhooks."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from ingest.simulator.api import RateLimit
from ingest.simulator.world import ChangeKind, Meeting
from tests.ingest.simulator.rest.served import AccountHistory, ServedAccount, history_of, served
from tests.support.accounts import ACCOUNTS, BEGINNING

ALL = {"startTime": "2026-06-01T00:00:00Z", "endTime": "2026-07-02T00:00:00Z"}
EVERYTHING = {**ALL, "includeCanceled": "true", "expandCustomer": "true", "expandParticipants": "true"}
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def history() -> AccountHistory:
    return history_of("bookeo", 500)


@pytest.fixture(scope="module")
def bookeo(history: AccountHistory) -> Iterator[ServedAccount]:
    with served(history) as account:
        yield account


def pages(account: ServedAccount, path: str = "bookings", **params: Any) -> Iterator[dict[str, Any]]:
    """Return all pages, by token and number after the first request."""
    page = account.get(path, **params)
    yield page
    for number in range(2, page["info"]["totalPages"] + 1):
        yield account.get(path, pageNavigationToken=page["info"]["pageNavigationToken"], pageNumber=number)


def records(account: ServedAccount, path: str = "bookings", **params: Any) -> list[dict[str, Any]]:
    return [record for page in pages(account, path, **params) for record in page["data"]]


def numbers(bookings: list[dict[str, Any]]) -> list[int]:
    return [int(record["bookingNumber"][4:]) for record in bookings]


def path_of(meeting: Meeting) -> str:
    return f"bookings/2570{meeting.number:010d}"


def cut_to_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def local_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def error_status(account: ServedAccount, path: str, **params: Any) -> int:
    """Return the status of an error, and check its form."""
    response = account.client.get(path, params=params)
    assert set(response.json()) == {"httpStatus", "message", "errorId"}
    assert response.json()["httpStatus"] == response.status_code
    return response.status_code


@pytest.mark.parametrize("per_page", [7, 100])
def test_the_pages_have_every_booking_once(
    history: AccountHistory, bookeo: ServedAccount, per_page: int
) -> None:
    listed = list(pages(bookeo, **EVERYTHING, itemsPerPage=per_page))
    assert sorted(numbers([record for page in listed for record in page["data"]])) == sorted(history.meetings)
    assert [page["info"]["currentPage"] for page in listed] == list(range(1, len(listed) + 1))
    assert {page["info"]["totalItems"] for page in listed} == {len(history.meetings)}
    assert {len(page["data"]) for page in listed[:-1]} == {per_page}


def test_all_pages_of_a_search_share_a_token_and_a_single_page_has_none(bookeo: ServedAccount) -> None:
    assert len({page["info"]["pageNavigationToken"] for page in pages(bookeo, **EVERYTHING)}) == 1
    single = bookeo.get("settings/products")["info"]
    assert single == {"totalItems": 4, "totalPages": 1, "currentPage": 1}


def test_a_page_has_fifty_unless_told(bookeo: ServedAccount) -> None:
    assert len(bookeo.get("bookings", **EVERYTHING)["data"]) == 50


def test_nothing_found_is_an_empty_page(bookeo: ServedAccount) -> None:
    page = bookeo.get("bookings", startTime="2020-01-01T00:00:00Z", endTime="2020-01-02T00:00:00Z")
    assert (page["data"], page["info"]["totalItems"]) == ([], 0)


def test_what_is_deleted_between_two_pages_hides_and_repeats_nothing() -> None:
    history = history_of("bookeo", 60)
    with served(history) as account:
        walk = pages(account, **EVERYTHING, itemsPerPage=10)
        listed = numbers(next(walk)["data"])
        gone = max(set(history.meetings) - set(listed))
        for number in (listed[3], gone):
            history.world.delete("bookeo", number)
        listed += [number for page in walk for number in numbers(page["data"])]
    assert sorted(listed) == sorted({*history.meetings, listed[3]})


def test_a_page_of_a_search_needs_nothing_of_the_search_and_keeps_all_of_it(bookeo: ServedAccount) -> None:
    _, second, *_ = pages(bookeo, **EVERYTHING)
    assert all("customer" in record and "details" in record["participants"] for record in second["data"])
    _, second, *_ = pages(bookeo, **ALL)
    assert not any("customer" in record or "details" in record["participants"] for record in second["data"])


def test_a_token_is_good_for_its_own_list_and_its_own_pages(bookeo: ServedAccount) -> None:
    info = bookeo.get("bookings", **EVERYTHING)["info"]
    token, last = info["pageNavigationToken"], info["totalPages"]
    assert bookeo.get("bookings", pageNavigationToken=token)["info"]["currentPage"] == 1
    assert bookeo.get("bookings", pageNavigationToken=token, pageNumber=last)["data"]
    assert error_status(bookeo, "bookings", pageNavigationToken=token, pageNumber=last + 1) == 400
    assert error_status(bookeo, "bookings", pageNavigationToken=token, pageNumber=0) == 400
    assert error_status(bookeo, "customers", pageNavigationToken=token, pageNumber=2) == 400
    assert error_status(bookeo, "bookings", pageNavigationToken="wrong", pageNumber=2) == 400
    assert error_status(bookeo, "bookings", pageNumber=2, **ALL) == 400


def test_tokens_of_searches_long_ago_are_good_no_more(bookeo: ServedAccount) -> None:
    first, *later = [
        bookeo.get("bookings", **ALL, itemsPerPage=1)["info"]["pageNavigationToken"] for _ in range(101)
    ]
    assert bookeo.get("bookings", pageNavigationToken=later[0], pageNumber=2)["data"]
    assert error_status(bookeo, "bookings", pageNavigationToken=first, pageNumber=2) == 400


def test_canceled_bookings_are_told_of_only_when_asked_for(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    listed = numbers(records(bookeo, **ALL))
    assert sorted(listed) == sorted(
        meeting.number
        for meeting in history.meetings.values()
        if meeting.last_change is not ChangeKind.CANCELLED
    )
    canceled = [record for record in records(bookeo, **ALL, includeCanceled="true") if record["canceled"]]
    assert set(numbers(canceled)) == set(history.meetings) - set(listed) != set()
    assert all("cancelationTime" in record for record in canceled)


@pytest.mark.parametrize("path", ["list", "one"])
def test_customers_and_participants_are_told_of_only_when_asked_for(
    history: AccountHistory, bookeo: ServedAccount, path: str
) -> None:
    meeting = history.first(ChangeKind.CREATED).meeting

    def read(**params: str) -> dict[str, Any]:
        if path == "one":
            record: dict[str, Any] = bookeo.get(path_of(meeting), **params)
            return record
        return next(
            record for record in records(bookeo, **ALL, **params) if numbers([record]) == [meeting.number]
        )

    bare = read()
    assert "customer" not in bare
    assert set(bare["participants"]) == {"numbers"}
    assert bare["customerId"] == read(expandCustomer="true")["customer"]["id"]
    booker, *others = read(expandParticipants="true")["participants"]["details"]
    assert booker["personDetails"] == read(expandCustomer="true")["customer"]
    assert tuple(other["personDetails"]["emailAddress"] for other in others) == meeting.guests


def test_starts_may_be_at_both_ends_of_the_window(history: AccountHistory, bookeo: ServedAccount) -> None:
    starts = sorted({meeting.starts_at for meeting in history.meetings.values()})
    since, until = starts[10], starts[20]
    listed = records(bookeo, startTime=local_time(since), endTime=local_time(until), includeCanceled="true")
    assert set(numbers(listed)) == {
        meeting.number for meeting in history.meetings.values() if since <= meeting.starts_at <= until
    }
    assert {since, until} <= {datetime.fromisoformat(record["startTime"]) for record in listed}


def test_changes_are_found_by_their_minute_both_ends_of_the_window_in_it(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    moments = sorted(meeting.changed_at for meeting in history.meetings.values())
    since, until = cut_to_minute(moments[100]), cut_to_minute(moments[300])
    listed = records(
        bookeo,
        lastUpdatedStartTime=local_time(since),
        lastUpdatedEndTime=local_time(until),
        includeCanceled="true",
    )
    right = {
        meeting.number
        for meeting in history.meetings.values()
        if since <= cut_to_minute(meeting.changed_at) <= until
    }
    assert set(numbers(listed)) == right
    assert any(record.get("lastChangeTime") is None for record in listed), (
        "a booking never changed is found by when it was made"
    )


def test_a_change_is_not_found_from_a_second_of_its_minute_on(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    meeting = next(meeting for meeting in history.meetings.values() if meeting.changed_at.second > 2)
    at = cut_to_minute(meeting.changed_at)
    for since, is_listed in ((at, True), (at + SECOND, False)):
        listed = records(
            bookeo,
            lastUpdatedStartTime=local_time(since),
            lastUpdatedEndTime=local_time(at + SECOND),
            includeCanceled="true",
        )
        assert (meeting.number in numbers(listed)) is is_listed


def test_windows_of_starts_and_of_changes_both_hold_where_both_are_given(bookeo: ServedAccount) -> None:
    half = BEGINNING + timedelta(days=1)
    changed = {
        "lastUpdatedStartTime": local_time(BEGINNING - timedelta(days=1)),
        "lastUpdatedEndTime": local_time(half),
    }
    starting = {"startTime": local_time(half), "endTime": local_time(half + timedelta(days=9))}
    listed = set(numbers(records(bookeo, **changed, **starting)))
    assert listed == set(numbers(records(bookeo, **changed))) & set(numbers(records(bookeo, **starting)))
    assert listed < set(numbers(records(bookeo, **changed)))
    assert listed < set(numbers(records(bookeo, **starting)))


def test_bookings_are_found_by_product(bookeo: ServedAccount) -> None:
    product = bookeo.get("settings/products")["data"][0]
    listed = records(bookeo, **ALL, productId=product["productId"])
    assert {record["productName"] for record in listed} == {product["name"]}


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
def test_what_the_list_of_bookings_does_not_take_is_refused(
    bookeo: ServedAccount, params: dict[str, str]
) -> None:
    assert error_status(bookeo, "bookings", **params) == 400


def test_a_window_may_have_offsets_and_be_thirty_one_days_long(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    listed = records(
        bookeo,
        startTime="2026-06-01T02:00:00+02:00",
        endTime="2026-07-01T19:00:00-05:00",
        includeCanceled="true",
    )
    assert sorted(numbers(listed)) == sorted(history.meetings)


def test_one_booking_is_as_the_list_has_it_canceled_or_not(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    listed = {numbers([record])[0]: record for record in records(bookeo, **EVERYTHING)}
    for kind in (ChangeKind.CREATED, ChangeKind.MOVED, ChangeKind.CANCELLED, ChangeKind.NO_SHOW):
        meeting = history.first(kind).meeting
        assert (
            bookeo.get(path_of(meeting), expandCustomer="true", expandParticipants="true")
            == listed[meeting.number]
        )


def test_a_deleted_booking_is_not_found_any_more() -> None:
    history = history_of("bookeo", 5)
    meeting = next(iter(history.meetings.values()))
    with served(history) as account:
        assert account.get(path_of(meeting))
        history.world.delete("bookeo", meeting.number)
        assert error_status(account, path_of(meeting)) == 404
        assert meeting.number not in numbers(records(account, **EVERYTHING))


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
def test_what_is_not_there_is_not_found(bookeo: ServedAccount, path: str) -> None:
    assert error_status(bookeo, path) == 404


def test_the_product_reads_by_rest_what_it_reads_in_webhooks(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    right = history.bookings_of_webhooks()
    for record in records(bookeo, **EVERYTHING):
        assert ACCOUNTS["bookeo"].booking_of_record(orjson.dumps(record)) == right.pop(numbers([record])[0])
    assert right == {}


def test_times_are_local_minutes_and_money_is_text(bookeo: ServedAccount) -> None:
    for record in records(bookeo, **ALL):
        for name in ("startTime", "endTime", "creationTime", "lastChangeTime"):
            assert record.get(name, "2026-06-01T04:12:00-05:00").endswith(":00-05:00")
        assert isinstance(record["price"]["totalGross"]["amount"], str)


def test_customers_are_those_who_booked_and_their_bookings_are_counted(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    listed = records(bookeo, "customers", itemsPerPage=100)
    assert len(listed) == len({record["id"] for record in listed})
    assert sorted(person["emailAddress"] for person in listed) == sorted(
        {meeting.customer.email for meeting in history.meetings.values()}
    )
    assert sum(person["numBookings"] for person in listed) == len(history.meetings)
    assert sum(person["numNoShows"] for person in listed) == sum(
        meeting.last_change is ChangeKind.NO_SHOW for meeting in history.meetings.values()
    )
    assert bookeo.get(f"customers/{listed[3]['id']}") == listed[3]


def test_some_customers_book_for_others_too(bookeo: ServedAccount) -> None:
    people = [
        bookeo.get(f"customers/{person['id']}/linkedpeople")["data"]
        for person in records(bookeo, "customers")[:40]
    ]
    assert {len(linked) for linked in people} == {0, 1}
    assert all(linked[0]["id"] and linked[0]["firstName"] == "Junior" for linked in people if linked)


def test_payments_are_found_by_when_they_were_received(
    history: AccountHistory, bookeo: ServedAccount
) -> None:
    paid = sorted(
        meeting.changed_at
        for meeting in history.meetings.values()
        if meeting.last_change is ChangeKind.NO_SHOW and meeting.service.price
    )
    listed = records(
        bookeo,
        "payments",
        startTime=local_time(cut_to_minute(paid[1])),
        endTime=local_time(cut_to_minute(paid[-2])),
        itemsPerPage=300,
    )
    assert (
        len(listed)
        == len(
            [
                moment
                for moment in paid
                if cut_to_minute(paid[1]) <= cut_to_minute(moment) <= cut_to_minute(paid[-2])
            ]
        )
        < len(paid)
    )
    assert all(
        payment["description"].startswith("Booking 2570") and payment["amount"]["amount"] > "0"
        for payment in listed
    )
    assert (
        error_status(bookeo, "payments") == error_status(bookeo, "payments", **ALL, itemsPerPage=301) == 400
    )


def test_settings_and_webhooks_are_told(history: AccountHistory, bookeo: ServedAccount) -> None:
    assert {product["type"] for product in bookeo.get("settings/products", type="fixed")["data"]} == {"fixed"}
    assert bookeo.get("settings/products", type="flexibleTime")["data"] == []
    (staff,) = bookeo.get("settings/resources")["data"]
    assert {host["name"] for host in staff["resources"]} == {
        meeting.host.name for meeting in history.meetings.values()
    }
    assert {language["tag"] for language in bookeo.get("settings/languages")["data"]} == {"en-US", "de-DE"}
    assert bookeo.get("settings/apikeyinfo")["accountId"]
    assert {webhook["url"].partition("?")[0] for webhook in bookeo.get("webhooks")["data"]} == {
        bookeo.api.account.url
    }


@pytest.mark.parametrize("wrong", ["X-Bookeo-secretKey", "X-Bookeo-apiKey"])
def test_both_keys_are_needed(history: AccountHistory, bookeo: ServedAccount, wrong: str) -> None:
    right = dict(bookeo.api.auth_headers())
    for headers in (
        {**right, wrong: "wrong"},
        {name: key for name, key in right.items() if name != wrong},
        {},
    ):
        with served(history, headers) as account:
            assert error_status(account, "settings/apikeyinfo") == 403


def test_the_keys_may_be_in_the_query(history: AccountHistory, bookeo: ServedAccount) -> None:
    keys = bookeo.api.settings()
    with served(history, {}) as account:
        assert account.get("settings/apikeyinfo", secretKey=keys["secret_key"], apiKey=keys["api_key"])


def test_over_the_limit_it_says_how_long_to_wait(history: AccountHistory) -> None:
    with served(history, limit=RateLimit(1, 3600)) as account:
        assert account.get("settings/apikeyinfo")
        response = account.client.get("settings/apikeyinfo")
    assert (response.status_code, response.json()["httpStatus"]) == (429, 429)
    assert 0 < int(response.headers["Retry-After"]) <= 3600
