"""Small, rightly signed bodies that are large to whoever unpacks or parses them carelessly."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from tests.consumers.harness import open_consumer
from tests.fuzz.accounts import ACCOUNTS, Sample, booking_sample, environment, sign
from tests.receivers.in_process import stored
from tests.receivers.requests import Request
from tests.receivers.running import DEAD_LETTERS, Receiver, on_linux
from tests.support.settings import settings_tree

MIB = 1024 * 1024
LIMIT = MIB
MARK = "here"

LITERALS = {
    "arrays in arrays": b"[" * (LIMIT // 2),
    "objects in objects": b'{"a":' * (LIMIT // 8),
    "closed arrays in arrays": b"[" * (LIMIT // 4) + b"]" * (LIMIT // 4),
    "digits": b"9" * (LIMIT // 2),
    "digits after a point": b"0." + b"9" * (LIMIT // 2),
    "an exponent": b"1e" + b"9" * 1000,
    "a small exponent": b"1e-" + b"9" * 1000,
    "a number as text": b'"' + b"9" * (LIMIT // 2) + b'"',
    "an exponent as text": b'"1e999999999"',
    "many keys": b"{" + b",".join(b'"%d":0' % number for number in range(LIMIT // 16)) + b"}",
    "one key many times": b"{" + b",".join([b'"a":{}'] * (LIMIT // 16)) + b"}",
    "many entries": b"[" + b",".join([b'{"id":1}'] * (LIMIT // 16)) + b"]",
    "a long text": b'"' + b"x" * (LIMIT // 2) + b'"',
    "a long text of escapes": b'"' + b"\\u0000" * (LIMIT // 12) + b'"',
    "a long text of backslashes": b'"' + b"\\\\" * (LIMIT // 6) + b'\\u0000"',
    "a long time": b'"2026-06-09T21:37:18.' + b"0" * (LIMIT // 2) + b'Z"',
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with closing(Receiver(tmp_path_factory.mktemp("bombs"), **environment())) as running:
        yield running


def _signed(original: Sample, body: bytes, *beside: tuple[str, str]) -> Request:
    return Request(
        original.path, (*sign(original.account, original.query, body, "m1"), *beside), (body,), original.query
    )


def _bombs(original: Sample) -> list[bytes]:
    """Return each literal as the whole body, and as deep in a true one as there is a place."""
    places = [max(original.places, key=len)]
    return [
        bomb
        for literal in LITERALS.values()
        for bomb in (literal, *(_with(original.body, path, literal) for path in places))
    ]


def _with(body: bytes, path: tuple[object, ...], literal: bytes) -> bytes:
    document = part = json.loads(body)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = MARK
    return json.dumps(document).encode().replace(f'"{MARK}"'.encode(), literal)


@pytest.mark.parametrize("vendor", [table["vendor"] for table in ACCOUNTS.values()])
def test_no_depth_and_no_number_keeps_a_signed_delivery_out_of_the_log_nor_the_record_out_of_the_warehouse(
    tmp_path: Path, vendor: str
) -> None:
    original = booking_sample(vendor)
    with closing(Receiver(tmp_path, **environment())) as receiver:
        statuses = [receiver.send(_signed(original, bomb)).status_code for bomb in _bombs(original)]
        assert statuses == [202] * len(statuses)
        assert receiver.send(_signed(original, original.body)).status_code == 202
        assert "parse_crashed" not in receiver.written()
    sent, events = len(statuses) + 1, len(stored(receiver.log, f"bookings.{vendor}"))
    assert events + len(receiver.dead_letters()) == sent
    with open_consumer(settings_tree(tmp_path, dead_letter_limit=sent)) as harness:
        harness.load()
        set_aside = harness.column("select count(*) from dead_letters where position is not null")[0]
        assert harness.column("select count(*) from dead_letters where reason = 'mapping_crashed'") == [0]
        assert harness.column("select count(distinct position) from booking_events")[0] >= 1
        assert harness.written(DEAD_LETTERS) == sent - events + set_aside


@on_linux
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "br", "gzip, gzip", "x-gzip"])
def test_a_compressed_body_is_kept_as_it_came_and_nobody_unpacks_it(
    receiver: Receiver, encoding: str
) -> None:
    zeros = bytes(MIB)
    packed = {"deflate": zlib.compress(zeros * 64), "zstd": zstandard.compress(zeros * 256)}.get(
        encoding, gzip.compress(zeros) * 900
    )
    original, before = booking_sample("calendly"), receiver.resident()
    for _ in range(3):
        assert receiver.send(_signed(original, packed, ("Content-Encoding", encoding))).status_code == 202
    assert receiver.resident() - before < 32 * MIB
    letters = receiver.dead_letters()[-3:]
    assert [letter.value for letter in letters] == [packed] * 3
    assert {letter.headers["dl_reason"] for letter in letters} == {"unreadable_payload"}


def test_a_true_payload_that_came_compressed_is_no_event_but_none_of_it_is_lost(receiver: Receiver) -> None:
    """No vendor compresses. If one begins to, what it sent can be redriven once we can read it."""
    original = booking_sample("calendly")
    packed = gzip.compress(original.body)
    events = len(receiver.events())
    assert receiver.send(_signed(original, packed, ("Content-Encoding", "gzip"))).status_code == 202
    assert len(receiver.events()) == events
    letter = receiver.dead_letters()[-1]
    assert gzip.decompress(letter.value) == original.body
    assert json.loads(letter.headers["dl_headers"])["content-encoding"] == "gzip"
