"""The list of bookings, a booking's page, and the query box, over a warehouse with strangers' texts in it."""

import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from tests.consumers.harness import open_consumer
from tests.consumers.samples import moment, sample
from tests.ingest.dashboard.conftest import Browse, open_browser, tree_in
from tests.ingest.dashboard.forms import submit

HOSTILE = "<script>alert(1)</script>\u202egnp.exe" + "n" * 10_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """Return a browser at a dashboard with 60 bookings, one of them made by a hostile stranger."""
    tree = tree_in(tmp_path_factory.mktemp("bookings"))
    with open_consumer(tree) as harness:
        harness.load(
            *(sample(number, f"B{number:02}", at=number) for number in range(60)),
            sample(100, "B00", at=100, form_submission={"name": HOSTILE, "email": "=cmd()"}),
            sample(101, "B00", at=50, received_at=moment(200)),
        )
    return open_browser(tree)


def bookings_shown(page: str) -> list[str]:
    """Return the ids of the bookings in the list."""
    return re.findall(r"&amp;id=(\w+)", page)


def test_the_list_goes_on_from_page_to_page_by_links_and_shows_each_booking_once(browser: TestClient) -> None:
    first = browser.get("/bookings?sort=updated_at").text
    match = re.search(r'href="([^"]+)" rel="next"', first)
    assert match
    second = browser.get(unescape(match[1])).text
    shown = bookings_shown(first) + bookings_shown(second)
    assert len(shown) == 60
    assert len(set(shown)) == 60
    assert "First page" in second


@pytest.mark.parametrize("path", ["/bookings", "/booking?vendor=oncehub&account=support&id=B00"])
def test_texts_of_strangers_are_shown_as_texts(browser: TestClient, path: str) -> None:
    page = browser.get(path).text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\\u202e" in page


def test_a_long_name_is_cut_in_the_list_and_whole_in_the_booking(browser: TestClient) -> None:
    assert "n" * 300 not in browser.get("/bookings").text
    assert "n" * 10_000 in browser.get("/booking?vendor=oncehub&account=support&id=B00").text


def test_what_is_searched_for_is_found_and_nothing_else_with_words_for_nothing(browser: TestClient) -> None:
    assert bookings_shown(browser.get("/bookings?search=b07").text) == ["B07"]
    assert "No booking matches" in browser.get("/bookings?search=nobody").text
    assert browser.get("/bookings?sort=price").status_code == 400


def test_before_the_first_load_the_list_says_what_is_to_come(browse: Browse) -> None:
    page = browse().get("/bookings")
    assert (page.status_code, "There is no booking yet" in page.text) == (200, True)


def test_the_csv_of_a_list_has_no_formula(browser: TestClient) -> None:
    link = re.search(r'href="(/bookings.csv[^"]*)"', browser.get("/bookings?search=B00").text)
    assert link
    assert "'=cmd()" in browser.get(unescape(link[1])).text
    assert browser.get("/live.csv?account=support").text == browser.get("/api/bookings.csv").text


def test_the_timeline_says_which_event_made_the_row_and_which_came_late(browser: TestClient) -> None:
    events = browser.get("/booking.json?vendor=oncehub&account=support&id=B00").json()["events"]
    assert {event["id"]: event["outcome"] for event in events} == {
        "E0": "applied",
        "E100": "made the row what it is",
        "E101": "late: a newer one was here",
    }


def test_a_booking_that_is_not_there_is_an_error_with_its_name(browser: TestClient) -> None:
    answer = browser.get("/booking.json?vendor=oncehub&account=support&id=none")
    assert (answer.status_code, "has no booking none" in answer.json()["error"]) == (400, True)


def test_a_query_only_reads_and_what_is_wrong_is_said_beside_the_statement(browser: TestClient) -> None:
    assert "60" in submit(browser, "/query", sql="select count(*) as n from bookings").text
    refused = submit(browser, "/query", sql="delete from bookings")
    assert (refused.status_code, "Only statements that read" in refused.text) == (400, True)
    assert "delete from bookings" in refused.text
    assert submit(browser, "/query.json", sql="select 1 as n").json() == [{"n": 1}]
    assert submit(browser, "/query.csv", sql="select '=1+1' as n").text == "n\r\n'=1+1\r\n"


def test_a_file_has_all_rows_of_a_query_or_says_that_there_are_too_many(browser: TestClient) -> None:
    pairs = "select a.booking_id from bookings as a cross join bookings as b"
    assert submit(browser, "/query", sql=pairs).text.count("<tr data-row>") == 1000
    assert len(submit(browser, "/query.csv", sql=pairs).text.splitlines()) == 1 + 60 * 60
    assert len(submit(browser, "/query.json", sql=pairs).json()) == 60 * 60
    refused = submit(browser, "/query.csv", sql=f"{pairs} cross join bookings as c")
    assert (refused.status_code, "more than 100000 rows" in refused.json()["error"]) == (400, True)


def test_a_query_is_not_run_by_a_link(browser: TestClient) -> None:
    page = browser.get("/query?sql=select+42+as+answer").text
    assert "select 42 as answer" in page
    assert "<th" not in page


def test_every_table_is_shown_with_its_columns(browser: TestClient) -> None:
    tables = {table["name"] for table in browser.get("/tables.json").json()["tables"]}
    assert {"bookings", "booking_events", "dead_letters", "reconciliations"} <= tables
    assert "Telephone number of the first participant" in browser.get("/tables").text
