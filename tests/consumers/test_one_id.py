"""Tests of an event id that comes for two bookings: both events are stored, and both bookings change."""

from dataclasses import replace

import pytest

from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import sample

ROWS = "select id, subject from booking_events order by subject"


@pytest.mark.parametrize("apart", [False, True], ids=["in one load", "in two loads"])
def test_one_event_id_for_two_bookings_is_two_rows_and_changes_both(
    either_harness: ConsumerHarness, apart: bool
) -> None:
    first, second = sample(1, "B1"), sample(1, "B2")
    if apart:
        either_harness.load(first)
    either_harness.load(*([second] if apart else [first, second]))
    either_harness.load(first, second)
    assert [(row["id"], row["subject"]) for row in either_harness.rows(ROWS)] == [("E1", "B1"), ("E1", "B2")]
    assert either_harness.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]


def test_one_payload_that_two_urls_explain_differently_counts_twice(harness: ConsumerHarness) -> None:
    created = sample(1, "B1")
    harness.load(created, replace(created, subject="B2"), replace(created, type="oncehub.booking.canceled"))
    assert harness.column("select count(*) from booking_events") == [3]
