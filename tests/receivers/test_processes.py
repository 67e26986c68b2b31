"""Receivers that work side by side, are stopped and are killed: what was answered 202 is in the log."""

import json
import os
import shlex
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.receivers.conftest import Start
from tests.receivers.in_process import writing_to
from tests.receivers.requests import booking, signed, subject
from tests.receivers.running import delivering, on_linux, subjects
from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import COMMAND


def test_a_stop_finishes_the_deliveries_under_way(start: Start) -> None:
    receiver = start()
    with delivering(receiver) as senders:
        assert receiver.stop() == 0
    assert set(senders.answers.values()) == {202}
    assert sorted(subjects(receiver.events())) == sorted(senders.accepted()), (
        "and whatever is kept was answered"
    )
    assert "Traceback" not in receiver.written()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_says_when_it_begins_and_when_it_has_ended(start: Start, workers: str, number: int) -> None:
    receiver = start(INGEST_RECEIVER__WORKERS=workers)
    receiver.process.send_signal(number)
    receiver.process.wait(PATIENCE)
    stderr_text = [
        json.loads(line)["event"] for line in receiver.written().splitlines() if line.startswith("{")
    ]
    assert [event for event in stderr_text if event.startswith("receiver.")] == [
        "receiver.listening",
        "receiver.stopped",
    ]


def test_it_goes_on_when_nobody_reads_what_it_has_to_say_any_more(start: Start) -> None:
    receiver = start(["bash", "-c", f"exec {shlex.join([*COMMAND, 'receive'])} 2> >(head -n 1 >&2)"])
    assert [
        receiver.send(request).status_code
        for request in (signed(b"{}", secret="another"), signed(b"{}"), booking(1))
    ] == [
        401,
        202,
        202,
    ]
    assert subjects(receiver.events()) == [subject(1)]
    assert receiver.written().count("\n") == 1


def test_a_stop_waits_for_a_delivery_that_waits_for_the_log(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__APPEND_TIMEOUT="10s")
    with ThreadPoolExecutor(1) as sender, writing_to(receiver.log):
        answer = sender.submit(receiver.send, booking(1))
        wait_for(
            lambda: "ingest_in_flight_bytes 0.0" not in receiver.admin.get("/metrics").text,
            "the delivery waits for the log",
        )
        receiver.process.terminate()
        wait_for(lambda: not _accepts_connections(receiver.port), "the receiver is stopping")
        with pytest.raises(TimeoutError):
            answer.result(timeout=0.5)
    assert answer.result().status_code == 202
    assert receiver.process.wait(PATIENCE) == 0
    assert subjects(receiver.events()) == [subject(1)]


def _accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def test_several_workers_keep_every_delivery_once_also_those_under_way_at_a_stop(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__WORKERS="2")
    with delivering(receiver) as senders:
        assert receiver.stop() == 0
    assert set(senders.answers.values()) == {202}
    assert sorted(subjects(receiver.events())) == sorted(senders.accepted()), (
        "and whatever is kept was answered"
    )
    assert "Traceback" not in receiver.written()


def test_a_kill_loses_no_delivery_that_was_accepted(start: Start) -> None:
    receiver = start()
    with delivering(receiver) as senders:
        receiver.kill()
    assert set(senders.answers.values()) == {202}
    assert set(subjects(receiver.events())) >= senders.accepted()
    again = start()
    assert again.send(booking(-1)).status_code == 202
    assert subjects(again.events())[-1] == subject(-1)


@on_linux
def test_a_killed_worker_loses_no_delivery_that_was_accepted_and_is_replaced(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__WORKERS="2")
    with delivering(receiver) as senders:
        killed = receiver.children()[0]
        os.kill(killed, signal.SIGKILL)
        wait_for(
            lambda: killed not in receiver.children() and len(receiver.children()) == 2,
            "another worker takes its place",
        )
    assert set(subjects(receiver.events())) >= senders.accepted()
    assert receiver.send(booking(-1)).status_code == 202


@on_linux
def test_workers_end_when_their_parent_is_killed_and_leave_the_port(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__WORKERS="2")
    workers = wait_for(receiver.children, "workers")
    receiver.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers end")
    socket.create_server(("127.0.0.1", receiver.port)).close()
