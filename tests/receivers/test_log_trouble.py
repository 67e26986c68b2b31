"""A log that takes no records: the vendor is told to try again, and what was acknowledged is kept."""

import asyncio
import re
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import pytest
from structlog.testing import capture_logs

from ingest.telemetry import IN_FLIGHT_BYTES, Throttle
from tests.receivers.conftest import Start
from tests.receivers.in_process import Answer, InProcess, writing_to
from tests.receivers.requests import booking, booking_body, signed, subject
from tests.receivers.running import Receiver, subjects
from tests.support.polling import wait_for

COME_AGAIN = Answer(503, {"content-length": "0", "retry-after": "10"}, b"")


async def _in_flight_now() -> float:
    """Return what is in flight, after the event loop has heard of what the log took."""
    await asyncio.sleep(0.01)
    return _in_flight()


def _in_flight() -> float:
    (metric,) = IN_FLIGHT_BYTES.collect()
    return metric.samples[0].value


def test_a_log_that_refuses_is_answered_503(receiver: InProcess) -> None:
    with closing(sqlite3.connect(receiver.log)) as other:
        other.execute("ALTER TABLE records RENAME TO elsewhere")
    with capture_logs([Throttle()]) as logged:
        assert receiver.ask(booking(1)) == COME_AGAIN
        assert receiver.ask(signed(b"not JSON")) == COME_AGAIN, (
            "what cannot be set aside is not acknowledged either"
        )
        assert {entry["event"] for entry in logged} == {"delivery.unavailable"}, (
            "and it is not told as set aside"
        )
    with closing(sqlite3.connect(receiver.log)) as other:
        other.execute("ALTER TABLE elsewhere RENAME TO records")
    assert receiver.ask(booking(2)).status == 202
    assert subjects(receiver.events()) == [subject(2)]


def test_a_log_that_takes_too_long_is_answered_503_and_what_it_takes_after_all_does_no_harm(
    receiver: InProcess,
) -> None:
    with writing_to(receiver.log):
        assert receiver.ask(booking(1)) == COME_AGAIN
    wait_for(receiver.events, "the log takes it after all")
    assert receiver.ask(booking(1)).status == 202
    assert len({record.headers["ce_id"] for record in receiver.events()}) == 1


def test_what_waits_for_the_log_is_bounded(receiver: InProcess) -> None:
    large = [booking_body(number).ljust(4096) for number in range(3)]
    with writing_to(receiver.log), capture_logs([Throttle()]) as logged:
        assert [receiver.ask(signed(body)) for body in large] == [COME_AGAIN] * 3
        assert _in_flight() == 4096
    reasons = [re.findall(r"receiver\.\w+", entry["why"]) for entry in logged]
    assert reasons == [["receiver.append_timeout"], ["receiver.in_flight_limit"]], (
        "the same again is told later"
    )
    wait_for(lambda: receiver.runner.run(_in_flight_now()) == 0, "the log takes the first")
    assert receiver.ask(signed(large[2])).status == 202
    assert [record.value for record in receiver.events()] == [large[0], large[2]]


def test_a_bug_after_the_log_took_a_delivery_escapes_once_and_holds_nothing(
    receiver: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bug(Exception):
        pass

    def raise_bug(*_: object) -> None:
        raise Bug

    with monkeypatch.context() as patched:
        patched.setattr("receivers.webhook.report_loss", raise_bug)
        for number in range(40):
            with pytest.raises(Bug):
                receiver.ask(booking(number))
    assert receiver.runner.run(_in_flight_now()) == 0
    assert receiver.ask(signed(booking_body(1).ljust(4096))).status == 202


@contextmanager
def _full_disk(receiver: Receiver) -> Iterator[None]:
    """Let no file of the process grow beyond the size of the log."""
    pid, limit = receiver.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (receiver.log.with_name("log.db-wal").stat().st_size, before[1]))
    yield
    resource.prlimit(pid, limit, before)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can take a running process its disk")
def test_a_full_disk_costs_no_accepted_delivery_and_passes(start: Start) -> None:
    receiver = start()
    numbers, accepted = count(), set()

    def deliver() -> int:
        number = next(numbers)
        answer = receiver.send(signed(booking_body(number).ljust(50_000)))
        if answer.status_code == 202:
            accepted.add(subject(number))
        return answer.status_code

    assert deliver() == 202
    with _full_disk(receiver):
        assert deliver() == 503
        assert receiver.send(booking(-1)).headers["retry-after"] == "10"
    assert deliver() == 202
    assert set(subjects(receiver.events())) == accepted
    assert "Traceback" not in receiver.written()
    assert receiver.stop() == 0
