"""JSON that strict readers refuse, read as far as it goes."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import lenient_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_what_strict_readers_take_is_read_as_they_read_it(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert lenient_json.loads(text.encode()) == json.loads(text)


@given(raw=st.binary() | st.text('[]{}",:\\u0d8').map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_way(raw: bytes) -> None:
    try:
        lenient_json.loads(raw)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"\uDC00\uD83D"', "\ufffd\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', "\\ud800"),
        (rb'"\\\ud800"', "\\\ufffd"),
        (b'"\xff"', "\ufffd"),
        (b'\xef\xbb\xbf"a"', "a"),
        (b'"a\x00\n"', "a\x00\n"),
        (b"9" * 5000, math.inf),
        (b"-" + b"9" * 5000, -math.inf),
        (b"9" * 400, int("9" * 400)),
        (b"1e400", math.inf),
        (b'{"a":1,"a":2}', {"a": 2}),
    ],
)  # fmt: skip
def test_a_value_that_strict_readers_refuse_is_replaced(written: bytes, read: object) -> None:
    assert lenient_json.loads(written) == read


@pytest.mark.parametrize(("opened", "closed"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_what_is_nested_too_deep_is_null_and_what_follows_it_is_read(opened: bytes, closed: bytes) -> None:
    deep = opened * 20_000 + b"1" + closed * 20_000
    value = lenient_json.loads(
        b'{"before":[1],"deep":' + deep + b',"between":"]}","again":' + deep + b',"after":{"b":2}}'
    )
    assert (value["before"], value["between"], value["after"]) == ([1], "]}", {"b": 2})
    assert "null" in json.dumps(value["deep"])
    assert value["deep"] == value["again"]


@pytest.mark.parametrize(
    "open_end",
    [b"[" * 20_000, b'"' + b'\\"' * 20_000, b'{"a":' * 20_000, b"]" * 20_000, b"[" * 20_000 + b"}"],
)
def test_what_does_not_end_is_refused(open_end: bytes) -> None:
    with pytest.raises(ValueError, match=r"line \d+ column \d+"):
        lenient_json.loads(open_end)
