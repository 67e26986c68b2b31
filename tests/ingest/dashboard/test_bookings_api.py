"""The API of bookings: pages in each order, filters, CSV, and one booking with its events."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ingest.changes import BOOKING_COLUMNS
from ingest.dashboard.api import csv_cell
from ingest.settings import Settings
from ingest.warehouse.booking_pages import SORTS
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.ingest.dashboard.serving import serving
from tests.support.polling import PATIENCE
from tests.support.settings import Tree

_COUNT = 7


@contextmanager
def client_of(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def harness(tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(tree) as harness:
        load_samples(harness)
        yield harness


@pytest.fixture
def api(either_harness: ConsumerHarness) -> Iterator[httpx.Client]:
    if either_harness.settings.warehouse.duckdb_file is None:
        load_samples(either_harness)
    with client_of(either_harness.settings) as client:
        yield client


def load_samples(harness: ConsumerHarness) -> None:
    """Load bookings of which every second has no time, and some have the same name."""
    harness.load(
        *(
            sample(
                number,
                f"B{number}",
                at=number,
                starting_time=f"2026-06-0{1 + number % 3}T10:00:00Z" if number % 2 else None,
                status="canceled" if number == 4 else "scheduled",
                form_submission={"name": f"Ada {number % 3}", "email": f"a{number}@example.com"},
            )
            for number in range(_COUNT)
        )
    )


def pages(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """Return the bookings of all pages."""
    rows: list[dict[str, Any]] = []
    while True:
        answer = api.get("/api/bookings", params=query)
        assert answer.status_code == 200, answer.text
        rows += answer.json()["bookings"]
        if not (cursor := answer.json()["next"]):
            assert "link" not in answer.headers
            return rows
        assert cursor in answer.headers["link"]
        query["cursor"] = cursor


@pytest.mark.parametrize("sort", ["", *SORTS, *(f"-{name}" for name in SORTS)])
def test_pages_in_any_order_have_each_booking_once_and_those_without_a_value_last(
    api: httpx.Client, sort: str
) -> None:
    rows = pages(api, sort=sort, limit=2)
    assert sorted(row["booking_id"] for row in rows) == [f"B{number}" for number in range(_COUNT)]
    column = sort.removeprefix("-") or "booking_id"
    found = [row[column] for row in rows]
    present = [value for value in found if value is not None]
    assert found == [*present, *[None] * (len(found) - len(present))]
    assert present == sorted(present, reverse=sort.startswith("-"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "cancelled"}, {"B4"}),
        ({"status": "cancelled,confirmed", "search": "A4@EXAMPLE"}, {"B4"}),
        ({"search": "ada 1"}, {"B1", "B4"}),
        ({"search": "%"}, set()),
        ({"search": "a_@"}, set()),
        ({"search": "\\"}, set()),
        ({"search": "'; drop table bookings"}, set()),
        ({"vendor": "bookeo"}, set()),
        ({"vendor": "oncehub", "account": "support", "search": "b6"}, {"B6"}),
        ({"starts_from": "2026-06-02T00:00:00Z", "starts_until": "2026-06-03T00:00:00Z"}, {"B1"}),
        ({"loaded_since": "2999-01-01T00:00:00Z"}, set()),
    ],
)
def test_filters(api: httpx.Client, query: dict[str, str], expected: set[str]) -> None:
    assert {row["booking_id"] for row in pages(api, **query)} == expected


def test_a_row_is_as_the_feed_has_it(api: httpx.Client) -> None:
    [row] = pages(api, search="a5@example.com")
    assert tuple(row) == BOOKING_COLUMNS
    assert (row["starts_at"], row["guests"]) == ("2026-06-03T10:00:00Z", [])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"sort": "price; drop"}, "sort"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"search": "a\x00b"}, "NUL"),
        ({"starts_from": "yesterday"}, "starts_from"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_makes_no_sense_is_refused(api: httpx.Client, query: dict[str, str], words: str) -> None:
    answer = api.get("/api/bookings", params=query)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_cursor_of_another_order_is_refused(api: httpx.Client) -> None:
    cursor = api.get("/api/bookings", params={"limit": 1}).json()["next"]
    assert api.get("/api/bookings", params={"sort": "loaded_at", "cursor": cursor}).status_code == 400


def test_a_booking_comes_with_its_events(api: httpx.Client) -> None:
    answer = api.get("/api/bookings/oncehub/support/B3").json()
    assert answer["booking"]["booking_id"] == "B3"
    [event] = answer["events"]
    assert (event["id"], event["via"], event["data"]["data"]["id"]) == ("E3", "webhook", "B3")
    missing = api.get("/api/bookings/oncehub/support/none")
    assert (missing.status_code, "none" in missing.json()["error"]) == (404, True)


def test_an_id_may_be_a_uri(tree: Tree) -> None:
    uri = "https://api.example.com/invitees/1?a=b"
    with open_consumer(tree) as harness:
        harness.load(sample(1, uri))
        with client_of(harness.settings) as api:
            answer = api.get(f"/api/bookings/oncehub/support/{quote(uri, safe='')}")
        assert answer.json()["booking"]["booking_id"] == uri


def test_before_the_first_load_there_are_no_bookings(tree: Tree) -> None:
    with client_of(Settings.model_validate(tree)) as api:
        assert api.get("/api/bookings").json() == {"bookings": [], "next": None}
        assert api.get("/api/bookings/oncehub/support/B1").status_code == 404


def test_csv_has_every_row_and_no_formula(harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.dashboard.api._ROWS_PER_QUERY", 3)
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1"]
    harness.load(
        *(sample(20 + number, f"F{number}", at=50, subject=text) for number, text in enumerate(formulas))
    )
    with client_of(harness.settings) as api:
        answer = api.get("/api/bookings.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(StringIO(answer.text)))
    assert len(rows) == _COUNT + len(formulas)
    assert {row["service_name"] for row in rows if row["booking_id"].startswith("F")} == {
        f"'{text}" for text in formulas
    }


def test_cells_are_exact_but_for_formulas() -> None:
    cells = [None, "\t=1", "a=1", Decimal("-12.50"), datetime(2026, 6, 1, tzinfo=UTC), 3]
    assert list(map(csv_cell, cells)) == ["", "'\t=1", "a=1", "-12.5", "2026-06-01T00:00:00Z", "3"]
