"""Escapes for texts of strangers, which could drive a terminal: anybody can book under the name they like."""

import re
from collections.abc import Callable
from unicodedata import category

# Controls (C0, DEL, C1), formats (bidi overrides, zero-width characters, tags), halves of surrogate pairs,
# private use, line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]+")


def visible(text: str, keep: str = "") -> str:
    r"""Escape hidden characters, such as `\x1b` or `\u202e`, except those in `keep`."""
    return replace_hidden(text, lambda char: char if char in keep else char.encode("unicode_escape").decode())


def replace_hidden(text: str, replace: Callable[[str], str]) -> str:
    """Replace every character that does not show or drives a terminal, and nothing else."""
    return (
        text
        if text.isprintable()
        else _BEYOND_ASCII.sub(
            lambda run: "".join(replace(char) if category(char) in _HIDDEN else char for char in run[0]), text
        )
    )
