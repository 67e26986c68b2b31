"""Bytes that are no HTTP, or bad HTTP, to a real receiver: it answers or hangs up, and goes on."""

import random
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count

import pytest

from tests.receivers.requests import SALES, booking, booking_body, raw, subject
from tests.receivers.running import Receiver, on_linux, subjects

MIB = 1024 * 1024
NUMBERS = count(1000)
POST = f"POST {SALES} HTTP/1.1\r\nHost: hooks.example.com\r\n".encode()
GET = b"GET /healthz HTTP/1.1\r\nHost: hooks.example.com\r\n"

NONSENSE = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "NULs": b"\x00" * 100,
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"EHLO mail.example.com\r\n",
    "no version": b"POST " + SALES.encode() + b"\r\n\r\n",
    "a version to come": b"GET /healthz HTTP/9.9\r\n\r\n",
    "an unknown method": b"BREW /pot HTTP/1.1\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "a URL that is not ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "a URL that is no path": b"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "percent signs": b"POST /%zz%00%ff%/..%2f HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "a broken host": b"POST /webhooks/calendly/sales/ HTTP/1.1\r\nHost: [::\r\nContent-Length: 0\r\n\r\n",
    "a header without a colon": POST + b"nonsense\r\n\r\n",
    "a header without a name": POST + b": value\r\n\r\n",
    "a folded header": POST + b"X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a header": POST + b"X-A: \x00\r\n\r\n",
    "header bytes that are not ASCII": POST
    + b"Calendly-Webhook-Signature: t=\xb2,v1=\xff\r\nContent-Length: 0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "one length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": POST + b"Content-Length: many\r\n\r\n",
    "a length beyond all bounds": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a length over the limit": POST + b"Content-Length: 1048577\r\n\r\nshort",
    "an encoding nobody knows": POST + b"Transfer-Encoding: gzip, nonsense\r\n\r\nabc",
    "chunks of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk of a negative size": POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "a chunk beyond all bounds": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nabc",
    "a chunk longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n0\r\n\r\n",
    "a chunk that ends early": POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Late: 1\r\nContent-Length: 5\r\n\r\n",
    "a body that ends early": POST + b"Content-Length: 100\r\n\r\nshort",
    "a wish to be asked to go on": POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "a wish nobody knows": POST + b"Expect: the unexpected\r\nContent-Length: 3\r\n\r\nabc",
    "an upgrade to websocket": GET
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: \xff\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n\x81\x00",
    "an upgrade to HTTP/2": GET
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\nPRI",
    "a delivery with an upgrade": POST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    "many requests at once": (POST + b"Content-Length: 3\r\n\r\nabc") * 50,
    "a good and a bad request at once": GET + b"\r\n" + b"\x00nonsense\r\n\r\n",
    "half a request after a whole one": GET + b"\r\n" + POST + b"Content-Le",
    "many headers": POST + b"X-A: 1\r\n" * 1000 + b"Content-Length: 0\r\n\r\n",
    "one long header": POST + b"X-A: " + b"1" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n",
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with closing(Receiver(tmp_path_factory.mktemp("raw"), INGEST_RECEIVER__BODY_TIMEOUT="1s")) as running:
        yield running


def _connected(receiver: Receiver, port: int = 0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port or receiver.port), timeout=30)


def _answers(receiver: Receiver, sent: bytes) -> bytes:
    """Return all that comes back until the receiver hangs up, after we have closed our side."""
    with _connected(receiver) as connection, suppress(ConnectionError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))
    return b""


def _assert_well(receiver: Receiver) -> None:
    number = next(NUMBERS)
    assert receiver.client.get("/healthz").text == "ok\n"
    assert receiver.send(booking(number)).status_code == 202
    assert subject(number) in subjects(receiver.events())
    assert "Traceback" not in receiver.written()


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_answered_below_500_or_not_at_all(receiver: Receiver, what: str) -> None:
    before = len(receiver.events())
    answers = _answers(receiver, NONSENSE[what])
    assert b"HTTP/1.1 5" not in answers
    assert not answers or answers.startswith(b"HTTP/1.1 ")
    assert len(receiver.events()) == before
    _assert_well(receiver)


def test_there_is_nothing_to_upgrade_to(receiver: Receiver) -> None:
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert _answers(receiver, GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + key).startswith(
        b"HTTP/1.1 200 OK\r\n"
    )


def test_a_good_delivery_with_bytes_changed_lost_or_doubled_never_harms(receiver: Receiver) -> None:
    chance, good = random.Random(1), raw(booking(2))
    before = len(receiver.events())
    for _ in range(300):
        position = chance.randrange(len(good))
        changed = (
            good[:position] + chance.randbytes(chance.randrange(4)) + good[position + chance.randrange(4) :]
        )
        with _connected(receiver) as connection:
            connection.sendall(changed)  # and gone, mostly before there could be an answer
    values = {record.value for record in receiver.events()[before:]}
    assert values <= {booking_body(2)}
    _assert_well(receiver)


@pytest.mark.parametrize(
    ("colon", "comma", "end"), [(b":", b",", b""), (b":  \t", b", ", b""), (b": ", b" ,\t", b" \t ")]
)
def test_blanks_around_a_signature_and_its_parts_change_nothing(
    receiver: Receiver, colon: bytes, comma: bytes, end: bytes
) -> None:
    number = next(NUMBERS)
    head, _, body = raw(booking(number)).partition(b"\r\n\r\n")
    spaced = re.sub(
        rb"(?i)(calendly-webhook-signature): (t=\d+),(v1=\w+)",
        rb"\1" + colon + rb"\2" + comma + rb"\3" + end,
        head,
    )
    assert _answers_to(receiver, spaced + b"\r\n\r\n" + body, 1) == [b"202"]
    assert subject(number) in subjects(receiver.events())


def test_deliveries_sent_without_waiting_for_answers_are_all_answered_in_order(receiver: Receiver) -> None:
    numbers = range(100, 120)
    answers = _answers_to(receiver, b"".join(raw(booking(number)) for number in numbers), len(numbers))
    assert answers == [b"202"] * len(numbers)
    assert subjects(receiver.events())[-len(numbers) :] == [subject(number) for number in numbers]


def test_thousands_of_requests_in_one_write_are_answered_in_order(receiver: Receiver) -> None:
    forged, number = POST + b"Content-Length: 2\r\n\r\n{}", next(NUMBERS)
    answers = _answers_to(receiver, forged * 3000 + raw(booking(number)), 3001)
    assert answers == [b"401"] * 3000 + [b"202"]
    assert subject(number) in subjects(receiver.events())


def _answers_to(receiver: Receiver, sent: bytes, count: int) -> list[bytes]:
    """Return the status of each answer, then hang up."""
    came = b""
    with _connected(receiver) as connection:
        connection.sendall(sent)
        while came.count(b"\r\n\r\n") < count:
            came += connection.recv(65536)
    return [line.split()[1] for line in came.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def test_a_body_that_comes_byte_by_byte_is_read_and_one_that_stops_is_given_up(receiver: Receiver) -> None:
    sent = raw(booking(200))
    with _connected(receiver) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in sent:
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 202")
        connection.sendall(sent[:-1])
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")
    _assert_well(receiver)


@pytest.mark.parametrize(
    "unending",
    [
        GET + b"X-A: ",
        GET + b"X-A: 1\r\n",
        b"GET /",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["header", "headers", "path", "trailer", "chunk extension"],
)
def test_what_does_not_end_is_cut_off_before_it_fills_the_memory(receiver: Receiver, unending: bytes) -> None:
    filler = b"X-A: 1\r\n" * 2000 if unending.endswith(b"1\r\n") else b"a" * 16_000
    with _connected(receiver) as connection, pytest.raises(ConnectionError):
        _send(connection, unending, *[filler] * (64 * MIB // len(filler)))
    _assert_well(receiver)


def test_the_admin_listener_cuts_off_a_head_that_does_not_end_too(receiver: Receiver) -> None:
    with _connected(receiver, receiver.admin_port) as connection, pytest.raises(ConnectionError):
        _send(connection, b"GET /metrics HTTP/1.1\r\nX-A: ", *[b"a" * 16_000] * (64 * MIB // 16_000))
    assert receiver.admin.get("/readyz").json()["ready"] is True


def _send(connection: socket.socket, *parts: bytes) -> None:
    for part in parts:
        connection.sendall(part)


@on_linux
def test_an_unread_body_does_not_fill_the_memory_either(receiver: Receiver) -> None:
    before = receiver.resident()
    with _connected(receiver) as connection:
        _send(connection, POST + b"Content-Length: %d\r\n\r\n" % (64 * MIB), *[b"a" * MIB] * 64)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    assert receiver.resident() - before < 16 * MIB
    _assert_well(receiver)
