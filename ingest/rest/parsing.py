"""Parses vendors' JSON so that a warehouse can hold every value; what it could not hold as it is becomes text. Pure."""

import json
import re
from typing import Any

import orjson
from requests import Response

from ingest.json_nesting import replace_deep

# Parsers give up on deeper nesting. Every vendor's records have fewer than ten levels.
_DEEPEST = 200
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_NUMBER = re.compile(rb"\d{19}")


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON document. Raises ValueError for what is not JSON.

    Half a character, which programs write that cut texts at some length, becomes a replacement character. A whole number beyond 64 bits,
    and whatever is nested too deeply, become text.
    """
    if not _LONG_NUMBER.search(content):  # orjson would round it
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass
    text = content.decode(json.detect_encoding(content), "surrogatepass")
    nested = replace_deep(text, _DEEPEST, json.dumps)
    parsed = json.loads(nested, parse_int=_parse_int, parse_float=_parse_float, parse_constant=str)
    return orjson.loads(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", json.dumps(parsed, ensure_ascii=False)))


def json_object(response: Response) -> dict[str, Any]:
    """Return the object in a response; an empty one where the response is anything else."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _parse_int(digits: str) -> int | str:
    # A number of thousands of digits would raise. https://docs.python.org/3/library/stdtypes.html#int-max-str-length
    if len(digits) > len(str(_SMALLEST)):
        return digits
    value = int(digits)
    return value if _SMALLEST <= value <= _LARGEST else digits


def _parse_float(digits: str) -> float | str:
    """Return a number that is too large for a double as text: it would be infinite, which is not JSON."""
    value = float(digits)
    return value if abs(value) != float("inf") else digits
