"""For how long the log has taken nothing, also across deliveries that were given up."""

import time

import pytest

from ingest.errors import LogRefused
from ingest.log import Record
from receivers.unacknowledged import WatchedProducer
from tests.receivers.conftest import Start
from tests.receivers.controlled_log import ControlledLog
from tests.receivers.in_process import writing_to
from tests.receivers.requests import booking
from tests.receivers.running import Receiver
from tests.support.polling import wait_for

RECORD = Record("key", b"{}")
PROBE = Record("probe", b"probe")


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def log() -> ControlledLog:
    return ControlledLog()


@pytest.fixture
def watched(log: ControlledLog) -> WatchedProducer:
    return WatchedProducer(log, "bookings.audit", lambda: [PROBE])


def test_what_is_acknowledged_at_once_has_no_age(watched: WatchedProducer, clock: Clock) -> None:
    watched.append("topic", [RECORD])
    clock.now += 5
    assert watched.seconds == 0


def test_a_log_that_is_silent_has_the_age_of_the_first_that_waits(
    watched: WatchedProducer, log: ControlledLog, clock: Clock
) -> None:
    log.state = "silent"
    watched.append("topic", [RECORD])
    clock.now += 4
    watched.append("topic", [RECORD])
    clock.now += 4
    assert watched.seconds == 8
    log.take_silenced()
    assert watched.seconds == 0


def test_appends_that_fail_do_not_make_it_younger(
    watched: WatchedProducer, log: ControlledLog, clock: Clock
) -> None:
    log.state = "failing"
    for _ in range(3):
        watched.append("topic", [RECORD])
        clock.now += 4
    assert watched.seconds == 12
    log.state = "open"
    watched.append("topic", [RECORD])
    assert watched.seconds == 0


def test_a_late_failure_does_not_count_from_before_the_log_took_something(
    watched: WatchedProducer, log: ControlledLog, clock: Clock
) -> None:
    log.state = "silent"
    watched.append("topic", [RECORD])
    clock.now += 60
    log.state = "open"
    watched.append("topic", [RECORD])
    assert watched.seconds == 60, "the first one still waits"
    clock.now += 1
    log.close()
    assert watched.seconds == 1


def test_a_record_that_is_refused_says_nothing_of_the_log(
    watched: WatchedProducer, log: ControlledLog, clock: Clock
) -> None:
    refused = watched.append("topic", [Record("key", log.refused)])
    clock.now += 4
    assert isinstance(refused.exception(), LogRefused)
    assert watched.seconds == 0


def test_a_log_that_failed_is_probed_until_it_takes_records_although_nobody_delivers(
    watched: WatchedProducer, log: ControlledLog, clock: Clock
) -> None:
    watched.update()
    assert log.taken == [], "a log that works is not probed"
    log.state = "failing"
    watched.append("topic", [RECORD])
    clock.now += 30
    watched.update()
    assert watched.seconds == 30
    log.state = "open"
    watched.update()
    assert (watched.seconds, log.taken) == (0, [PROBE])
    watched.update()
    assert log.taken == [PROBE]


def test_a_log_that_is_silent_gets_one_probe_at_a_time(
    watched: WatchedProducer, log: ControlledLog, clock: Clock
) -> None:
    log.state = "failing"
    watched.append("topic", [RECORD])
    log.state = "silent"
    for _ in range(3):
        clock.now += 10
        watched.update()
    log.take_silenced()
    assert log.taken == [PROBE]


def _oldest_seconds(receiver: Receiver) -> float:
    lines = receiver.admin.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("ingest_oldest_undone_seconds "))


def test_deliveries_that_are_answered_503_one_after_the_other_do_not_hide_since_when(
    start: Start,
) -> None:
    receiver = start(INGEST_RECEIVER__APPEND_TIMEOUT="500ms", INGEST_RECEIVER__WORKERS="2")
    wait_for(lambda: receiver.send(booking(0)).status_code == 202, "the log takes records in time")
    with writing_to(receiver.log):

        def is_reported() -> bool:
            assert receiver.send(booking(1)).status_code == 503
            return _oldest_seconds(receiver) > 3

        wait_for(is_reported, "the metric passes several time-outs")
        wait_for(
            lambda: any(
                "has not acknowledged" in reason for reason in receiver.admin.get("/readyz").json()["reasons"]
            ),
            "it is a reason",
        )
    wait_for(lambda: _oldest_seconds(receiver) == 0, "the log takes records again, and nobody delivers")
    wait_for(lambda: receiver.admin.get("/readyz").status_code == 200, "it is ready")
