"""Which of two states is missing, and how a span of time is cut."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.booking import Booking, BookingStatus, StoredBooking
from ingest.clock import UNCHECKED_SKEW
from ingest.times import format_instant
from ingest.vendors.rest import Window
from receivers.reconcile.compare import Verdict, compare, cut_windows, superseded_version, widen

NOON = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
COLUMNS = ("status", "starts_at", "ends_at")
HERE = Booking(
    booking_id="B1", version="2026-06-01T10:00:00.000000Z", status=BookingStatus.CONFIRMED, starts_at=NOON
)
OLD = StoredBooking(HERE, NOON - timedelta(days=1))
LAG = timedelta(minutes=1)
DOUBTED_BEFORE = NOON - LAG


def verdict(booking: Booking, stored: StoredBooking | None) -> Verdict:
    return compare(booking, stored, COLUMNS, NOON, LAG)


def test_what_the_warehouse_lacks_is_missed() -> None:
    assert verdict(HERE, None) is Verdict.MISSED
    assert superseded_version(HERE, None, NOON) == ""


def test_what_the_warehouse_has_older_is_missed_and_needs_no_more_than_its_version() -> None:
    booking = replace(HERE, version="2026-06-01T10:00:00.000001Z")
    assert verdict(booking, OLD) is Verdict.MISSED
    assert superseded_version(booking, OLD, NOON) == ""


def test_the_same_state_is_matched() -> None:
    assert verdict(HERE, OLD) is Verdict.MATCHED


@pytest.mark.parametrize("version", [HERE.version, "2026-06-01T09:00:00.000000Z"])
def test_another_state_whose_version_is_not_above_the_stored_one_is_missed_and_supersedes_it(
    version: str,
) -> None:
    booking = replace(HERE, version=version, status=BookingStatus.CANCELLED)
    assert verdict(booking, OLD) is Verdict.MISSED
    assert superseded_version(booking, OLD, NOON) == HERE.version


def test_a_row_of_the_future_is_doubted_only_as_far_as_the_time_is_known() -> None:
    ahead = NOON + timedelta(minutes=80)
    row = StoredBooking(replace(HERE, version=format_instant(ahead), updated_at=ahead), ahead)
    assert verdict(row.booking, row) is Verdict.MISSED
    unchecked = compare(row.booking, row, COLUMNS, NOON, LAG, skew=UNCHECKED_SKEW)
    assert unchecked is Verdict.MATCHED


def test_a_row_younger_than_the_vendors_lag_is_left_alone() -> None:
    young = StoredBooking(HERE, DOUBTED_BEFORE)
    assert verdict(replace(HERE, status=BookingStatus.CANCELLED), young) is Verdict.NEWER_HERE
    assert verdict(replace(HERE, version="2026-06-02T00:00:00.000000Z"), young) is Verdict.MISSED


def test_what_the_vendor_changed_so_lately_that_its_webhook_may_be_on_the_way_is_not_missed_yet() -> None:
    assert verdict(replace(HERE, updated_at=DOUBTED_BEFORE), None) is Verdict.YOUNG
    assert (
        verdict(replace(HERE, updated_at=DOUBTED_BEFORE - timedelta(microseconds=1)), None) is Verdict.MISSED
    )


def test_a_price_finer_than_the_warehouse_holds_is_the_one_that_was_rounded() -> None:
    stored = StoredBooking(replace(HERE, price=Decimal("0.300000000")), OLD.loaded_at)
    booking = replace(HERE, price=Decimal("0.30000000000000004"))
    assert compare(booking, stored, ("price",), NOON, LAG) is Verdict.MATCHED
    assert (
        compare(replace(HERE, price=Decimal("0.300000001")), stored, ("price",), NOON, LAG) is Verdict.MISSED
    )


def test_an_older_version_of_the_same_state_is_matched() -> None:
    assert verdict(replace(HERE, version="2026-06-01T09:00:00.000000Z"), OLD) is Verdict.MATCHED


def test_columns_that_only_one_side_tells_are_not_compared() -> None:
    assert verdict(replace(HERE, customer_phone="+12025550100"), OLD) is Verdict.MATCHED


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("version", [HERE.version, "2026-06-01T09:00:00.000000Z"])
def test_what_this_record_does_not_tell_is_not_compared(column: str, version: str) -> None:
    other: dict[str, Any] = {"status": BookingStatus.CANCELLED, "starts_at": None, "ends_at": NOON}
    booking = replace(HERE, version=version, **{column: other[column]})
    assert verdict(booking, OLD) is Verdict.MISSED
    assert verdict(replace(booking, untold=frozenset({column})), OLD) is Verdict.MATCHED


def test_what_only_an_older_message_told_is_compared_all_the_same() -> None:
    stored = StoredBooking(
        replace(
            HERE, column_versions={"starts_at": "2026-05-01T10:00:00.000000Z/2026-05-01T10:00:00.000000Z"}
        ),
        OLD.loaded_at,
    )
    assert verdict(HERE, stored) is Verdict.MATCHED
    assert verdict(replace(HERE, starts_at=None), stored) is Verdict.MISSED


def test_what_was_marked_as_gone_and_is_listed_again_is_missed() -> None:
    assert verdict(HERE, StoredBooking(replace(HERE, gone_at=NOON), OLD.loaded_at)) is Verdict.MISSED


SPANS = st.timedeltas(timedelta(seconds=1), timedelta(days=800))


@given(SPANS, st.timedeltas(timedelta(hours=6), timedelta(days=31)))
def test_windows_cover_the_span_without_a_hole_and_none_is_too_long(
    span: timedelta, longest: timedelta
) -> None:
    windows = list(cut_windows(NOON - span, NOON, longest, open_ended=False))
    assert windows[0].since == NOON - span
    assert windows[-1].until == NOON
    assert all(window.until == following.since for window, following in itertools.pairwise(windows))
    assert all(
        window.until is not None and timedelta(0) < window.until - window.since <= longest
        for window in windows
    )


@given(SPANS)
def test_the_last_window_has_no_end_where_the_future_counts(span: timedelta) -> None:
    *before, last = cut_windows(NOON - span, NOON, timedelta(days=31), open_ended=True)
    assert last.until is None
    assert all(window.until for window in before)


def test_a_window_is_asked_for_with_an_overlap_on_both_sides() -> None:
    minute = timedelta(minutes=1)
    assert widen(Window(NOON, NOON + minute), minute) == Window(NOON - minute, NOON + 2 * minute)
    assert widen(Window(NOON), minute) == Window(NOON - minute)


def test_a_time_of_change_that_has_not_come_is_missed_unless_rest_tells_it_too() -> None:
    far = datetime(2999, 1, 1, tzinfo=UTC)
    stored = StoredBooking(replace(HERE, updated_at=far), OLD.loaded_at)
    assert verdict(replace(HERE, updated_at=NOON - timedelta(days=2)), stored) is Verdict.MISSED
    assert verdict(replace(HERE, updated_at=far), stored) is Verdict.MATCHED
    assert verdict(HERE, stored) is Verdict.MATCHED
