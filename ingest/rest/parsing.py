"""A vendor's JSON, as much of it as there is: what no warehouse could hold as it is becomes text. Pure."""

import json
import re
from typing import Any

import orjson

from ingest.json_nesting import replace_deep

# Deeper, a parser gives up. Every vendor's records have fewer than ten levels.
_DEEPEST = 200
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_NUMBER = re.compile(rb"\d{19}")


def parse(content: bytes) -> Any:
    """Raises ValueError for what is not JSON.

    Half of a character, as programs write that cut texts at some length, becomes a replacement character. A whole number beyond
    64 bits, and whatever is nested too deeply, become text.
    """
    if not _LONG_NUMBER.search(content):  # orjson would round it
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass
    text = content.decode(json.detect_encoding(content), "surrogatepass")
    nested = replace_deep(text, _DEEPEST, json.dumps)
    parsed = json.loads(nested, parse_int=_whole, parse_float=_fraction, parse_constant=str)
    return orjson.loads(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", json.dumps(parsed, ensure_ascii=False)))


def _whole(digits: str) -> int | str:
    # A number of thousands of digits would raise. https://docs.python.org/3/library/stdtypes.html#int-max-str-length
    if len(digits) > len(str(_SMALLEST)):
        return digits
    value = int(digits)
    return value if _SMALLEST <= value <= _LARGEST else digits


def _fraction(digits: str) -> float | str:
    """One that is too large for a double is infinite, and no JSON."""
    value = float(digits)
    return value if abs(value) != float("inf") else digits
