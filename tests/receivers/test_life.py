"""A receiver's signs of life: when it runs, and what it answered 503."""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import orjson
import pytest

from ingest.errors import LogUnavailable
from ingest.event import ALIVE, Event
from ingest.log import Record
from receivers import life
from receivers.life import LifeReporter, UnavailableCounter
from tests.support.polling import wait_for

SALES = "/calendly/sales"


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
    return LifeReporter(log, "audit", "spool-1", UnavailableCounter())


def test_it_says_that_it_started_and_that_it_stops(log: Log, reporter: LifeReporter) -> None:
    reporter.start()
    reporter.close()
    assert [sign["state"] for sign in log.signs] == ["started", "stopped"]
    assert {(event.type, event.source) for event in log.events} == {(ALIVE, "/ingest/receiver")}
    assert len({event.subject for event in log.events}) == 1
    assert log.signs[1]["since"] == orjson.loads(orjson.dumps(log.events[0].time, option=orjson.OPT_UTC_Z))
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
    assert orjson.loads(runs.data)["since"] == orjson.loads(started.data)["since"]
    assert orjson.loads(runs.data)["unavailable"][SALES]["count"] == 2
    reporter.sign("runs")
    assert log.signs[-1]["unavailable"] == {}, "once"


def test_one_that_was_frozen_does_not_say_that_it_ran(
    log: Log, reporter: LifeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter.sign("started")
    monkeypatch.setattr(life, "_FROZEN_SECONDS", -1.0)
    reporter.sign("runs")
    started, runs = log.signs
    assert runs["since"] > started["since"]
