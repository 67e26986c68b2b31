"""Overload: slow connections are cut off, and an account that takes all it can leaves room for the others."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from tests.receivers.conftest import Start
from tests.receivers.in_process import writing_to
from tests.receivers.requests import SALES, SECRET, booking, raw, subject
from tests.receivers.running import Receiver, subjects
from tests.support.polling import PATIENCE, wait_for

HEAD = f"POST {SALES} HTTP/1.1\r\nHost: hooks.example.com\r\n".encode()
UNFINISHED = HEAD.replace(b"sales", b"noisy") + b"Content-Length: 1000\r\n\r\nonly the beginning"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Return a receiver that waits a second for a head, and long for all else."""
    limits = {"HEAD_TIMEOUT": "1s", "BODY_TIMEOUT": "30s", "APPEND_TIMEOUT": "30s"}
    settings = {f"INGEST_RECEIVER__{name}": value for name, value in limits.items()}
    with closing(Receiver(tmp_path_factory.mktemp("receiver"), **settings)) as running:
        yield running


@pytest.fixture(scope="module")
def strict_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Return a receiver that waits a second for heads, for bodies, and for the next request."""
    settings = {f"INGEST_RECEIVER__{name}": "1s" for name in ("HEAD_TIMEOUT", "BODY_TIMEOUT", "KEEP_ALIVE")}
    with closing(Receiver(tmp_path_factory.mktemp("strict"), **settings)) as running:
        yield running


@pytest.fixture(scope="module")
def small_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Return a receiver of ten connections, which waits long for heads."""
    settings = {"INGEST_RECEIVER__CONNECTION_LIMIT": "10", "INGEST_RECEIVER__HEAD_TIMEOUT": "5m"}
    with closing(Receiver(tmp_path_factory.mktemp("small"), **settings)) as running:
        yield running


@contextmanager
def connection(receiver: Receiver) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=PATIENCE)) as opened:
        yield opened


def drip(opened: socket.socket) -> bytes:
    """Return what the receiver says until it hangs up, while a byte is sent now and then."""
    received = b""
    opened.settimeout(0.1)
    for _ in range(int(PATIENCE * 10)):
        try:
            opened.sendall(b"x")
            part = opened.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            return received
        if not part:
            return received
        received += part
    raise AssertionError("it never hung up")


@pytest.mark.parametrize(
    "begun",
    [b"", b"POST", HEAD, HEAD + b"X-Slow: "],
    ids=["nothing", "a method", "headers", "a header's name"],
)
def test_a_head_that_does_not_come_in_time_is_not_waited_for(receiver: Receiver, begun: bytes) -> None:
    with connection(receiver) as opened:
        opened.sendall(begun)
        assert opened.recv(4096) == b""
    assert receiver.send(booking(1)).status_code == 202


def test_a_head_that_trickles_in_is_cut_off_also_the_second_one_of_a_connection(receiver: Receiver) -> None:
    with connection(receiver) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nHost: hooks.example.com\r\n\r\n")
        received = b""
        while not received.endswith(b"ok\n"):
            received += opened.recv(4096)
        opened.sendall(HEAD + b"X-Slow: ")
        assert drip(opened) == b""


def test_a_body_that_trickles_in_is_answered_408_and_then_not_waited_for(strict_receiver: Receiver) -> None:
    with connection(strict_receiver) as opened:
        opened.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert drip(opened).startswith(b"HTTP/1.1 408")


def test_a_body_for_an_unknown_account_is_not_waited_for_either(receiver: Receiver) -> None:
    with connection(receiver) as opened:
        opened.sendall(HEAD.replace(b"sales", b"nobody") + b"Content-Length: 1000000\r\n\r\n")
        assert drip(opened).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "idle",
    [
        b"GET /healthz HTTP/1.1\r\nHost: hooks.example.com\r\n\r\n",
        HEAD.replace(b"sales", b"nobody") + b"Content-Length: 2\r\n\r\n",
    ],
    ids=["an empty line", "the rest of a body that was refused"],
)
def test_an_answered_connection_that_brings_something_but_no_request_is_not_kept(
    strict_receiver: Receiver, idle: bytes
) -> None:
    with connection(strict_receiver) as opened:
        opened.sendall(idle)
        received = opened.recv(4096)
        opened.sendall(b"\r\n")
        received += b"".join(iter(lambda: opened.recv(4096), b""))
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_delivery_that_takes_its_time_within_the_limits_is_accepted(receiver: Receiver) -> None:
    request = booking(1)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers)
    with connection(receiver) as opened:
        opened.sendall(HEAD + lines.encode() + f"Content-Length: {len(request.body)}\r\n\r\n".encode())
        opened.settimeout(0.05)
        for index in range(len(request.body)):  # longer in all than a head may take
            opened.sendall(request.body[index : index + 1])
            with pytest.raises(TimeoutError):
                opened.recv(1)
            if index == 40:
                break
        opened.settimeout(PATIENCE)
        opened.sendall(request.body[41:])
        assert opened.recv(4096).startswith(b"HTTP/1.1 202")


def test_the_body_of_a_request_sent_before_the_one_before_it_was_answered_has_its_own_time(
    receiver: Receiver,
) -> None:
    before = len(receiver.events())
    first, second = raw(booking(1)), raw(booking(2))
    with connection(receiver) as opened:
        opened.sendall(first + second[:-50])
        assert opened.recv(4096).startswith(b"HTTP/1.1 202")
        assert silent_for(opened, 3)
        opened.sendall(second[-50:])
        assert opened.recv(4096).startswith(b"HTTP/1.1 202")
    assert subjects(receiver.events()[before:]) == [subject(1), subject(2)]


def test_a_head_that_comes_while_the_request_before_it_is_handled_has_its_time_after_the_answer(
    receiver: Receiver,
) -> None:
    before = len(receiver.events())
    second = raw(booking(2))
    with connection(receiver) as opened:
        with writing_to(receiver.log):
            opened.sendall(raw(booking(1)) + second[:30])
            assert silent_for(opened, 3)
        assert opened.recv(4096).startswith(b"HTTP/1.1 202")
        opened.sendall(second[30:])
        assert opened.recv(4096).startswith(b"HTTP/1.1 202")
    assert subjects(receiver.events()[before:]) == [subject(1), subject(2)]


@pytest.mark.parametrize(
    "begun", [HEAD + b"X-Slow: ", HEAD + b"Content-Length: 1000000\r\n\r\n"], ids=["head", "body"]
)
def test_what_trickles_in_behind_a_request_that_waits_for_the_log_is_cut_off_too(
    strict_receiver: Receiver, begun: bytes
) -> None:
    with connection(strict_receiver) as opened:
        with writing_to(strict_receiver.log):
            opened.sendall(raw(booking(1)) + begun)
            assert silent_for(opened, 1)
        received = drip(opened)
    statuses = [line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert statuses == ([b"202", b"408"] if b"Content-Length" in begun else [b"202"])


def silent_for(opened: socket.socket, seconds: float) -> bool:
    """Return whether nothing comes and nobody hangs up for some seconds."""
    opened.settimeout(seconds)
    try:
        opened.recv(1)
    except TimeoutError:
        return True
    finally:
        opened.settimeout(PATIENCE)
    return False


def test_an_account_that_holds_all_it_can_get_leaves_room_for_another(start: Start) -> None:
    receiver = start(
        INGEST_RECEIVER__CONNECTION_LIMIT="40",
        INGEST_RECEIVER__BODY_TIMEOUT="5m",
        INGEST_ACCOUNTS__NOISY__VENDOR="calendly",
        INGEST_ACCOUNTS__NOISY__WEBHOOK_SECRETS=SECRET,
    )
    with ExitStack() as opened:
        noisy = [opened.enter_context(connection(receiver)) for _ in range(30)]
        for socket_ in noisy:
            socket_.sendall(UNFINISHED)
        wait_for(
            lambda: 'outcome="unavailable",vendor="calendly"} 10.0' in receiver.admin.get("/metrics").text,
            "what is beyond its share is refused",
        )
        assert [receiver.send(booking(number)).status_code for number in range(5)] == [202] * 5


def test_what_an_account_holds_is_there_again_when_it_is_done(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__CONNECTION_LIMIT="4")
    for _ in range(10):
        with connection(receiver) as opened:
            opened.sendall(HEAD + b"Content-Length: 1000\r\n\r\nonly the beginning")
        wait_for(lambda: receiver.send(booking(1)).status_code == 202, "there is room again")


@contextmanager
def holding(receiver: Receiver, number: int, begun: bytes) -> Iterator[list[socket.socket]]:
    """Open so many connections that send this and nothing more."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(connection(receiver)) for _ in range(number)]
        for socket_ in sockets:
            with suppress(ConnectionError):  # it may have had to make room already
                socket_.sendall(begun)
        yield sockets


def refused(receiver: Receiver, line: str) -> bool:
    return line in receiver.admin.get("/metrics").text


def post_anew(receiver: Receiver, number: int) -> bytes:
    """Return the status of a delivery on a connection of its own."""
    with connection(receiver) as opened:
        opened.sendall(raw(booking(number)))
        return opened.recv(4096)[9:12]


def test_bodies_that_nobody_finished_make_room_for_those_that_are_whole(start: Start) -> None:
    receiver = start(
        INGEST_RECEIVER__BODY_LIMIT="65536",
        INGEST_RECEIVER__IN_FLIGHT_LIMIT="131072",
        INGEST_RECEIVER__BODY_TIMEOUT="5m",
    )
    unfinished = HEAD + b"Content-Length: 65536\r\n\r\n" + b"x" * 65_535
    with holding(receiver, 4, unfinished):
        wait_for(
            lambda: refused(receiver, 'outcome="unavailable",vendor="calendly"} 3.0'),
            "all but one are dropped",
        )
        assert [post_anew(receiver, number) for number in range(5)] == [b"202"] * 5


def test_requests_that_nobody_finished_make_room_for_those_that_are_whole(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__CONNECTION_LIMIT="20", INGEST_RECEIVER__BODY_TIMEOUT="5m")
    with holding(receiver, 15, UNFINISHED.replace(b"noisy", b"sales")):
        wait_for(
            lambda: refused(receiver, 'outcome="unavailable",vendor="calendly"} 5.0'),
            "what is beyond its share is dropped",
        )
        assert [post_anew(receiver, number) for number in range(5)] == [b"202"] * 5


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        HEAD + b"X-Slow: ",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD.replace(b"sales", b"nobody") + b"Content-Length: 9\r\n\r\nx",
    ],
    ids=["nothing", "a head", "a whole request", "a body for nobody"],
)
def test_idle_connections_make_room_for_new_ones_and_those_that_delivered_do_last(
    small_receiver: Receiver, begun: bytes
) -> None:
    before = len(small_receiver.events())
    with connection(small_receiver) as persistent:
        persistent.sendall(raw(booking(0)))
        assert persistent.recv(4096).startswith(b"HTTP/1.1 202")
        with holding(small_receiver, 30, begun):
            assert [post_anew(small_receiver, number) for number in range(1, 6)] == [b"202"] * 5
            persistent.sendall(raw(booking(6)))
            assert persistent.recv(4096).startswith(b"HTTP/1.1 202")
    assert subjects(small_receiver.events()[before:]) == [subject(number) for number in range(7)]


def test_connections_with_requests_that_wait_for_the_log_do_not_make_room(start: Start) -> None:
    receiver = start(
        INGEST_RECEIVER__CONNECTION_LIMIT="10",
        INGEST_RECEIVER__HEAD_TIMEOUT="5m",
        INGEST_RECEIVER__APPEND_TIMEOUT="30s",
    )
    with connection(receiver) as waiting:
        with writing_to(receiver.log):
            waiting.sendall(raw(booking(1)))
            wait_for(lambda: not refused(receiver, "ingest_in_flight_bytes 0.0"), "it waits for the log")
            with holding(receiver, 30, b""):
                wait_for(lambda: refused(receiver, 'reason="displaced"'), "idle ones make room")
        assert waiting.recv(4096).startswith(b"HTTP/1.1 202")
