"""Tests of rows that are shortened to what a destination's columns hold."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from consumers.booking_rows import Row, booking_row
from consumers.fitting import fit_rows
from consumers.rows import SCHEMAS, TABLES
from ingest.booking import COLUMNS, Answer, Booking, BookingStatus, StoredBooking
from ingest.destinations import DUCKDB, REDSHIFT
from ingest.fitting import as_json, fit_text
from ingest.times import format_instant
from ingest.warehouse.bookings import stored_booking
from receivers.reconcile.compare import Verdict, compare
from tests.consumers.samples import START, moment, sample

LIMIT = 100
NARROW = replace(REDSHIFT, longest_text=LIMIT, longest_json=LIMIT)
KEYS = {table.name: dict.fromkeys(table.key, "k") for table in TABLES}
TEXTS = st.none() | st.text(max_size=2 * LIMIT)
LISTS = st.lists(st.text(max_size=30), max_size=20)


def row_of(table: str, **values: Any) -> Row:
    return dict.fromkeys(SCHEMAS[table].names) | KEYS[table] | values


def fitted(table: str, row: Row) -> Row:
    [fitting] = fit_rows({table: [row]}, NARROW)[table]
    return fitting


@given(TEXTS, LISTS, st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=5))
def test_texts_and_lists_of_a_booking_begin_as_they_were(
    name: str | None, guests: list[str], tracking: dict[str, str]
) -> None:
    row = row_of("bookings", customer_name=name, guests=as_json(guests), tracking=as_json(tracking))
    fitting = fitted("bookings", row)
    assert (name or "").startswith(fitting["customer_name"] or "")
    kept = orjson.loads(fitting["guests"])
    assert kept == guests[: len(kept)]
    assert fitting["tracking"] in (row["tracking"], None)
    for column, value in fitting.items():
        assert value is None or len(value.encode()) <= LIMIT
        if row[column] is not None and len(row[column].encode()) <= LIMIT:
            assert value == row[column]


@given(LISTS)
def test_a_payload_is_whole_or_tells_where_it_is(data: list[str]) -> None:
    row = row_of("booking_events", position="t/0/7", data=as_json(data))
    fitting = fitted("booking_events", row)
    size = len(row["data"].encode())
    if size <= LIMIT:
        assert fitting == row
    else:
        assert orjson.loads(fitting["data"]) == {"cut": {"bytes": size, "position": "t/0/7"}}
        assert fitting["cut"] == "data"


@given(LISTS, st.sampled_from(["'", '"', "\\", "é", "\n", "1"]))
def test_a_staged_payload_is_whole_where_each_of_its_texts_is_short(data: list[str], character: str) -> None:
    """Of a payload as it is written, a text has two bytes more, and an escape may have several."""
    staged = replace(NARROW, longest_staged_payload=100 * LIMIT)
    for length, is_whole in ((LIMIT // 6 - 2, True), (LIMIT + 1, False)):
        row = row_of("booking_events", position="t/0/7", data=as_json([*data, {"a": character * length}]))
        [fitting] = fit_rows({"booking_events": [row]}, staged, is_staged=True)["booking_events"]
        assert (fitting == row) == is_whole
        if len(row["data"].encode()) > LIMIT:
            [unstaged] = fit_rows({"booking_events": [row]}, staged)["booking_events"]
            assert unstaged["cut"] == "data"


def test_keys_stay_whole_so_that_they_stay_different() -> None:
    row = row_of("booking_events", id="i" * 2 * LIMIT)
    assert fitted("booking_events", row) == row


def test_without_a_limit_rows_are_the_same() -> None:
    rows = {"bookings": [row_of("bookings", customer_name="n" * 100_000)]}
    assert fit_rows(rows, DUCKDB) is rows


BOOKINGS = st.builds(
    Booking,
    booking_id=st.just("B1"),
    version=st.just("2026-05-01T09:00:00Z"),
    status=st.just(BookingStatus.CONFIRMED),
    customer_name=TEXTS,
    staff=LISTS.map(tuple),
    answers=st.lists(st.builds(Answer, TEXTS, TEXTS), max_size=3).map(tuple),
    tracking=st.none() | st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=5),
)


def stored_in_narrow(booking: Booking) -> StoredBooking:
    """Return a booking as it is read back from a destination that has cut it."""
    row = booking_row(booking, sample(1), f"{booking.version}/{format_instant(START)}", START, START)
    [fitting] = fit_rows({"bookings": [row]}, NARROW)["bookings"]
    return stored_booking({name: fitting[name] for name in (*COLUMNS, "loaded_at")}, NARROW)


@given(BOOKINGS)
def test_a_booking_that_was_cut_is_not_missed(booking: Booking) -> None:
    stored = stored_in_narrow(booking)
    assert compare(booking, stored, COLUMNS, moment(9), timedelta(0)) is Verdict.MATCHED


@given(BOOKINGS, st.text(min_size=1, max_size=LIMIT))
def test_a_booking_that_differs_in_what_is_stored_is_missed(booking: Booking, name: str) -> None:
    stored = stored_in_narrow(booking)
    changed = replace(booking, customer_name=f"{name}{booking.customer_name or ''}"[: LIMIT // 4])
    is_same = (stored.booking.customer_name or "") == fit_text(changed.customer_name or "", LIMIT)
    verdict = Verdict.MATCHED if is_same else Verdict.MISSED
    assert compare(changed, stored, COLUMNS, moment(9), timedelta(0)) is verdict
