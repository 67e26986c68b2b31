"""Reading only the fields that identify an event gives what reading the whole message gives."""

import json
from datetime import datetime
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from ingest.errors import PayloadError
from ingest.vendors.fields import (
    OBJECT,
    Id,
    Instant,
    MaybeInstant,
    NoObject,
    Payload,
    Text,
    read_fields,
    read_id,
    read_instant,
    read_json,
    read_maybe_instant,
    read_text,
)


class Subject(Payload):
    """The object of a message."""

    name: Text = None


class Message(Payload):
    """A whole message, as a mapping reads it."""

    id: Id
    at: Instant
    ended_at: MaybeInstant = None
    subject: Annotated[Subject | None, OBJECT] = None


class LeanSubject(Struct):
    """The same object, for `read_fields`."""

    name: object = None


class LeanMessage(Struct):
    """The same message, for `read_fields`."""

    id: object = None
    at: object = None
    ended_at: object = None
    subject: LeanSubject | NoObject = None


Fields = tuple[str, datetime, datetime | None, str | None]


def by_model(raw: bytes) -> Fields | None:
    try:
        message = read_json(Message, raw)
    except PayloadError:
        return None
    return message.id, message.at, message.ended_at, message.subject.name if message.subject else None


def by_fields(raw: bytes) -> Fields | None:
    try:
        message = read_fields(LeanMessage, raw)
        return (
            read_id("id", message.id),
            read_instant("at", message.at),
            read_maybe_instant("ended_at", message.ended_at),
            read_text(message.subject.name) if isinstance(message.subject, LeanSubject) else None,
        )
    except PayloadError:
        return None


ODD = st.sampled_from(
    [
        *(None, "", " ", "E1", " E1", "E\x00", "E\ufffd", "\ud800", "x" * 1024, "x" * 1025, "é" * 513),
        *(0, 5, 2**64, 2**200, -1, 1.5, 1e300, True, [], [1], {}, {"name": "n"}, {"name": 2**70}),
        *("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.123456Z", "2026-01-01T10:00:00+02:00"),
        *("2026-01-01T24:00:00Z", "2026-12-31T23:59:60Z", "2026-13-01T00:00:00Z", "2026-01-01T10:00:00"),
        *("9999-12-31T23:59:59-01:00", "2026-01-01 10:00:00Z", "1767261600", 1767261600, "today"),
    ]
)
GOOD = {"id": "E1", "at": "2026-01-01T10:00:00Z"}


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "at", "ended_at", "subject", "more"), ODD)))
def test_whatever_the_values_are_both_read_the_same(values: dict[str, Any]) -> None:
    for message in (values, GOOD | values):
        raw = json.dumps(message).encode()
        assert by_fields(raw) == by_model(raw)


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
    assert by_fields(raw) == by_model(raw) is not None


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'"text"', b"null", b"{} {}", b"<html>"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    assert by_fields(raw) is by_model(raw) is None


def test_an_error_names_the_field_and_not_its_value() -> None:
    with pytest.raises(PayloadError, match=r"payload\.uri: wrong") as wrong:
        read_id("payload.uri", " secret")
    assert "secret" not in str(wrong.value)
    with pytest.raises(PayloadError, match="at: missing"):
        read_instant("at", None)


class Typed(Struct):
    """A shape with a typed field."""

    id: str


def test_a_value_of_another_type_is_named_by_its_field_alone() -> None:
    with pytest.raises(PayloadError, match=r"\$\.id") as wrong:
        read_fields(Typed, b'{"id":["secret"]}')
    assert "secret" not in str(wrong.value)
