"""Tests of an event id that comes for two bookings: both events are stored, and both bookings change."""

from dataclasses import replace

import pytest

from tests.consumers.rig import Rig
from tests.consumers.samples import sample

ROWS = "select id, subject from booking_events order by subject"


@pytest.mark.parametrize("apart", [False, True], ids=["in one load", "in two loads"])
def test_one_event_id_for_two_bookings_is_two_rows_and_changes_both(either_rig: Rig, apart: bool) -> None:
    first, second = sample(1, "B1"), sample(1, "B2")
    if apart:
        either_rig.load(first)
    either_rig.load(*([second] if apart else [first, second]))
    either_rig.load(first, second)
    assert [(row["id"], row["subject"]) for row in either_rig.rows(ROWS)] == [("E1", "B1"), ("E1", "B2")]
    assert either_rig.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]


def test_one_payload_that_two_urls_explain_differently_counts_twice(rig: Rig) -> None:
    created = sample(1, "B1")
    rig.load(created, replace(created, subject="B2"), replace(created, type="oncehub.booking.canceled"))
    assert rig.column("select count(*) from booking_events") == [3]
