"""A parser of vendors' JSON that returns only values which a warehouse can hold.

A value that a warehouse could not hold unchanged becomes text. The functions here are pure.
"""

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
    """Return the value of a JSON document. Raises ValueError when the content is not JSON.

    Half of a surrogate pair becomes a replacement character: programs write such halves when they cut texts
    at a fixed length. A whole number beyond 64 bits becomes text, and so does a value that is nested too
    deeply.
    """
    if not _LONG_NUMBER.search(content):  # orjson would round a long number
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass
    text = content.decode(json.detect_encoding(content), "surrogatepass")
    flat_text = replace_deep(text, _DEEPEST, json.dumps)
    value = json.loads(flat_text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=str)
    return orjson.loads(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", json.dumps(value, ensure_ascii=False)))


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object in a response; an empty one where the response is anything else."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _parse_int(digits: str) -> int | str:
    # `int` would raise for thousands of digits.
    # https://docs.python.org/3/library/stdtypes.html#int-max-str-length
    if len(digits) > len(str(_SMALLEST)):
        return digits
    value = int(digits)
    return value if _SMALLEST <= value <= _LARGEST else digits


def _parse_float(digits: str) -> float | str:
    """Return a number as a float; as text where it is too large for one.

    Such a float would be infinite, which is not JSON.
    """
    value = float(digits)
    return value if abs(value) != float("inf") else digits
