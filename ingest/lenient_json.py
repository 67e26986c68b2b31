"""A reader of JSON that strict readers refuse because of one value; all other values are read.

RFC 8259 leaves limits of size, depth and numbers to each reader (section 9), allows a byte order mark to be
ignored (8.1), and says that what readers make of half a surrogate pair differs (8.2):
https://www.rfc-editor.org/rfc/rfc8259
"""

import json
import math
import re
from typing import Any

from ingest.json_nesting import replace_deep

_DEEPEST = 100  # no vendor nests deeper than ten levels
# An integer with more digits fits into no column. Python itself refuses to read 4,300 digits.
_MAX_DIGITS = 1000

_ESCAPE = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def loads(raw: bytes) -> Any:
    """Read JSON leniently.

    Half a surrogate pair becomes a replacement character, a value that is nested too deep null, and a number
    with too many digits infinity. A byte order mark, and control characters in strings, are accepted. The
    last value of a repeated key counts, as with strict readers. Raises ValueError for what is not JSON even
    so.
    """
    text = raw.decode("utf-8-sig", errors="replace")
    repaired = _ESCAPE.sub(lambda escape: escape[1] or "\\ufffd", text)
    return json.loads(replace_deep(repaired, _DEEPEST, lambda _: "null"), strict=False, parse_int=_integer)


def _integer(digits: str) -> int | float:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf
