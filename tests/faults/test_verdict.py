"""Tests that the verdict sees each kind of failure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ingest.event import Cause
from ingest.simulator.account import Difference
from ingest.warehouse.gaps import Gap
from tests.faults.load import Deliveries
from tests.faults.verdict import Backlog, WarehouseRows, judge, judge_gaps

FIRST, SECOND = ("/bookeo/tours", "E1"), ("/bookeo/tours", "E2")
B1, B2 = ("bookeo", "tours", "B1"), ("bookeo", "tours", "B2")
DELIVERIES = Deliveries(frozenset({FIRST, SECOND}), frozenset({FIRST, SECOND}), distinct=2, given_up=0)
ROWS = WarehouseRows([FIRST, SECOND], [B1, B2], dead_letters=0)
NOTHING = Backlog(lag=0, spooled=0)


def faults(
    deliveries: Deliveries = DELIVERIES,
    rows: WarehouseRows = ROWS,
    backlog: Backlog = NOTHING,
    *wrong: Difference,
) -> dict[str, int]:
    return judge(deliveries, rows, wrong, backlog).faults()


def test_all_is_right_when_what_was_accepted_is_there_once() -> None:
    assert faults() == {}


def test_an_accepted_event_that_is_not_there_is_lost() -> None:
    assert faults(rows=replace(ROWS, events=[FIRST])) == {"lost": 1}


def test_two_accepted_webhooks_that_became_one_event_are_a_loss() -> None:
    assert faults(deliveries=replace(DELIVERIES, distinct=3)) == {"lost": 1}


def test_an_event_or_a_booking_that_is_there_twice_is_doubled() -> None:
    assert faults(rows=WarehouseRows([FIRST, SECOND, SECOND], [B1, B1, B2], dead_letters=0)) == {"doubled": 2}


def test_an_event_that_nobody_sent_is_invented() -> None:
    assert faults(rows=replace(ROWS, events=[FIRST, SECOND, ("/bookeo/tours", "E3")])) == {"invented": 1}


def test_a_webhook_that_was_given_up_is_not_lost_but_told() -> None:
    deliveries = Deliveries(frozenset({FIRST, SECOND}), frozenset({FIRST}), distinct=1, given_up=1)
    assert faults(deliveries=deliveries, rows=replace(ROWS, events=[FIRST])) == {"given_up": 1}


def test_a_webhook_that_nobody_answered_or_gave_up_is_told() -> None:
    deliveries = Deliveries(frozenset({FIRST, SECOND}), frozenset({FIRST}), distinct=1, given_up=0)
    assert faults(deliveries=deliveries) == {"unanswered": 1}


def test_a_booking_as_it_no_longer_is_counts_as_stale_and_one_that_is_not_there_as_missing() -> None:
    stale = [Difference("tours", "B1", column, "new", "old") for column in ("status", "starts_at")]
    missing = Difference("tours", "B2", "", "a booking", "")
    assert faults(DELIVERIES, ROWS, NOTHING, *stale, missing) == {"stale": 1, "missing": 1, "differences": 3}


def test_what_is_left_in_the_log_in_spools_or_among_dead_letters_is_told() -> None:
    assert faults(rows=replace(ROWS, dead_letters=1), backlog=Backlog(lag=2, spooled=3)) == {
        "lag": 2,
        "spooled": 3,
        "dead_letters": 1,
    }


def test_what_was_cut_from_the_log_before_it_was_loaded_is_counted_and_no_loss() -> None:
    deliveries = replace(
        DELIVERIES, cut=frozenset({FIRST, SECOND}), bookings={FIRST: ("tours", "B1"), SECOND: ("tours", "B2")}
    )
    rows = WarehouseRows([SECOND], [B2], dead_letters=0)
    stale, missing = (
        Difference("tours", "B2", "status", "new", "old"),
        Difference("tours", "B1", "", "a booking", ""),
    )
    assert faults(deliveries, rows, NOTHING, missing) == {}
    assert judge(deliveries, rows, [missing], NOTHING).cut == 1
    assert faults(deliveries, rows, NOTHING, missing, stale) == {"stale": 1, "differences": 1}


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)


GAP = Gap("1", "bookeo", "tours", NOON, NOON + 60 * A_SECOND, Cause.LOG_CHANGED, "", NOON, NOON, NOON)


def gap_faults(gap: Gap, *wrong: Difference) -> dict[str, int]:
    """Judge a gap of a minute from noon on; two events were cut that were delivered in it."""
    attempts = {
        FIRST: [(NOON - A_SECOND, NOON + A_SECOND)],
        SECOND: [(NOON, NOON), (NOON + 59 * A_SECOND, NOON + 90 * A_SECOND)],
    }
    judgement = judge(DELIVERIES, ROWS, (), NOTHING)
    return judge_gaps(judgement, {FIRST, SECOND}, attempts, [gap], wrong).faults()


def test_what_was_cut_has_to_be_in_a_gap_of_its_account_at_each_delivery() -> None:
    assert gap_faults(GAP) == {}
    assert gap_faults(replace(GAP, account="other")) == {"outside_gaps": 2}
    assert gap_faults(replace(GAP, until_at=NOON + 58 * A_SECOND)) == {"outside_gaps": 1}


def test_a_gap_has_to_be_closed_and_what_is_in_it_repaired() -> None:
    assert gap_faults(replace(GAP, closed_at=None)) == {"gaps_open": 1}
    assert gap_faults(GAP, Difference("tours", "B2", "", "a booking", "")) == {"not_repaired": 1}
