"""Gaps: found once, joined, closed when their hours are proven, whatever is read twice."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.event import Cause
from ingest.warehouse.completeness import HOUR, HourVerdict, Verdict
from ingest.warehouse.gaps import Gap
from receivers.completeness.gaps import (
    GapBook,
    Suspicion,
    askable_at,
    describe_wait,
    gap_hours,
    unproven_hours,
)

TEN = datetime(2026, 6, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LAG = timedelta(minutes=1)
SALES = "/calendly/sales"


def at(minutes: float) -> datetime:
    """Return the instant so many minutes after ten o'clock."""
    return TEN + minutes * MINUTE


def suspicion(
    since: float,
    until: float | None,
    cause: Cause = Cause.UNAVAILABLE,
    *,
    known: float | None = None,
    key: str = "",
) -> Suspicion:
    """Return a suspicion, in minutes after ten o'clock."""
    known_at = at(known if known is not None else since if until is None else until)
    end = None if until is None else at(until)
    return Suspicion(SALES, cause, at(since), end, known_at, key or f"{since}", "for the test")


def spans(book: GapBook) -> list[tuple[float, float | None]]:
    """Return the open gaps, in minutes after ten o'clock."""
    return [
        ((gap.from_at - TEN) / MINUTE, None if gap.until_at is None else (gap.until_at - TEN) / MINUTE)
        for gap in book.open()
    ]


def close(book: GapBook, minute: float) -> None:
    """Close all open gaps at a minute after ten o'clock."""
    for gap in book.open():
        book.update(gap, at(minute), closed_at=at(minute), waits_for=None)


def verdict(hour: datetime, kind: Verdict, reason: str | None = None, missing: int = 0) -> HourVerdict:
    return HourVerdict("calendly", "sales", hour, kind, TEN, reason, missing=missing)


def closed(book: GapBook, minutes: float) -> None:
    """Close all gaps."""
    for gap in book.open():
        book.update(gap, at(minutes), closed_at=at(minutes), waits_for=None)


def test_what_is_read_twice_is_one_gap_also_once_it_is_closed() -> None:
    book = GapBook()
    seen = suspicion(0, 5)
    assert book.add(seen, at(6))
    assert book.add(seen, at(7)) is None
    closed(book, 70)
    assert book.add(seen, at(80)) is None
    assert GapBook([*book.of_cause(SALES, Cause.UNAVAILABLE)]).add(seen, at(90)) is None, "after a restart"
    assert spans(book) == []


def test_suspicions_of_one_cause_that_touch_are_one_gap_and_of_another_cause_are_not() -> None:
    book = GapBook()
    for minute in range(0, 30, 3):
        book.add(suspicion(minute, minute + 1), at(minute + 2))
    assert spans(book) == [(0, 28)]
    book.add(suspicion(3, 4, Cause.GIVEN_UP), at(40))
    book.add(suspicion(50, 51), at(52))
    assert sorted(spans(book)) == [(0, 28), (3, 4), (50, 51)]


def test_what_lasts_has_no_end_until_one_is_known() -> None:
    book = GapBook()
    book.add(suspicion(0, None, Cause.RECEIVER_DOWN), at(3))
    assert book.add(suspicion(0, None, Cause.RECEIVER_DOWN), at(8)) is None
    assert spans(book) == [(0, None)]
    assert book.add(suspicion(0, 12, Cause.RECEIVER_DOWN), at(12))
    assert spans(book) == [(0, 12)]
    assert book.add(suspicion(0, 12, Cause.RECEIVER_DOWN), at(13)) is None


def test_what_lasts_is_ended_by_itself_alone() -> None:
    book = GapBook()
    first, second = (suspicion(since, None, Cause.RECEIVER_DOWN) for since in (0, 20))
    ended = suspicion(0, 18, Cause.RECEIVER_DOWN)
    for seen, minute in ((first, 3), (ended, 18), (second, 23), (ended, 24), (second, 25)):
        book.add(seen, at(minute))
    assert spans(book) == [(0, 18), (20, None)]
    assert book.add(suspicion(30, 31, Cause.RECEIVER_DOWN), at(32)) is None, "it is in the one that lasts"


def test_what_becomes_known_after_a_gap_was_closed_is_another_one() -> None:
    book = GapBook()
    book.add(suspicion(-100, 0, Cause.GIVEN_UP, key="first"), at(1))
    closed(book, 65)
    assert book.add(suspicion(-90, -10, Cause.GIVEN_UP, known=60, key="late"), at(70)) is None
    assert book.add(suspicion(-90, -10, Cause.GIVEN_UP, known=80, key="new"), at(81))
    assert spans(book) == [(-90, -10)]


def test_times_of_a_clock_that_was_ahead_are_brought_back() -> None:
    book = GapBook()
    year = 365 * 24 * 60
    gap = book.add(suspicion(year, year + 5), at(0))
    assert gap
    assert (gap.from_at, gap.until_at) == (at(0) - timedelta(days=31), at(0))


def test_the_latest_statement_of_a_gap_holds() -> None:
    book = GapBook()
    gap = book.add(suspicion(0, 5), at(6))
    assert gap
    later = replace(gap, missed=3, stated_at=at(9))
    book.restate(later)
    book.restate(gap)
    assert book.get(gap.id).missed == 3


def test_only_what_differs_is_stated_again_and_always_later() -> None:
    book = GapBook()
    gap = book.add(suspicion(0, 5), at(6))
    assert gap
    book.note_stated([gap])
    assert book.changed() == []
    book.update(gap, at(7), waits_for=gap.waits_for)
    assert book.changed() == []
    clock_set_back = at(-30)
    changed = book.update(gap, clock_set_back, waits_for="something")
    assert changed.stated_at > gap.stated_at
    book.note_stated([gap])
    assert book.changed() == [changed], "what changed while it was appended is appended again"


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [(10, 20, [0]), (2, 20, [-1, 0]), (10, 60, [0]), (10, 61, [0, 1]), (55, None, [0, 1, 2])],
)
def test_its_hours_are_those_of_what_may_be_missing(
    since: float, until: float | None, hours: Sequence[int]
) -> None:
    gap = opened(since, until)
    assert gap_hours(gap, at(130)) == [TEN + number * HOUR for number in hours]


def opened(since: float, until: float | None, cause: Cause = Cause.UNAVAILABLE) -> Gap:
    gap = GapBook().add(suspicion(since, until, cause), at(130))
    assert gap
    return gap


def test_it_is_closed_when_each_of_its_hours_is_proven_and_says_what_it_waits_for_until_then() -> None:
    gap = opened(50, 70)
    hours = gap_hours(gap, at(200))
    verdicts = {hours[0]: verdict(hours[0], Verdict.COMPLETE)}

    def wait() -> str | None:
        return describe_wait(gap, unproven_hours(gap, hours, verdicts), verdicts, LAG)

    assert wait() == "a comparison with the vendor of 2026-06-01 11:00 UTC, from 2026-06-01 12:01:10 UTC on"
    verdicts[hours[1]] = verdict(hours[1], Verdict.INCOMPLETE, "2 of the listed bookings are missing", 2)
    assert wait() == "2026-06-01 11:00 UTC: 2 of the listed bookings are missing"
    verdicts[hours[1]] = verdict(hours[1], Verdict.UNPROVABLE, "no list has no-shows")
    assert wait() is None


def test_what_lasts_waits_for_its_end_even_if_all_is_proven() -> None:
    gap = opened(0, None, Cause.RECEIVER_DOWN)
    assert "a receiver to start" in (describe_wait(gap, [], {}, LAG) or "")
    assert askable_at(gap, LAG) == gap.found_at, "and is compared at once"
    assert askable_at(opened(0, 5), LAG) == at(6) + timedelta(seconds=10)


minutes = st.integers(0, 500)


@given(
    st.lists(st.tuples(minutes, st.integers(0, 60)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_in_whatever_order_and_however_often_suspicions_come_their_gaps_cover_them_and_nothing_twice(
    drawn: Sequence[tuple[int, int]], order: random.Random
) -> None:
    suspicions = [suspicion(since, since + length, known=1000) for since, length in drawn]
    book = GapBook()
    shuffled = [*suspicions, *suspicions]
    order.shuffle(shuffled)
    for seen in shuffled:
        book.add(seen, at(1001))
    for seen in suspicions:
        assert any(
            gap.from_at <= seen.since and gap.until_at and seen.until and seen.until <= gap.until_at
            for gap in book.open()
        )
    assert all(book.add(seen, at(1002)) is None for seen in suspicions)


def test_a_closed_gap_is_open_again_when_its_cause_lasted_longer_than_was_known() -> None:
    book = GapBook()
    spool = suspicion(0, 10, Cause.SPOOL_LOST, key="spool")
    book.add(spool, at(10))
    close(book, 30)
    assert book.add(spool, at(40)) is None
    assert book.add(replace(spool, until=at(60), known_at=at(60)), at(60))
    assert spans(book) == [(0, 60)]
    assert len(book.of_cause(SALES, Cause.SPOOL_LOST)) == 1
