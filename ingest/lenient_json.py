"""A reader of JSON that strict readers refuse because of one value; all other values are read.

RFC 8259 leaves limits of size, depth and numbers to each reader (section 9), allows a byte order mark to be
ignored (8.1), and says that what readers make of half a surrogate pair differs (8.2):
https://www.rfc-editor.org/rfc/rfc8259

Depth is bounded here, since parsers recurse and fail, or end their process, at some depth.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

_MAX_DEPTH = 100  # no vendor nests deeper than ten levels
# An integer with more digits fits into no column. Python itself refuses to read 4,300 digits.
_MAX_DIGITS = 1000

_ESCAPE = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)

# A string that is not closed runs to the end of the text: to look for its end again from each quote inside
# would take hours.
STRING = r'"(?:[^"\\]++|\\.)*+"?'
_STRING_OR_BRACKET = re.compile(rf"{STRING}|[\[\]{{}}]", re.DOTALL)


def loads(raw: bytes) -> Any:
    """Read JSON leniently.

    Half a surrogate pair becomes a replacement character, a value that is nested too deep null, and a number
    with too many digits infinity. A byte order mark, and control characters in strings, are accepted. The
    last value of a repeated key counts, as with strict readers. Raises ValueError for what is not JSON even
    so.
    """

    def parse_int(digits: str) -> int | float:
        if len(digits) <= _MAX_DIGITS:
            return int(digits)
        return -math.inf if digits.startswith("-") else math.inf

    text = raw.decode("utf-8-sig", errors="replace")
    repaired = _ESCAPE.sub(lambda escape: escape[1] or "\\ufffd", text)
    return json.loads(replace_deep(repaired, _MAX_DEPTH, lambda _: "null"), strict=False, parse_int=parse_int)


def replace_deep(text: str, deepest: int, replacement: Callable[[str], str]) -> str:
    """Replace the text of each array and object that is nested in `deepest` others.

    The rest is left as it is, JSON or not. An array or object of that depth that is not closed is cut off, so
    that no parser meets it.
    """
    parts: list[str] = []
    depth, copied, start = 0, 0, 0
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == deepest + 1:
                start = token.start()
        elif token[0] in "]}":
            if depth == deepest + 1:
                parts += [text[copied:start], replacement(text[start : token.end()])]
                copied = token.end()
            depth -= 1
    is_open = depth > deepest
    return "".join([*parts, text[copied:start] if is_open else text[copied:]])
