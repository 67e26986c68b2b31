"""What shows that deliveries may be missing: signs of receivers' lives, notes, silence, clocks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import PayloadError
from ingest.event import ALIVE, Cause, Event, build_loss_note
from ingest.rhythm import Rhythm
from ingest.times import format_instant
from receivers.completeness.causes import (
    Downtime,
    ReceiverLife,
    for_sources,
    read_note,
    suspect_clock,
    suspect_downtime,
    suspect_silence,
)

TEN = datetime(2026, 6, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SALES, SALON = "/calendly/sales", "/appointedd/salon"


def at(minutes: float) -> datetime:
    return TEN + minutes * MINUTE


def sign(
    minutes: float,
    state: str = "runs",
    *,
    since: float | None = None,
    spool: str = "",
    refused: Mapping[str, float] | None = None,
) -> Event:
    """Return a sign of life, a minute after the one before. `refused` says since when before it."""
    begin = minutes if state == "started" else minutes - 1 if since is None else since
    unavailable = {
        source: [
            {"count": 1, "since": format_instant(at(minutes - ago)), "until": format_instant(at(minutes))}
        ]
        for source, ago in (refused or {}).items()
    }
    data = {"state": state, "since": format_instant(at(begin)), "spool": spool, "unavailable": unavailable}
    return Event(
        id=f"{minutes}",
        source="/ingest/receiver",
        type=ALIVE,
        subject="one",
        time=at(minutes),
        received_at=at(minutes),
        data=orjson.dumps(data),
    )


def life(*signs: Event) -> ReceiverLife:
    lives = ReceiverLife()
    for each in signs:
        lives.add(each)
    return lives


def down(lives: ReceiverLife, now: float) -> list[tuple[float, float | None]]:
    """Return downtimes in minutes after ten o'clock."""
    return [
        ((downtime.since - TEN) / MINUTE, None if downtime.until is None else (downtime.until - TEN) / MINUTE)
        for downtime in lives.downtimes(at(now))
    ]


def test_a_receiver_that_runs_is_never_down_and_one_that_stopped_is_until_the_next_starts() -> None:
    running = [sign(0, "started"), *(sign(minute) for minute in range(1, 10))]
    assert down(life(*running), 10) == []
    stopped = [*running, sign(9.5, "stopped", since=9)]
    assert down(life(*stopped), 10) == [], "it may be starting again"
    assert down(life(*stopped), 13) == [(9.5, None)]
    assert down(life(*stopped, sign(20, "started")), 20.5) == [(9.5, 20)]


def test_one_that_was_killed_was_down_since_its_last_sign() -> None:
    killed = [sign(0, "started"), sign(1), sign(2), sign(3, "started"), sign(4)]
    assert down(life(*killed), 5) == [(2, 3)]


def test_while_another_receiver_runs_nothing_is_down() -> None:
    first = [sign(0, "started"), *(sign(minute) for minute in range(1, 5)), sign(4.5, "stopped", since=4)]
    second = [sign(4.2, "started"), *(sign(4.2 + minute) for minute in range(1, 5))]
    assert down(life(*first, *second), 9) == []


def test_one_that_was_frozen_did_not_run_meanwhile() -> None:
    assert down(life(sign(0, "started"), sign(1), sign(30, since=30), sign(31)), 32) == [(1, 30)]


def test_signs_of_a_clock_that_was_ahead_prove_nothing() -> None:
    lives = life(sign(0, "started"), sign(1), sign(301), sign(302))
    assert down(lives, 10) == [(1, None)]
    for minute in range(10, 13):
        lives.add(sign(minute))
    assert down(lives, 13) == [(1, 9)]


@given(
    st.permutations([sign(0, "started"), sign(1), sign(2), sign(5, "started"), sign(6), sign(6, "started")])
)
def test_the_order_in_which_signs_are_read_does_not_matter(signs: Sequence[Event]) -> None:
    assert down(life(*signs, *signs), 7) == [(2, 5)]


def test_503s_are_told_by_source_and_those_without_one_are_everybodys() -> None:
    refused = ReceiverLife().add(sign(10, refused={SALES: 3, "": 1}))
    everybody = for_sources(refused, [SALES, SALON])
    assert [(each.source, each.since, each.until) for each in everybody] == [
        (SALES, at(7), at(10)),
        (SALES, at(9), at(10)),
        (SALON, at(9), at(10)),
    ]
    assert {each.cause for each in everybody} == {Cause.UNAVAILABLE}
    assert len({each.key for each in refused}) == 2


def test_a_spool_that_does_not_come_back_may_have_taken_deliveries_along() -> None:
    gone = life(sign(0, "started", spool="a"), sign(1, spool="a"), sign(1, spool="b"), sign(2, spool="b"))
    assert gone.lost_spools(at(10)) == []
    lives = life(
        *(sign(minute, spool="b") for minute in range(70)), sign(0, "started", spool="a"), sign(1, spool="a")
    )
    (first,), (second,) = lives.lost_spools(at(20)), lives.lost_spools(at(70))
    assert [(each.since, each.until) for each in (first, second)] == [(at(1), at(11)), (at(1), at(61))]
    assert first.key == second.key


@pytest.mark.parametrize("last", [sign(30, "stopped", spool="a", since=1), sign(65, "started", spool="a")])
def test_a_spool_whose_receiver_stopped_or_came_back_is_not_lost(last: Event) -> None:
    assert life(sign(0, "started", spool="a"), sign(1, spool="a"), last).lost_spools(at(70)) == []


def test_a_spool_that_is_here_and_can_be_read_is_not_lost_although_no_receiver_runs() -> None:
    gone = life(sign(0, "started", spool="a"), sign(1, spool="a"), sign(0, "started", spool="b"))
    assert {each.key.split()[0] for each in gone.lost_spools(at(20), lambda: "a")} == {"b"}


def test_what_a_sign_shows_to_have_waited_in_a_spool_was_received_before_the_log_had_it() -> None:
    lives = life()
    lives.add(sign(3), at(3.5))
    assert lives.received_since(at(2)) == at(2)
    for minutes in (10, 11):
        lives.add(sign(minutes), at(50))
    assert lives.received_since(at(40)) == at(9), "signs of it are a minute apart"
    assert lives.received_since(at(51)) == at(51), "that had waited before"
    lives.forget(at(50) + timedelta(days=32))
    assert lives.received_since(at(40)) == at(40)


def test_receivers_and_spools_are_forgotten_once_nothing_more_can_be_said_of_them() -> None:
    def signs_of(name: str, *states: str) -> list[Event]:
        signs = [sign(minute, state, spool=name) for minute, state in enumerate(states)]
        return [replace(each, subject=name) for each in signs]

    killed, stopped = signs_of("killed", "started", "runs"), signs_of("stopped", "started", "stopped")
    lives = life(*killed, *stopped)
    (told,) = lives.killed(at(5))
    lives.forget(at(3))
    assert lives.killed(at(5)) == [told], "it may be slow"
    lives.forget(at(5))
    assert lives.killed(at(5)) == []
    assert len(lives.lost_spools(at(1445))) == 1, "a spool may still come back"
    lives.forget(at(1445))
    assert lives.lost_spools(at(1445)) == []
    for each in (*killed, *stopped):
        lives.add(each)
    assert lives.killed(at(5)) == [told], "it is the same when it is read again"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"state": "runs", "since": "yesterday", "spool": "", "unavailable": {}}']
)
def test_what_is_no_sign_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError):
        ReceiverLife().add(replace(sign(0), data=data))


def test_a_note_says_since_when_or_it_is_as_long_as_a_run_looks_back() -> None:
    lookback = timedelta(days=2)
    known = read_note(build_loss_note(SALES, TEN, cause=Cause.LOG_DELETED, since=at(-30)), lookback)
    assert (known.cause, known.since, known.until) == (Cause.LOG_DELETED, at(-30), TEN)
    unknown = read_note(build_loss_note(SALES, TEN, cause=Cause.GIVEN_UP), lookback)
    assert (unknown.cause, unknown.since) == (Cause.GIVEN_UP, TEN - lookback)
    assert read_note(build_loss_note(SALES, TEN, cause=Cause.GIVEN_UP), lookback, at(-9999)) == unknown
    earlier_release = replace(build_loss_note(SALES, TEN, cause=Cause.GIVEN_UP), data=b'{"reported_at": ""}')
    assert read_note(earlier_release, lookback).cause is Cause.GIVEN_UP
    for data in (b"", b'{"cause": "of another release"}', b"[]"):
        with pytest.raises(PayloadError):
            read_note(replace(earlier_release, data=data), lookback)


def test_a_log_of_which_all_may_be_lost_is_compared_since_its_account_was_first_asked_for() -> None:
    lookback, first = timedelta(days=2), TEN - timedelta(days=9)
    note = build_loss_note(SALES, TEN, cause=Cause.WAREHOUSE_RESTORED)
    assert read_note(note, lookback, first).since == first
    assert read_note(note, lookback, at(-1)).since == TEN - lookback
    assert read_note(note, lookback, TEN - timedelta(days=99)).since == TEN - timedelta(days=31)
    known = build_loss_note(SALES, TEN, cause=Cause.WAREHOUSE_RESTORED, since=at(-30))
    assert read_note(known, lookback, first).since == at(-30)


def test_a_downtime_is_one_suspicion_before_and_after_its_end() -> None:
    lasting, ended = (suspect_downtime(Downtime(TEN, until)) for until in (None, at(7)))
    assert (lasting.key, lasting.until) == (ended.key, None)
    assert ended.until == at(7)


def test_a_silence_begins_with_the_last_delivery_or_when_a_comparison_last_found_all() -> None:
    rhythm = Rhythm([60.0] * 168, weeks=8, group=1.0)
    found = suspect_silence(SALES, rhythm, TEN, at(-60), at(60))
    assert found
    assert (found.since, found.until, found.cause) == (TEN, None, Cause.SILENCE)
    assert found.detail == "nothing came for 1 h, in which 60 deliveries are usual"
    assert suspect_silence(SALES, rhythm, TEN, at(59), at(60)) is None
    assert suspect_silence(SALES, None, TEN, TEN, at(60)) is None


def test_a_clock_is_wrong_beyond_what_clocks_differ_by() -> None:
    assert suspect_clock(SALES, None, TEN, at(5)) is None
    assert suspect_clock(SALES, timedelta(minutes=-4), TEN, at(5)) is None
    found = suspect_clock(SALES, timedelta(minutes=-6), TEN, at(5))
    assert found
    assert (found.since, found.until) == (TEN, None)
    assert found.detail == "this machine's clock is 6 min behind the vendor's"
