"""Hypothesis strategies for what may come in from outside, from noise to nearly right."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

# Values that have broken readers of JSON before: edges of time, of numbers and of text, and unexpected types.
AWKWARD: st.SearchStrategy[Any] = st.sampled_from(
    [
        "", " ", "\x00", "a\x00b", "\ud800", "null", "0", "-1", "1e999", "٣", "9" * 5000, "=,=", "Z",
        "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-23:59", "2026-06-09",
        "2026-06-09T21:37:17", "2026-02-30T00:00:00Z", 0, -1, 1 << 63, 10**400, 1e308, float("inf"),
        float("nan"), True, False, None, [], {}, [None], [[]], {"": ""},
    ]
)  # fmt: skip

TEXT = st.text(max_size=30)
JSON: st.SearchStrategy[Any] = st.recursive(
    AWKWARD
    | TEXT
    | st.integers()
    | st.floats()
    | st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)

# A header's value as a server hands it on: ISO 8859-1 without blanks at its ends.
HEADER_VALUES = st.one_of(
    st.text(st.characters(codec="latin-1"), max_size=60),
    st.integers(min_value=-(10**20), max_value=10**20).map(str),
    st.sampled_from(
        [
            "t=,v1=",
            "t=1,v1=\xe9",
            "t=\xb2,v1=0",
            "t=1",
            "t=1,t=1,v1=0",
            "v1=0",
            "=",
            ",",
            "Basic",
            "Basic ",
            "Basic \xe9",
            "Basic Og==",
        ]
    ),
).map(str.strip)


def to_json(value: object) -> bytes:
    """Return the value as JSON, also what is not quite JSON: NaN, half of a surrogate pair."""
    return json.dumps(value).encode()


@st.composite
def altered(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """Draw the document with up to three of its parts replaced by anything or left out.

    The parts are at any depth.
    """
    alteration = deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        if not alteration:
            break
        parent, key = draw(st.sampled_from(_parts(alteration)))
        if draw(st.booleans()):
            # The value is copied: the next round may reach into it, and it may be drawn again.
            parent[key] = deepcopy(draw(JSON))
        else:
            del parent[key]
    return alteration


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Return every part of a document, as its container and its key or index."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    return [part for key in keys for part in [(value, key), *_parts(value[key])]]


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    """Draw the bytes with one byte changed, inserted or removed; never the original."""
    position = draw(st.integers(0, len(original) - 1))
    operation = draw(st.sampled_from(["change", "insert", "remove"]))
    if operation == "remove":
        return original[:position] + original[position + 1 :]
    if operation == "insert":
        return original[:position] + draw(st.binary(min_size=1, max_size=1)) + original[position:]
    byte = draw(st.integers(1, 255)) ^ original[position]
    return original[:position] + bytes([byte]) + original[position + 1 :]


def garbled(value: str) -> st.SearchStrategy[str]:
    """Return a strategy for another value of a header; never the value itself.

    The value has a byte changed, inserted or removed, is cut short, or is anything else.
    """
    one_byte = changed(value.encode("latin-1")).map(lambda raw: raw.decode("latin-1").strip())
    cut = st.integers(0, len(value) - 1).map(lambda end: value[:end].strip())
    return (one_byte | cut | HEADER_VALUES).filter(
        lambda other: _parts_of_list(other) != _parts_of_list(value)
    )


def _parts_of_list(value: str) -> list[str]:
    """Split a header's list; blanks around the parts of a list change nothing."""
    return [part.strip(" \t") for part in value.split(",")]
