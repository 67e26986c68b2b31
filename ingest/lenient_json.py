"""JSON that strict readers refuse for the sake of one value, read so that all its other values are there.

RFC 8259 leaves limits of size, depth and numbers to each reader (section 9), allows a byte order mark to be ignored (8.1), and
says that what readers make of half a surrogate pair differs (8.2): https://www.rfc-editor.org/rfc/rfc8259
"""

import json
import math
import re
from typing import Any

from ingest.json_nesting import replace_deep

# No vendor nests deeper than ten levels; what is below this level is null.
_DEEPEST = 100
# Beyond this a whole number is larger than any that a column holds. Python itself refuses to read 4,300 digits.
_MOST_DIGITS = 1000

_ESCAPE = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def loads(raw: bytes) -> Any:
    """Read JSON, with a replacement character for each half character, null for what is nested too deep, infinity for a number too long.

    A byte order mark and control characters in strings are let pass. Of a key that is there twice the last value counts, as with strict
    readers. Raises ValueError for what is not JSON even then.
    """
    text = raw.decode("utf-8-sig", errors="replace")
    whole = _ESCAPE.sub(lambda escape: escape[1] or "\\ufffd", text)
    return json.loads(replace_deep(whole, _DEEPEST, lambda _: "null"), strict=False, parse_int=_integer)


def _integer(digits: str) -> int | float:
    if len(digits) <= _MOST_DIGITS:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf
