"""Tests of the warehouse's bookings as reconciliation reads them."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from consumers.booking_rows import booking_row
from ingest.booking import Booking, BookingStatus
from ingest.errors import WarehouseUnavailable
from ingest.settings import Settings
from ingest.warehouse import bookings as stored
from ingest.warehouse import duckdb_file
from ingest.warehouse.bookings import BookingsTable
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import START, moment, sample
from tests.consumers.test_sharing import hold_file
from tests.support.settings import Tree

FULL = Booking(
    booking_id="B0", version="2026/05/01", status=BookingStatus.NO_SHOW, starts_at=moment(0),
    ends_at=moment(60), group_id="G0", timezone="UTC",
    created_at=moment(-9), updated_at=moment(-1.5), service_id="S", service_name="it's \"50%\"",
    staff=("U1", "U2"), staff_name="Ada",
    location="%s", customer_id="C", customer_name="Bo", customer_email="bo@example.com", customer_phone="1",
    participants=2,
    price=Decimal("12.5"), currency="EUR", cancel_reason="why", cancelled_by="host", rescheduled_from="A0",
    rescheduled_to="C0",
)  # fmt: skip


def booking_at(number: int, starts_at: datetime | None, **other: Any) -> Booking:
    return replace(
        Booking(booking_id=f"B{number}", version="1", status=BookingStatus.CONFIRMED, starts_at=starts_at),
        **other,
    )


def load_bookings(
    harness: ConsumerHarness, bookings: Iterable[Booking], source: str = "/oncehub/support"
) -> None:
    event = replace(sample(1), source=source)
    rows = [
        booking_row(booking, event, f"{booking.version}/2026-05-01T09:00:00Z", START, START)
        for booking in bookings
    ]
    with harness.warehouse.turn():
        harness.warehouse.load({"bookings": rows})


def within(harness: ConsumerHarness, since: datetime, until: datetime | None) -> list[list[str]]:
    parts = BookingsTable(harness.settings).within("starts_at", "oncehub", "support", since, until)
    return [[booking_id for booking_id, _ in part] for part in parts]


def test_a_booking_comes_back_as_it_was_with_the_vendors_part_of_its_version(
    either_harness: ConsumerHarness,
) -> None:
    load_bookings(either_harness, [FULL])
    bookings = BookingsTable(either_harness.settings).by("booking_id", "oncehub", "support", ["B0", "B1"])
    assert [(row.booking, row.loaded_at) for row in bookings.pop("B0")] == [(FULL, START)]
    assert bookings == {}


def test_bookings_are_found_by_what_they_share_gone_ones_too(either_harness: ConsumerHarness) -> None:
    load_bookings(
        either_harness,
        [
            booking_at(1, None, group_id="G1"),
            booking_at(2, None, group_id="G1", gone_at=START),
            booking_at(3, None),
            booking_at(4, None, group_id="it's"),
        ],
    )
    bookings = BookingsTable(either_harness.settings).by(
        "group_id", "oncehub", "support", ["G1", "it's", "' OR 1 = 1 --"]
    )
    assert {key: sorted(row.booking.booking_id for row in entries) for key, entries in bookings.items()} == {
        "G1": ["B1", "B2"],
        "it's": ["B4"],
    }


def test_other_accounts_bookings_are_not_told(harness: ConsumerHarness) -> None:
    load_bookings(harness, [booking_at(1, START)])
    load_bookings(harness, [booking_at(1, START)], "/oncehub/other")
    load_bookings(harness, [booking_at(1, START)], "/bookeo/support")
    assert len(BookingsTable(harness.settings).by("booking_id", "oncehub", "support", ["B1"])["B1"]) == 1
    assert within(harness, START, None) == [["B1"]]


def test_more_keys_than_one_question_takes_are_all_found(
    either_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_KEYS_PER_QUERY", 3)
    load_bookings(either_harness, [booking_at(number, None) for number in range(8)])
    bookings = BookingsTable(either_harness.settings).by(
        "booking_id", "oncehub", "support", [f"B{number}" for number in range(9)]
    )
    assert sorted(bookings) == [f"B{number}" for number in range(8)]
    assert BookingsTable(either_harness.settings).by("booking_id", "oncehub", "support", []) == {}


def test_a_window_has_its_beginning_and_not_its_end_nor_what_is_gone(either_harness: ConsumerHarness) -> None:
    load_bookings(
        either_harness,
        [booking_at(number, moment(number)) for number in range(4)]
        + [booking_at(4, None), booking_at(5, moment(1), gone_at=START)],
    )
    assert within(either_harness, moment(1), moment(3)) == [["B1", "B2"]]
    assert within(either_harness, moment(1), None) == [["B1", "B2", "B3"]]
    assert within(either_harness, moment(9), None) == []


@pytest.mark.parametrize("count", [5, 6, 7])
def test_a_window_comes_in_parts_each_booking_once_though_many_start_at_one_time(
    either_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(stored, "_IDS_PER_PAGE", 3)
    load_bookings(either_harness, [booking_at(number, moment(number // 5)) for number in range(count)])
    parts = within(either_harness, START, START + timedelta(days=1))
    assert [booking for part in parts for booking in part] == [f"B{number}" for number in range(count)]
    assert max(map(len, parts)) == 3


def is_empty(settings: Settings) -> bool:
    reader = BookingsTable(settings)
    return not reader.by("booking_id", "oncehub", "support", ["B1"]) and not list(
        reader.within("starts_at", "oncehub", "support", START, None)
    )


def test_where_nothing_was_loaded_there_are_no_bookings(either_tree: Tree) -> None:
    assert is_empty(Settings.model_validate(either_tree))


def test_where_only_other_tables_were_loaded_there_are_no_bookings(either_harness: ConsumerHarness) -> None:
    with either_harness.warehouse.turn():
        either_harness.warehouse.load({"dead_letters": []})
    assert is_empty(either_harness.settings)


def test_a_file_that_another_program_writes_for_long_cannot_be_asked(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_bookings(harness, [FULL])
    reader = BookingsTable(harness.settings)
    monkeypatch.setattr(duckdb_file, "READER_SECONDS", 0.2)
    with (
        hold_file(harness, "writes"),
        pytest.raises(WarehouseUnavailable, match="is held by another program"),
    ):
        reader.by("booking_id", "oncehub", "support", ["B0"])
    assert reader.by("booking_id", "oncehub", "support", ["B0"]).keys() == {"B0"}


def test_a_file_that_another_program_writes_for_a_moment_is_waited_for(harness: ConsumerHarness) -> None:
    load_bookings(harness, [FULL])
    reader = BookingsTable(harness.settings)
    with ThreadPoolExecutor(1) as pool:
        with hold_file(harness, "writes"):
            future = pool.submit(reader.by, "booking_id", "oncehub", "support", ["B0"])
            wait([future], timeout=1)  # it would fail at once
        assert future.result().keys() == {"B0"}
