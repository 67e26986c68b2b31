"""Tests of reading the fields of a shape: a document that strict parsers refuse gives the same values."""

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Struct

from ingest.errors import PayloadError
from ingest.vendors.fields import (
    MaybeList,
    MaybeObject,
    convert_fields,
    read_fields,
    read_id,
    read_instant,
    read_maybe_instant,
    read_part,
    read_parts,
    read_text,
)


class Subject(Struct):
    """The object of a message."""

    name: object = UNSET


class Message(Struct):
    """A message with a field of each kind."""

    id: object = UNSET
    at: object = UNSET
    ended_at: object = UNSET
    subject: MaybeObject[Subject] = UNSET
    subjects: MaybeList[Subject] = UNSET


Fields = tuple[str, datetime, datetime | None, str | None, list[str | None]]


def fields_of(message: Message) -> Fields | None:
    """Return what the fields mean; None where one of them is wrong."""
    subject = read_part(Subject, message.subject) or Subject()
    try:
        return (
            read_id("id", message.id),
            read_instant("at", message.at),
            read_maybe_instant("ended_at", message.ended_at),
            read_text(subject.name),
            [read_text(part.name) for part in read_parts(Subject, message.subjects)],
        )
    except PayloadError:
        return None


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, "", " ", "E1", " E1", "E\x00", "E\ufffd", "\ud800", "x" * 1024, "x" * 1025, "é" * 513),
        *(0, 5, 2**64, 2**200, -1, 1.5, 1e300, True, [], [1], {}, {"name": "n"}, {"name": 2**70}),
        *([{"name": "n"}, "n", None, 2**70, [{}]], [{"name": {"name": "n"}}]),
        *("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.123456Z", "2026-01-01T10:00:00+02:00"),
        *("2026-01-01T24:00:00Z", "2026-12-31T23:59:60Z", "2026-13-01T00:00:00Z", "2026-01-01T10:00:00"),
        *("9999-12-31T23:59:59-01:00", "2026-01-01 10:00:00Z", "1767261600", 1767261600, "today"),
    ]
)
GOOD = {"id": "E1", "at": "2026-01-01T10:00:00Z"}
NAMES = ("id", "at", "ended_at", "subject", "subjects", "more")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, ODD)))
def test_whatever_the_values_are_each_way_of_reading_them_gives_the_same(values: dict[str, Any]) -> None:
    for document in (values, GOOD | values):
        raw = json.dumps(document).encode()
        lenient = raw[:-1] + (b"," if document else b"") + b'"nobody reads this": NaN}'
        messages = read_fields(Message, raw), read_fields(Message, lenient)
        assert fields_of(messages[0]) == fields_of(messages[1])
        if "\\ud800" not in raw.decode():  # which becomes a replacement character where bytes are read
            assert messages[0] == messages[1] == convert_fields(Message, document)


@pytest.mark.parametrize(
    "raw",
    [
        b'\xef\xbb\xbf{"id":"E1","at":"2026-01-01T10:00:00Z"}',
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","more":"\xff"}',
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","more":"\\ud800"}',
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","more":NaN}',
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","more":"a\tb"}',
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","subject":{"name":"\\ud800"}}',
        b'{"id":"E0","id":"E1","at":"2026-01-01T10:00:00Z"}',
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":"E1","at":"2026-01-01T10:00:00Z","more":' + b"9" * 5000 + b"}",
    ],
)
def test_a_message_that_strict_readers_refuse_is_read(raw: bytes) -> None:
    assert fields_of(read_fields(Message, raw)) is not None


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'"text"', b"null", b"{} {}", b"<html>"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(PayloadError):
        read_fields(Message, raw)


class Typed(Struct):
    """A shape with a typed field."""

    id: str


def test_a_value_of_another_type_is_named_by_its_field_alone() -> None:
    with pytest.raises(PayloadError, match=r"\$\.id") as wrong:
        read_fields(Typed, b'{"id":["secret"]}')
    assert "secret" not in str(wrong.value)
