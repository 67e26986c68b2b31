"""Tests of the comparison with a list that somebody exported from the vendor."""

from datetime import UTC, datetime, timedelta

import pytest

from ingest.times import format_instant
from receivers.completeness.comparison import compare_export

CHANGED = datetime(2026, 5, 1, 9, 30, 20, 400_000, UTC)
HELD = [("A", f"{format_instant(CHANGED)}/{format_instant(CHANGED)}"), ("B", format_instant(CHANGED))]


def test_what_is_missing_here_and_what_is_only_here_is_named() -> None:
    comparison = compare_export(HELD, {"A": None, "C": None})
    assert (comparison.missing, comparison.only_here, comparison.is_complete) == (["C"], ["B"], False)
    assert comparison.digest_here != comparison.digest_there


@pytest.mark.parametrize(
    ("exported", "is_older"),
    [
        (CHANGED, False),
        (CHANGED.replace(microsecond=0), False),
        (CHANGED.replace(second=0, microsecond=0), False),
        (CHANGED - timedelta(hours=1), False),
        (CHANGED.replace(microsecond=900_000), False),  # fractions are not the same everywhere
        (CHANGED + timedelta(seconds=2), True),
        (CHANGED + timedelta(minutes=1), True),
    ],
)
def test_a_booking_is_older_here_if_the_export_has_a_later_change(exported: datetime, is_older: bool) -> None:
    comparison = compare_export(HELD, {"A": exported, "B": CHANGED})
    assert comparison.older == (["A"] if is_older else [])
    assert comparison.is_complete is not is_older


def test_times_that_are_cut_to_the_minute_here_are_compared_by_minutes() -> None:
    held = [("A", format_instant(CHANGED.replace(second=0, microsecond=0)))]
    assert compare_export(held, {"A": CHANGED}).is_complete
    assert not compare_export(held, {"A": CHANGED + timedelta(minutes=1)}).is_complete


@pytest.mark.parametrize("exported", [{"A": None, "B": None}, {"B": CHANGED, "A": CHANGED}])
def test_the_same_bookings_have_the_same_digest(exported: dict[str, datetime | None]) -> None:
    comparison = compare_export(HELD, exported)
    assert comparison.digest_here == comparison.digest_there
    assert comparison.is_complete
    assert compare_export([], exported).missing == list(exported)


def test_an_unreadable_version_is_older_than_any() -> None:
    assert compare_export([("A", "?")], {"A": CHANGED}).older == ["A"]
