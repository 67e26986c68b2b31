"""Properties of the rule by which an hour is complete, of the census of a run, and of digests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.booking import Booking, BookingStatus
from ingest.spans import PeriodKind
from ingest.times import format_instant
from ingest.warehouse.completeness import HOUR, PROVEN, HourVerdict, Verdict, complete_until, hours_between
from receivers.completeness.census import Census
from receivers.completeness.digest import add, digest_of, digest_text, subtract
from receivers.completeness.periods import roll_up
from receivers.completeness.verdicts import (
    CLOCK_MARGIN,
    HourCount,
    RunEvidence,
    is_news,
    judge,
    reopened,
    unknown_hour,
)

START = datetime(2026, 5, 1, 9, tzinfo=UTC)
LAG = timedelta(minutes=1)
STORED = unknown_hour("oncehub", "support", START, START)
RUN = RunEvidence(
    run_id="R",
    began_at=START + HOUR + LAG + CLOCK_MARGIN,
    since=START,
    until=START + HOUR,
    lag=LAG,
    evidence_load="L",
    counts={START: HourCount(listed=2, digest=7)},
)

counts = st.builds(
    HourCount,
    listed=st.integers(2, 3),
    missing=st.integers(0, 1),
    repaired=st.integers(0, 1),
    unreadable=st.integers(0, 1),
    doubted=st.integers(0, 1),
    digest=st.integers(0, 3),
)
moments = st.integers(-90, 200).map(lambda minutes: START + timedelta(minutes=minutes))
runs = st.builds(
    RunEvidence,
    run_id=st.just("R"),
    began_at=moments,
    since=moments,
    until=moments,
    lag=st.sampled_from([timedelta(0), LAG, HOUR]),
    evidence_load=st.sampled_from([None, "L"]),
    counts=st.dictionaries(st.just(START), counts),
    unplaced=st.integers(0, 1),
    unsteady=st.lists(st.tuples(moments, moments), max_size=2),
    limits=st.sampled_from([None, "no-shows"]),
)


def booking(booking_id: str, minutes: float) -> Booking:
    version = format_instant(START + timedelta(minutes=minutes))
    return Booking(booking_id=booking_id, version=version, status=BookingStatus.CONFIRMED)


@given(runs, st.integers(0, 1))
def test_an_hour_is_complete_only_if_nothing_speaks_against_it(run: RunEvidence, unread: int) -> None:
    verdict = judge(run, STORED, unread=unread)
    count = run.counts.get(START, HourCount())
    if verdict.verdict is Verdict.COMPLETE:
        assert run.since <= START
        assert run.until >= START + HOUR
        assert run.began_at - run.lag > START + HOUR
        assert run.evidence_load
        assert not any([count.missing, count.unreadable, count.doubted, run.unplaced, unread, run.limits])
        assert not any(since < START + HOUR and until > START for since, until in run.unsteady)
    assert (verdict.proven_at is None) == (verdict.verdict is Verdict.OPEN) == (verdict.digest is None)
    assert verdict.held + verdict.missing == verdict.listed
    assert verdict.stated_at > STORED.stated_at


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({}, Verdict.COMPLETE, None),
        ({"counts": {}}, Verdict.COMPLETE, None),
        ({"scope": "of those"}, Verdict.COMPLETE, "of those"),
        ({"limits": "no list has no-shows"}, Verdict.UNPROVABLE, "no list has no-shows; every"),
        ({"counts": {START: HourCount(3, doubted=2)}}, Verdict.UNPROVABLE, "2 bookings here are not at"),
        (
            {"counts": {START: HourCount(3, missing=2)}},
            Verdict.INCOMPLETE,
            "2 of the listed bookings are not",
        ),
        ({"counts": {START: HourCount(unreadable=1)}}, Verdict.INCOMPLETE, "1 of the listed bookings cannot"),
        ({"unplaced": 1}, Verdict.INCOMPLETE, "1 bookings cannot be read, and may be of this hour"),
        (
            {"began_at": RUN.began_at - timedelta(seconds=1)},
            Verdict.OPEN,
            "too young: the vendor can be asked",
        ),
        ({"lag": 2 * LAG}, Verdict.OPEN, "too young"),
        ({"since": START + LAG}, Verdict.OPEN, "the vendor was not asked for the whole hour"),
        ({"until": START + LAG}, Verdict.OPEN, "the vendor was not asked for the whole hour"),
        ({"evidence_load": None}, Verdict.OPEN, "the warehouse was replaced while"),
        ({"unsteady": [(START - HOUR, START + LAG)]}, Verdict.OPEN, "bookings changed places"),
        ({"unsteady": [(START - HOUR, START)]}, Verdict.COMPLETE, None),
    ],
)
def test_each_verdict_has_its_reason(change: dict[str, Any], verdict: Verdict, reason: str | None) -> None:
    judged = judge(replace(RUN, **change), STORED)
    assert judged.verdict is verdict
    assert judged.reason == reason or str(judged.reason).startswith(str(reason))


def test_a_verdict_is_news_only_if_it_says_something_else() -> None:
    first = judge(RUN, STORED)
    later = replace(RUN, began_at=RUN.began_at + HOUR, run_id="R2", evidence_load="L2")
    assert is_news(first, None)
    assert not is_news(judge(later, first), first)
    assert is_news(judge(replace(later, counts={START: HourCount(3, digest=7)}), first), first)


def test_repaired_bookings_add_up_over_runs() -> None:
    found = replace(RUN, counts={START: HourCount(3, repaired=2)})
    assert judge(found, judge(found, STORED)).repaired == 4


def test_a_statement_made_while_a_run_went_on_is_later_than_its_verdict() -> None:
    known = judge(RUN, STORED)
    opened = reopened(known, "a fault", RUN.began_at + 2 * LAG)
    assert opened.verdict is Verdict.OPEN
    assert judge(replace(RUN, began_at=RUN.began_at + LAG), known).stated_at < opened.stated_at
    behind = reopened(known, "by a clock that is behind", START - HOUR)
    assert behind.stated_at > known.stated_at


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=5), st.randoms())
def test_a_digest_depends_on_what_is_in_the_set_and_not_on_the_order(
    versions: dict[str, str], random: object
) -> None:
    def total(pairs: list[tuple[str, str]]) -> int:
        digest = 0
        for pair in pairs:
            digest = add(digest, digest_of(*pair))
        return digest

    pairs = list(versions.items())
    shuffled = pairs.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert total(pairs) == total(shuffled)
    for pair in pairs:
        without = [other for other in pairs if other != pair]
        assert subtract(total(pairs), digest_of(*pair)) == total(without) != total(pairs)


def test_ids_and_versions_are_kept_apart_in_a_digest() -> None:
    assert digest_of("a", "bc") != digest_of("ab", "c")


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 180), st.booleans()), max_size=8))
def test_a_census_counts_the_last_listing_of_each_booking(listed: list[tuple[str, int, bool]]) -> None:
    census = Census(START)
    census.begin_window()
    for booking_id, minutes, is_held in listed:
        census.note(booking(booking_id, minutes), is_held=is_held)
    last = {booking_id: (minutes // 60, is_held, minutes) for booking_id, minutes, is_held in listed}
    for number in range(4):
        of_hour = [entry for entry in last.values() if entry[0] == number]
        count = census.counts.get(START + number * HOUR, HourCount())
        assert count.listed == len(of_hour)
        assert count.missing == sum(not is_held for _, is_held, _ in of_hour)
    expected = 0
    for booking_id, (_, _, minutes) in last.items():
        expected = add(expected, digest_of(booking_id, booking("", minutes).version))
    actual = 0
    for count in census.counts.values():
        actual = add(actual, count.digest)
    assert actual == expected


def test_what_was_loaded_later_is_no_longer_missing() -> None:
    census = Census(START)
    census.begin_window()
    census.note(booking("A", 1), is_held=False)
    census.note_repaired(booking("A", 0))  # another version
    assert census.counts[START].missing == 1
    census.note_repaired(booking("A", 1))
    census.note_repaired(booking("A", 1))
    assert census.counts[START] == HourCount(1, 0, 1, digest=census.counts[START].digest)


@pytest.mark.parametrize(("minutes", "is_shifted"), [(1, False), (70, True)])
def test_a_booking_that_changes_while_a_list_is_read_makes_it_unsteady(
    minutes: int, is_shifted: bool
) -> None:
    census = Census(START)
    census.begin_window()
    census.note(booking("A", 1), is_held=True)
    census.note_shifted(booking("A", minutes))
    census.note_shifted(booking("new", minutes))
    census.end_window(START, START + HOUR, open_ended=False)
    assert bool(census.unsteady) == is_shifted


def test_an_entry_without_a_time_may_be_of_any_hour() -> None:
    census = Census(START)
    census.note_unreadable(None)
    census.note_unreadable(START)
    census.note(replace_version(booking("A", 1), "unknown"), is_held=True)
    assert (census.unplaced, census.counts[START].unreadable) == (2, 1)


def replace_version(of: Booking, version: str) -> Booking:
    of.version = version
    return of


def test_complete_until_ends_at_the_first_hour_that_is_not() -> None:
    def verdict(hours: int, kind: Verdict = Verdict.COMPLETE) -> HourVerdict:
        return replace(STORED, hour=START + hours * HOUR, verdict=kind)

    assert complete_until([]) is None
    assert complete_until([verdict(0, Verdict.OPEN), verdict(1)]) is None
    assert complete_until([verdict(0), verdict(1), verdict(2, Verdict.INCOMPLETE)]) == START + 2 * HOUR
    assert complete_until([verdict(0), verdict(2)]) == START + HOUR
    assert complete_until([verdict(0, Verdict.UNPROVABLE), verdict(1)], PROVEN) == START + 2 * HOUR


def test_only_whole_hours_are_judged() -> None:
    half = timedelta(minutes=30)
    assert list(hours_between(START, START + HOUR)) == [START]
    assert list(hours_between(START + half, START + 2 * HOUR + half)) == [START + HOUR]
    assert list(hours_between(START + half, START + HOUR + half)) == []


def test_hours_are_rolled_up_with_the_digest_of_all_their_bookings() -> None:
    complete = replace(STORED, verdict=Verdict.COMPLETE, listed=1)
    days = [
        replace(complete, hour=START + number * HOUR, digest=digest_text(digest_of(f"B{number}", "1")))
        for number in range(30)
    ]
    first, second = roll_up(days, PeriodKind.DAY)
    assert (first.period, first.listed, second.listed) == (f"{START:%Y-%m-%d}", 15, 15)
    [month] = roll_up(days, PeriodKind.MONTH)
    everything = sum(digest_of(f"B{number}", "1") for number in range(30)) % (1 << 128)
    assert (month.hours, month.digest) == ({"complete": 30}, digest_text(everything))
    [unproven] = roll_up([*days, replace(STORED, hour=START + 30 * HOUR)], PeriodKind.MONTH)
    assert (unproven.hours, unproven.digest) == ({"complete": 30, "open": 1}, None)
