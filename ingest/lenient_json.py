"""JSON that strict readers refuse for the sake of one value, read so that all its other values are there.

RFC 8259 leaves limits of size, depth and numbers to each reader (section 9), allows a byte order mark to be ignored (8.1), and
says that what readers make of half a surrogate pair differs (8.2): https://www.rfc-editor.org/rfc/rfc8259
"""

import json
import math
import re
from typing import Any

# No vendor nests deeper than ten levels; what is below this level is null.
_DEEPEST = 100
# Beyond this a whole number is larger than any that a column holds. Python itself refuses to read 4,300 digits.
_MOST_DIGITS = 1000

# A string that is not closed runs to the end: looking for its end again from each quote inside it would take hours.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_ESCAPE = re.compile(r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def loads(raw: bytes) -> Any:
    """Read JSON, with a replacement character for each half character, null for what is nested too deep, infinity for a number too long.

    A byte order mark and control characters in strings are let pass. Of a key that is there twice the last value counts, as with strict
    readers. Raises ValueError for what is not JSON even then.
    """
    text = raw.decode("utf-8-sig", errors="replace")
    whole = _ESCAPE.sub(lambda escape: escape[1] or "\\ufffd", text)
    return json.loads(_cut_below(_DEEPEST, whole), strict=False, parse_int=_integer)


def _integer(digits: str) -> int | float:
    if len(digits) <= _MOST_DIGITS:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf


def _cut_below(deepest: int, text: str) -> str:
    """Put null in place of each array and object that `deepest` others are around."""
    parts, kept_to, depth = [], 0, 0
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == deepest + 1:
                parts += [text[kept_to : token.start()], "null"]
        elif token[0] in "]}":
            if depth == deepest + 1:
                kept_to = token.end()
            depth -= 1
    unclosed = depth > deepest
    return "".join(parts) if unclosed else "".join(parts) + text[kept_to:]
