"""Tests of JSON that databases do not take, in a field that nobody reads: only that part is replaced."""

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.json_text import MAX_DEPTH, json_text
from ingest.errors import PayloadError
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import TOPIC, sample
from tests.ingest.vendors.anything import changed

DEEP = "[" * 3000 + '"\\"]"' + "]" * 3000
ODD = {
    "half a surrogate pair": (r'"a\ud800b"', "a\N{REPLACEMENT CHARACTER}b"),
    "halves in the wrong order": (r'"\udc00\ud83d"', "\N{REPLACEMENT CHARACTER}" * 2),
    "a half beside a pair": (r'"\ud83d\ud83d\ude00"', "\N{REPLACEMENT CHARACTER}\N{GRINNING FACE}"),
    "an escaped backslash before u": (r'"\\ud800"', r"\ud800"),
    "NUL": (r'"a\u0000b"', "a\N{REPLACEMENT CHARACTER}b"),
    "too large a number": ("1e400", "1e400"),
    "far too large a number": ("-1E+999999", "-1E+999999"),
    "too small a number": ("1e-20000", "1e-20000"),
    "zero with an exponent": ("0e999", 0),
    "400 digits and more": ("9" * 420, "9" * 420),
    "a number of few digits that is too large": ("9" * 310, "9" * 310),
    "a number that is too large by digits and exponent": ("9" * 220 + "e99", "9" * 220 + "e99"),
    "a long fraction": ("0." + "1" * 20_000, "0." + "1" * 20_000),
    "an honest large number": ("12345678901234567890123", 12345678901234567890123),
}


def payload(odd: str) -> bytes:
    """Return the payload of a booking with this in a field without a meaning."""
    event = sample(1, "B1", unknown_field="HERE")
    return event.data.replace(b'"HERE"', odd.encode())


def unknown_field(data: Any) -> Any:
    return (data if isinstance(data, dict) else json.loads(data))["data"]["unknown_field"]


@pytest.mark.parametrize(("odd", "expected"), ODD.values(), ids=ODD)
def test_an_odd_value_is_replaced_and_nothing_else(odd: str, expected: object) -> None:
    data = payload(odd)
    text = json_text(data)
    assert unknown_field(json.loads(text)) == expected
    before, _, after = data.decode().partition(odd)
    assert (text.startswith(before), text.endswith(after)) == (True, True)


def test_what_is_nested_too_deep_becomes_its_text() -> None:
    value = unknown_field(json.loads(json_text(payload(DEEP))))
    depth = 2  # the event and its data
    while isinstance(value, list):
        (value,) = value
        depth += 1
    assert depth == MAX_DEPTH
    assert value == DEEP[MAX_DEPTH - 2 : 2 - MAX_DEPTH]


# A quadratic reader would take hours for it.
NEVER_CLOSED = b'{"a":"' + b'\\"' * 500_000
NO_JSON = [
    b"",
    b"{",
    b"nul",
    b"[1e400",
    b'"\\ud800',
    b'{"a": 01e999}',
    b"[1}",
    b'"\\x\\u0000"',
    b"1e400 x",
    NEVER_CLOSED,
]


@pytest.mark.parametrize("data", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json_stays_none(data: bytes) -> None:
    with pytest.raises(PayloadError):
        json_text(data)


@given(
    st.recursive(
        st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=9,
    )
)
@example([1e308, 5e-324, -0.0])
def test_what_every_database_takes_is_kept_as_it_was_written(value: object) -> None:
    data = json.dumps(value)
    if "\\u0000" not in data:
        assert json_text(data.encode()) == data


@given(
    st.binary(max_size=60)
    | st.text('[]{}":,\\u0d8-1e9', max_size=60).map(str.encode)
    | changed(payload('"ä\\u00e4", "number": [-1.5e9, 0]'))
)
def test_any_bytes_are_json_that_is_safe_or_a_payload_error(data: bytes) -> None:
    try:
        text = json_text(data)
    except PayloadError:
        return
    orjson.loads(text)


def test_one_load_has_all_of_them(either_harness: ConsumerHarness) -> None:
    events = [
        replace(sample(number, f"B{number}"), data=payload(odd).replace(b'"B1"', b'"B%d"' % number))
        for number, odd in enumerate([*(odd for odd, _ in ODD.values()), DEEP])
    ]
    either_harness.append_records(TOPIC, *(event.to_record() for event in events))
    either_harness.load()
    assert either_harness.column("select detail from dead_letters") == []
    rows = either_harness.rows("select id, data from booking_events")
    assert len(rows) == len(events)
    fields = {row["id"]: unknown_field(row["data"]) for row in rows}
    for number, (_, expected) in enumerate(ODD.values()):
        assert (
            fields[f"E{number}"] == pytest.approx(expected)
            if isinstance(expected, int)
            else fields[f"E{number}"] == expected
        )
