"""Tests of parsing a vendor's JSON, with what programs of all kinds write."""

from typing import Any

import orjson
import pytest

from ingest.rest.responses import parse_json


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"9223372036854775808", "9223372036854775808"),
        (b"18446744073709551616", "18446744073709551616"),
        (b"-9223372036854775809", "-9223372036854775809"),
        (b"9" * 6000, "9" * 6000),
        (b"1e400", "1e400"),
        (b"[-1e400, 1.5]", ["-1e400", 1.5]),
        (b'"12345678901234567890123"', "12345678901234567890123"),
        (b'"a\\ud800b"', "a\ufffdb"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (
            b'{"a": {"serial": 99999999999999999999, "name": "x"}}',
            {"a": {"serial": "99999999999999999999", "name": "x"}},
        ),
    ],
)
def test_what_no_column_holds_is_text_and_all_else_as_it_is(written: bytes, read: Any) -> None:
    assert parse_json(written) == read


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_what_is_nested_too_deeply_is_text_and_its_neighbours_are_read(
    opening: bytes, closing: bytes
) -> None:
    deep = opening * 3000 + b'"]}\\"[{ the bottom"' + closing * 3000
    parsed = parse_json(b'{"before": 1, "deep": ' + deep + b', "after": [' + deep + b", 2]}")
    assert (parsed["before"], parsed["after"][1]) == (1, 2)
    assert "the bottom" in orjson.dumps(parsed["deep"]).decode()
    assert "the bottom" in orjson.dumps(parsed["after"][0]).decode()


# An answer that was cut off within JSON that is a string of JSON: a quadratic reader would take hours for it.
CUT = b'{"serial":99999999999999999999,"note":"' + b'\\"' * 500_000
NONSENSE = [b"", b"<html>", b'{"a":', b"[" * 100_000, b"]" * 100_000, b'"\xff"', b"[[]", b'"a', CUT]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
def test_what_is_no_json_is_an_error(nonsense: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each kind of nonsense has another message
        parse_json(nonsense)
