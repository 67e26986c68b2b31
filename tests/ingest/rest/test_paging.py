"""Tests that lists are read to their end.

What is no list, or leads nowhere, is not read as an empty list.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingest.errors import VendorUnavailable
from ingest.rest import RetryBudget
from ingest.vendors import load_account_class
from ingest.vendors.rest import AnyRest
from tests.ingest.rest.answering import Answers, told
from tests.support.simulated_vendor import ALL, listed

SECRETS = {
    "appointedd": {"api_key": "the-key"},
    "bookeo": {"api_key": "the-key", "secret_key": "the-secret"},
    "calendly": {"api_token": "the-token", "scope": "user"},
    "oncehub": {"api_key": "the-key"},
}
IMPATIENT = RetryBudget(0.0, 0.0, 3)


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()
    with answers.serving():
        yield answers


def opened(vendor: str, server: Answers, tmp_path: Path, **settings: Any) -> AnyRest:
    account_class = load_account_class(vendor)
    table = {
        "name": "sales",
        "vendor": vendor,
        "api_url": server.url,
        "rate_limit": 0,
        **SECRETS[vendor],
        **settings,
    }
    return account_class(account_class.settings_model.model_validate(table), "").rest(tmp_path, IMPATIENT)


def queries(server: Answers) -> list[dict[str, str]]:
    return [dict(request.query_params) for request in server.asked]


def page(*ids: object, **fields: object) -> dict[str, object]:
    return {"data": [{"id": name, "updated": "2026-06-02T10:00:00Z"} for name in ids], **fields}


@pytest.mark.parametrize(
    "body",
    [{}, [], {"data": None}, {"data": {}}, {"data": [1]}, {"collection": [1]}, {"error": "none"}, None],
)
@pytest.mark.parametrize("vendor", sorted(SECRETS))
def test_a_page_without_its_list_is_nonsense(
    vendor: str, body: object, server: Answers, tmp_path: Path
) -> None:
    server.answers = [told(body)]
    if vendor == "calendly":
        server.answers = [told({"resource": {"uri": "u", "current_organization": "o"}}), told(body)]
    with pytest.raises(
        VendorUnavailable,
        match=f"^{vendor} account sales: the page has no list of objects .* is api_url right",
    ):
        listed(opened(vendor, server, tmp_path))


def test_oncehub_goes_on_after_the_last_id_with_its_filters(server: Answers, tmp_path: Path) -> None:
    server.answers = [told(page("a", "b", has_more=True)), told(page("c", has_more=False))]
    assert [entry["id"] for entry in listed(opened("oncehub", server, tmp_path))] == ["a", "b", "c"]
    first, second = queries(server)
    assert second == {**first, "after": "b"}
    assert first == {
        "expand": "contact,conversation",
        "limit": "100",
        "last_updated_time.gt": "2026-05-31T09:12:33Z",
        "last_updated_time.lt": "2026-06-16T09:12:35Z",
    }


def test_oncehub_of_old_says_by_a_full_page_and_a_link_that_there_is_more(
    server: Answers, tmp_path: Path
) -> None:
    full = page(*range(100))
    link = f'<{server.url}/elsewhere?after=99>; rel="next"'
    server.answers = [told(full, Link=link), told(page("last"), Link=link)]
    assert len(listed(opened("oncehub", server, tmp_path))) == 101
    assert [urlsplit(str(request.url)).path for request in server.asked] == ["/bookings", "/bookings"]


def test_oncehub_of_old_ends_with_a_full_page_without_a_link(server: Answers, tmp_path: Path) -> None:
    server.answers = [told(page(*range(100)))]
    assert len(listed(opened("oncehub", server, tmp_path))) == 100
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", [page(has_more=True), {"data": [{"name": "x"}], "has_more": True}])
def test_oncehub_saying_there_is_more_but_not_after_what_is_nonsense(
    body: object, server: Answers, tmp_path: Path
) -> None:
    server.answers = [told(body)]
    with pytest.raises(VendorUnavailable, match="no id to go on from"):
        listed(opened("oncehub", server, tmp_path))


def test_pages_that_lead_round_in_a_circle_are_nonsense(server: Answers, tmp_path: Path) -> None:
    server.answers = [
        told(page("a", has_more=True)),
        told(page("b", has_more=True)),
        told(page("a", has_more=True)),
    ]
    with pytest.raises(VendorUnavailable, match="circle"):
        listed(opened("oncehub", server, tmp_path))
    assert len(server.asked) == 3


def test_appointedd_goes_on_at_next_whatever_the_total(server: Answers, tmp_path: Path) -> None:
    server.answers = [
        told(page("a", next="b", total=1)),
        told(page("b", next=None, total=9)),
        told(page(next=None)),
    ]
    assert [entry["id"] for entry in listed(opened("appointedd", server, tmp_path))] == ["a", "b"]
    first, second, cancelled = queries(server)
    assert second == {**first, "start": "b"}
    assert cancelled == {**first, "statuses": "cancelled"}


def test_bookeo_goes_on_by_number_while_the_token_stays(server: Answers, tmp_path: Path) -> None:
    server.answers = [
        told(page(number, info={"currentPage": number, "totalPages": 3, "pageNavigationToken": "t"}))
        for number in (1, 2, 3)
    ]
    assert [entry["id"] for entry in listed(opened("bookeo", server, tmp_path))] == [1, 2, 3]
    first, second, third = queries(server)
    assert second == {**first, "pageNavigationToken": "t", "pageNumber": "2"}
    assert third == {**second, "pageNumber": "3"}
    assert first == {
        "itemsPerPage": "100",
        "includeCanceled": "true",
        "expandCustomer": "true",
        "expandParticipants": "true",
        "lastUpdatedStartTime": "2026-05-31T09:12:00Z",
        "lastUpdatedEndTime": "2026-06-16T09:13:00Z",
    }


def test_bookeo_may_leave_out_what_a_short_page_says_of_itself(server: Answers, tmp_path: Path) -> None:
    server.answers = [told(page(1, 2))]
    assert len(listed(opened("bookeo", server, tmp_path))) == 2


@pytest.mark.parametrize(
    "body",
    [
        page(*range(100)),
        page(1, info={"currentPage": 1, "totalPages": 2}),
        page(1, info={"currentPage": "1", "totalPages": 2, "pageNavigationToken": "t"}),
        page(1, info={}),
    ],
)
def test_bookeo_without_a_way_to_know_the_last_page_is_nonsense(
    body: object, server: Answers, tmp_path: Path
) -> None:
    server.answers = [told(body)]
    with pytest.raises(VendorUnavailable):
        listed(opened("bookeo", server, tmp_path))


def v2(server: Answers, tmp_path: Path) -> AnyRest:
    rest = opened(
        "appointedd", server, tmp_path, api="v2", client_id="the-client", client_secret="the-client-secret"
    )
    server.answers.insert(0, told({"access_token": "the-token"}))
    return rest


@pytest.mark.parametrize(
    "link",
    ["/v2/staff?page%5Bnumber%5D=2", "{url}/v2/staff?page%5Bnumber%5D=2", {"href": "?page%5Bnumber%5D=2"}],
)
def test_v2_follows_the_next_link(link: Any, server: Answers, tmp_path: Path) -> None:
    link = link.replace("{url}", server.url) if isinstance(link, str) else link
    server.answers = [told(page("a", links={"next": link})), told(page("b", links={"next": None}))]
    rest = v2(server, tmp_path)
    assert [entry["id"] for page in rest.pages("staff", "data") for entry in page] == ["a", "b"]
    assert queries(server)[1:] == [{}, {"page[number]": "2"}]


@pytest.mark.parametrize(
    "link", ["http://elsewhere.example.com/v2/staff?page=2", "//elsewhere.example.com/", "ftp:x"]
)
def test_v2_takes_the_token_nowhere_else(link: str, server: Answers, tmp_path: Path) -> None:
    server.answers = [told(page("a", links={"next": link}))]
    rest = v2(server, tmp_path)
    with pytest.raises(VendorUnavailable, match="another host"):
        list(rest.pages("staff", "data"))


def test_one_paginator_serves_many_lists(server: Answers, tmp_path: Path) -> None:
    rest = opened("oncehub", server, tmp_path)
    for _ in range(2):
        server.answers = [told(page("a", has_more=True)), told(page("b", has_more=False))]
        assert len(listed(rest)) == 2


def test_the_window_of_these_tests_is_as_it_is_written_here() -> None:
    assert (str(ALL.since), str(ALL.until)) == (
        "2026-05-31 09:12:34.567891+00:00",
        "2026-06-16 09:12:34.567891+00:00",
    )
