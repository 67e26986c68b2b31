"""Requests whose end can be read in two ways are refused, and all that follows them."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.receivers.requests import SALES, booking_body, signed
from tests.receivers.running import Receiver
from tests.security.raw import LAST, Answers, exchange

BODY = booking_body(1)
_SIGNATURE = "\r\n".join(f"{name}: {value}" for name, value in signed(BODY).headers).encode()
HEAD = f"POST {SALES} HTTP/1.1\r\nHost: hooks.example.com\r\n".encode() + _SIGNATURE + b"\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
# What would be let through: a delivery that nobody signed.
SECOND = (
    f"POST {SALES} HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
)

AMBIGUOUS = {
    "a length, then chunks": LENGTH + CHUNKED + b"\r\n" + CHUNKS,
    "chunks, then a length": CHUNKED + b"Content-Length: %d\r\n\r\n" % (len(CHUNKS) + len(SECOND)) + CHUNKS,
    "two lengths": LENGTH + b"Content-Length: %d\r\n\r\n" % (len(BODY) + len(SECOND)) + BODY,
    "the same length twice": LENGTH + LENGTH + b"\r\n" + BODY,
    "a list of lengths": b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
    "a length with a sign": b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a negative length": b"Content-Length: -%d\r\n\r\n" % len(BODY) + BODY,
    "a length in hexadecimal": b"Content-Length: 0x%x\r\n\r\n" % len(BODY) + BODY,
    "a length with a blank in it": b"Content-Length: 1 %d\r\n\r\n" % len(BODY) + BODY,
    "an empty length": b"Content-Length: \r\n\r\n" + BODY,
    "a blank before the colon of a length": b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "a NUL in a length's name": b"Content-Length\x00: %d\r\n\r\n" % len(BODY) + BODY,
    "a blank before the colon of an encoding": b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "an encoding that is nearly chunked": b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked, but not at last": b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "no encoding, by name": b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "a control character before chunked": b"Transfer-Encoding:\x0bchunked\r\n\r\n" + CHUNKS,
    "chunked twice": CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
    "chunked, then something else": CHUNKED + b"Transfer-Encoding: cow\r\n\r\n" + CHUNKS,
    "a folded encoding": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "a folded header": b"X-A: 1\r\n " + LENGTH + b"\r\n" + BODY,
    "a line that ends with a bare LF": b"X-A: 1\n" + LENGTH + b"\r\n" + BODY,
    "a line that ends with a bare CR": b"X-A: 1\r" + LENGTH + b"\r\n" + BODY,
    "a head that ends with a bare LF": LENGTH + b"\n" + BODY,
    "a head that ends with a bare CR": LENGTH + b"\r" + BODY,
    "a bare LF in a chunk's extension": CHUNKED + b"\r\n%x;a\nb\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a bare CR in a chunk's extension": CHUNKED + b"\r\n%x;a\rb\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a chunk's size that ends with a bare LF": CHUNKED + b"\r\n%x\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a blank after a chunk's size": CHUNKED + b"\r\n%x \r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a chunk's size with a prefix": CHUNKED + b"\r\n0x%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a chunk's size with an underscore": CHUNKED + b"\r\n0_%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a chunk's size beyond 64 bits": CHUNKED + b"\r\n1%016x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a chunk without its end": CHUNKED + b"\r\n%x\r\n%s0\r\n\r\n" % (len(BODY), BODY),
    "a chunk that ends with something else": CHUNKED + b"\r\n%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY),
    "a length after the chunks": CHUNKED
    + b"\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    + b"Content-Length: %d\r\n\r\n" % len(SECOND),
}
UNDERSTOOD = {
    "a length": LENGTH + b"\r\n" + BODY,
    "a length with zeros before it": b"Content-Length: 000%d\r\n\r\n" % len(BODY) + BODY,
    "chunks": CHUNKED + b"\r\n" + CHUNKS,
    "chunks in any case": b"tRaNsFeR-eNcOdInG: cHuNkEd\r\n\r\n" + CHUNKS,
    "a size with zeros before it": CHUNKED + b"\r\n000%x\r\n%s\r\n000\r\n\r\n" % (len(BODY), BODY),
    "chunks with extensions": CHUNKED + b'\r\n%x;a="\\";b"\r\n%s\r\n0;c\r\n\r\n' % (len(BODY), BODY),
    "chunks with a trailer": CHUNKED + b"\r\n%x\r\n%s\r\n0\r\nX-Late: 1\r\n\r\n" % (len(BODY), BODY),
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with closing(Receiver(tmp_path_factory.mktemp("framing"))) as running:
        yield running


def _sent(receiver: Receiver, request: bytes) -> tuple[Answers, list[bytes]]:
    """Return the answers to it and to what follows on the connection, and what is in the log since."""
    before = len(receiver.events())
    answers = exchange(receiver.port, request + SECOND + LAST)
    assert receiver.dead_letters() == []
    return answers, [record.value for record in receiver.events()[before:]]


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_signed_or_not_and_nothing_after_it_is_read(
    receiver: Receiver, what: str
) -> None:
    answers, records = _sent(receiver, HEAD + AMBIGUOUS[what])
    assert (answers.statuses, records) == ([400], [])


@pytest.mark.parametrize("what", UNDERSTOOD)
def test_what_can_be_read_in_one_way_only_is_and_what_follows_is_a_request_of_its_own(
    receiver: Receiver, what: str
) -> None:
    answers, records = _sent(receiver, HEAD + UNDERSTOOD[what])
    assert (answers.statuses, records) == ([202, 401, 404], [BODY])


def test_a_body_that_looks_like_a_request_is_a_body(receiver: Receiver) -> None:
    inside = HEAD + UNDERSTOOD["a length"]
    get = b"GET /healthz HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Length: %d\r\n\r\n" % len(inside)
    forged = (
        f"POST {SALES} HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Length: {len(inside)}\r\n\r\n".encode()
    )
    nowhere = forged.replace(b"sales", b"nobody")
    for outer, status in ((get, 200), (forged, 401), (nowhere, 404)):
        answers, records = _sent(receiver, outer + inside)
        assert (answers.statuses, records) == ([status, 401, 404], [])


def test_after_a_body_that_was_refused_unread_the_next_request_begins_where_it_ends(
    receiver: Receiver,
) -> None:
    inside = HEAD + UNDERSTOOD["a length"]
    huge = (
        f"POST {SALES} HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Length: {2 * 1024 * 1024}\r\n\r\n"
    ).encode()
    answers, records = _sent(receiver, huge + inside.ljust(2 * 1024 * 1024, b"\n"))
    assert (answers.statuses, records) == ([413, 401, 404], [])
