"""How long a connection may be idle: longer than a proxy keeps one, and apart from the time for a head."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from ingest.settings import ReceiverSettings
from tests.receivers.conftest import Start
from tests.receivers.requests import SALES, booking, raw, subject
from tests.receivers.running import Receiver, subjects
from tests.receivers.test_crowded import connection, silent_for
from tests.support.polling import PATIENCE, wait_for

REFUSED = f"POST {SALES}/ HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Length: 2\r\n\r\n".encode()
UNREAD = b"{}"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Return a receiver with a second for a head, and the default time for idle connections."""
    with closing(Receiver(tmp_path_factory.mktemp("idle"), INGEST_RECEIVER__HEAD_TIMEOUT="1s")) as running:
        yield running


def _deliver(opened: socket.socket, number: int) -> None:
    opened.sendall(raw(booking(number)))
    assert opened.recv(4096).startswith(b"HTTP/1.1 202")


def _answer(opened: socket.socket, sent: bytes, body: bytes) -> bytes:
    """Return the whole answer, which ends with this body."""
    opened.sendall(sent)
    answer = b""
    while not answer.endswith(body):
        answer += opened.recv(4096)
    return answer


def _closed(opened: socket.socket) -> bool:
    opened.settimeout(PATIENCE)
    return opened.recv(1) == b""


def test_a_connection_is_kept_for_longer_than_nginx_and_load_balancers_and_caddy_keep_it() -> None:
    assert ReceiverSettings().keep_alive.total_seconds() > 120


def test_an_idle_connection_outlives_the_time_that_a_head_may_take_and_then_takes_a_delivery(
    receiver: Receiver,
) -> None:
    with connection(receiver) as opened:
        for number in range(3):
            _deliver(opened, number)
            assert silent_for(opened, 2.5)
        _deliver(opened, 3)
    assert subjects(receiver.events())[-4:] == [subject(number) for number in range(4)]


def test_an_idle_connection_is_closed_after_the_time_that_it_may_be_idle(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__HEAD_TIMEOUT="60s", INGEST_RECEIVER__KEEP_ALIVE="1s")
    with connection(receiver) as opened:
        _deliver(opened, 1)
        assert _closed(opened)


@pytest.mark.parametrize(
    "parts",
    [[REFUSED + UNREAD], [REFUSED, UNREAD], [REFUSED + UNREAD[:1], UNREAD[1:]]],
    ids=["whole", "after the answer", "in pieces"],
)
def test_a_connection_whose_request_was_refused_may_be_idle_as_long(
    receiver: Receiver, parts: list[bytes]
) -> None:
    with connection(receiver) as opened:
        _answer(opened, parts[0], b"Not Found")
        for part in parts[1:]:
            opened.sendall(part)
        assert silent_for(opened, 2.5)
        _deliver(opened, 1)


@pytest.mark.parametrize(
    "begun", [b"P", b"POST / HTTP/1.1\r\nX-Slow: ", b"\r\n"], ids=["a letter", "a head", "an empty line"]
)
def test_what_comes_on_an_idle_connection_must_go_on_in_the_time_that_a_head_may_take(
    receiver: Receiver, begun: bytes
) -> None:
    with connection(receiver) as opened:
        assert _answer(opened, REFUSED + UNREAD, b"Not Found").startswith(b"HTTP/1.1 404")
        assert silent_for(opened, 2)
        opened.sendall(begun)
        assert _closed(opened)


def test_a_connection_that_never_brought_a_request_has_the_time_of_a_head_only(receiver: Receiver) -> None:
    with connection(receiver) as opened:
        assert _closed(opened)


def test_idle_connections_make_room_where_more_than_half_of_all_are_taken(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__CONNECTION_LIMIT="6", INGEST_RECEIVER__HEAD_TIMEOUT="1s")
    with ExitStack() as stack:
        idle = []
        for _ in range(4):  # one after the other: what counts is how many there are when one is answered
            opened = stack.enter_context(connection(receiver))
            idle.append(opened)
            assert _answer(opened, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"ok\n").startswith(
                b"HTTP/1.1 200"
            )
        assert _closed(idle[-1])
        wait_for(lambda: _accepts(receiver), "others are let in")
        assert silent_for(idle[0], 0.1), "the first ones are kept"


def _accepts(receiver: Receiver) -> bool:
    with connection(receiver) as opened:
        opened.sendall(raw(booking(9)))
        return opened.recv(4096).startswith(b"HTTP/1.1 202")
