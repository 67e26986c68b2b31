"""How long the oldest work of a part has waited, as `/readyz` and the log tell it."""

import time
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from ingest import readiness
from ingest.readiness import State, UndoneWork
from tests.support.polling import wait_for


def begun_ago(work: UndoneWork, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin work, as it was so many seconds ago."""
    work.begin("3 records are being loaded")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)


def test_without_work_nothing_is_undone() -> None:
    work = UndoneWork("consumer", timedelta(seconds=30))
    assert (work.seconds, work.probe()[0].state) == (0.0, State.OK)


def test_work_within_the_limit_is_told_and_beyond_it_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    work = UndoneWork("consumer", timedelta(seconds=30))
    begun_ago(work, 29, monkeypatch)
    assert (work.probe()[0].state, work.probe()[0].detail) == (
        State.OK,
        "consumer: 3 records are being loaded, for 29 s now",
    )
    begun_ago(work, 40, monkeypatch)
    assert work.probe()[0].state is State.FAILED
    assert "consumer.undone_limit is 30 s" in work.probe()[0].remedy


def test_work_that_is_tried_again_is_as_old_as_its_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    work = UndoneWork("consumer", timedelta(seconds=30))
    begun_ago(work, 50, monkeypatch)
    work.begin("2 records are being loaded")
    assert work.seconds == pytest.approx(50, abs=5)
    work.end()
    work.begin("another record is being loaded")
    assert work.seconds < 50


def test_work_that_takes_long_is_logged_with_its_cause_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "_QUIET_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "_CHECK_SECONDS", 0.01)
    work = UndoneWork("consumer", timedelta(seconds=30), lambda: "a lock of somebody's session")
    with capture_logs() as lines:
        work.watch()
        work.begin("3 records are being loaded")
        wait_for(lambda: len(lines) >= 2, "two lines are logged")
        work.end()
    assert {line["event"] for line in lines} == {"work.undone"}
    assert "it waits for a lock of somebody's session" in lines[-1]["why"]
