"""A bound on how deep JSON is nested, for parsers that recurse and fail, or end their process, at some depth.

Pure.
"""

import re
from collections.abc import Callable

# A string that is not closed runs to the end of the text: to look for its end again from each quote inside
# would take hours.
STRING = r'"(?:[^"\\]++|\\.)*+"?'
_STRING_OR_BRACKET = re.compile(rf"{STRING}|[\[\]{{}}]", re.DOTALL)


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
