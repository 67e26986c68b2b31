"""A receiver's signs of life: when it runs, and what it answered 503."""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from ingest.clock import LOOKBACK_IN_DOUBT
from ingest.errors import LogUnavailable
from ingest.event import ALIVE, Cause, Event
from ingest.log import Record
from ingest.times import parse_instant
from receivers import life
from receivers.life import LifeReporter, RefusalCounter
from tests.support.polling import wait_for

SALES = "/calendly/sales"
HOUR = timedelta(hours=1)


class Log:
    """A log that takes records, refuses them, or does not answer."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.trouble: Exception | None = None
        self.is_broken = False

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        assert topic == "audit"
        if self.is_broken:
            raise RuntimeError("a defect")
        future: Future[None] = Future()
        if self.trouble:
            future.set_exception(self.trouble)
        else:
            self.events += map(Event.from_record, records)
            future.set_result(None)
        return future

    def close(self) -> None:
        pass

    @property
    def signs(self) -> list[dict[str, Any]]:
        return [orjson.loads(event.data) for event in self.events]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def reporter(log: Log) -> LifeReporter:
    return LifeReporter(log, "audit", "spool-1", RefusalCounter())


def test_it_says_that_it_started_and_that_it_stops(log: Log, reporter: LifeReporter) -> None:
    reporter.start()
    reporter.close()
    assert [sign["state"] for sign in log.signs] == ["started", "stopped"]
    assert {(event.type, event.source) for event in log.events} == {(ALIVE, "/ingest/receiver")}
    assert len({event.subject for event in log.events}) == 1
    assert began(log, 1) == pytest.approx(log.events[0].time.timestamp(), abs=1)
    assert {sign["spool"] for sign in log.signs} == {"spool-1"}


def test_it_says_again_and_again_that_it_runs(
    log: Log, reporter: LifeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "SIGN_EVERY", timedelta(milliseconds=10))
    reporter.start()
    try:
        wait_for(lambda: sum(sign["state"] == "runs" for sign in log.signs) > 1, "it runs")
    finally:
        reporter.close()


def test_what_the_log_does_not_take_is_covered_by_the_next_sign(log: Log, reporter: LifeReporter) -> None:
    reporter.sign("started")
    log.trouble = LogUnavailable("away")
    reporter.counter.note(SALES)
    reporter.sign("runs")
    log.trouble, log.is_broken = None, True
    reporter.counter.note(SALES)
    reporter.sign("runs")
    log.is_broken = False
    reporter.sign("runs")
    started, runs = log.events
    assert began(log, 1) == pytest.approx(started.time.timestamp(), abs=1)
    assert [span["count"] for span in orjson.loads(runs.data)["unavailable"][SALES]] == [2]
    reporter.sign("runs")
    assert log.signs[-1]["unavailable"] == {}, "once"


def test_refusals_of_different_hours_are_told_apart_and_none_is_older_than_what_is_looked_for() -> None:
    counter, now = RefusalCounter(), datetime.now(UTC)
    hours_ago = (24 * 365, 24 * 300, 50, 50, 7, 0, -9000)
    for hours in hours_ago:
        counter.note(SALES, Cause.CLOCK_WRONG, now - hours * HOUR)
    taken = counter.take()
    counter.put_back(taken)
    assert counter.take() == taken
    spans = sorted(taken.values(), key=lambda span: span.since)
    assert [span.count for span in spans] == [2, 2, 1, 2], "what is in the future belongs to the present"
    assert spans[0].since >= now - LOOKBACK_IN_DOUBT
    assert all(span.until - span.since < HOUR for span in spans[:3])


def test_deliveries_of_any_time_take_no_more_room_than_the_hours_that_are_looked_for() -> None:
    counter, now = RefusalCounter(), datetime.now(UTC)
    for hours in range(-3000, 3000):
        counter.note(SALES, Cause.CLOCK_WRONG, now + hours * HOUR)
    assert len(counter.take()) <= LOOKBACK_IN_DOUBT / HOUR + 2


def began(log: Log, number: int) -> float:
    """Return since when the worker has run by a sign, in Unix time."""
    return parse_instant(log.signs[number]["since"]).timestamp()


@pytest.mark.parametrize(("pause", "covered"), [(60.0, 65.0), (170.0, 175.0), (200.0, 0.0)])
def test_it_has_run_since_the_last_sign_by_a_clock_that_nobody_sets_unless_it_was_frozen(
    log: Log, pause: float, covered: float
) -> None:
    now = 1000.0
    reporter = LifeReporter(log, "audit", "", RefusalCounter(), lambda: now)
    reporter.sign("started")
    now += 100
    reporter.sign("runs")
    now += pause
    reporter.sign("runs")
    spans = [event.time.timestamp() - began(log, number) for number, event in enumerate(log.events)]
    assert spans == pytest.approx([0.0, 100.0, covered], abs=0.01), "a little more, except before its start"
