"""Tests that the verdict sees each kind of failure."""

from dataclasses import replace

from ingest.simulator.account import Difference
from tests.faults.load import Told
from tests.faults.verdict import Found, Left, judge

ONE, TWO = ("/bookeo/tours", "E1"), ("/bookeo/tours", "E2")
B1, B2 = ("bookeo", "tours", "B1"), ("bookeo", "tours", "B2")
TOLD = Told(frozenset({ONE, TWO}), frozenset({ONE, TWO}), distinct=2, given_up=0)
FOUND = Found([ONE, TWO], [B1, B2], dead_letters=0)
NOTHING = Left(lag=0, spooled=0)


def faults(
    told: Told = TOLD, found: Found = FOUND, left: Left = NOTHING, *wrong: Difference
) -> dict[str, int]:
    return judge(told, found, wrong, left).faults()


def test_all_is_right_when_what_was_accepted_is_there_once() -> None:
    assert faults() == {}


def test_an_accepted_event_that_is_not_there_is_lost() -> None:
    assert faults(found=replace(FOUND, events=[ONE])) == {"lost": 1}


def test_two_accepted_webhooks_that_became_one_event_are_a_loss() -> None:
    assert faults(told=replace(TOLD, distinct=3)) == {"lost": 1}


def test_an_event_or_a_booking_that_is_there_twice_is_doubled() -> None:
    assert faults(found=Found([ONE, TWO, TWO], [B1, B1, B2], dead_letters=0)) == {"doubled": 2}


def test_an_event_that_nobody_sent_is_invented() -> None:
    assert faults(found=replace(FOUND, events=[ONE, TWO, ("/bookeo/tours", "E3")])) == {"invented": 1}


def test_a_webhook_that_was_given_up_is_not_lost_but_told() -> None:
    told = Told(frozenset({ONE, TWO}), frozenset({ONE}), distinct=1, given_up=1)
    assert faults(told=told, found=replace(FOUND, events=[ONE])) == {"given_up": 1}


def test_a_webhook_that_nobody_answered_or_gave_up_is_told() -> None:
    told = Told(frozenset({ONE, TWO}), frozenset({ONE}), distinct=1, given_up=0)
    assert faults(told=told) == {"unanswered": 1}


def test_a_booking_as_it_no_longer_is_counts_as_stale_and_one_that_is_not_there_as_missing() -> None:
    stale = [Difference("tours", "B1", column, "new", "old") for column in ("status", "starts_at")]
    missing = Difference("tours", "B2", "", "a booking", "")
    assert faults(TOLD, FOUND, NOTHING, *stale, missing) == {"stale": 1, "missing": 1, "differences": 3}


def test_what_is_left_in_the_log_in_spools_or_among_dead_letters_is_told() -> None:
    assert faults(found=replace(FOUND, dead_letters=1), left=Left(lag=2, spooled=3)) == {
        "lag": 2,
        "spooled": 3,
        "dead_letters": 1,
    }


def test_what_was_cut_from_the_log_before_it_was_loaded_is_counted_and_no_loss() -> None:
    told = replace(TOLD, cut=frozenset({ONE, TWO}), bookings={ONE: ("tours", "B1"), TWO: ("tours", "B2")})
    found = Found([TWO], [B2], dead_letters=0)
    stale, missing = (
        Difference("tours", "B2", "status", "new", "old"),
        Difference("tours", "B1", "", "a booking", ""),
    )
    assert faults(told, found, NOTHING, missing) == {}
    assert judge(told, found, [missing], NOTHING).cut == 1
    assert faults(told, found, NOTHING, missing, stale) == {"stale": 1, "differences": 1}
