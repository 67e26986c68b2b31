"""Make visible what a text could do to a terminal: anybody can book under the name they like."""

import re
from collections.abc import Callable
from unicodedata import category

# Controls (C0, DEL, C1), formats (bidi overrides, zero-width characters, tags), halves of surrogate pairs, private use, line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]+")


def visible(text: str, keep: str = "") -> str:
    r"""Write what does not show, or drives a terminal, as an escape such as `\x1b` or `\u202e`; all but the characters in `keep`."""
    return replace_hidden(text, lambda one: one if one in keep else one.encode("unicode_escape").decode())


def replace_hidden(text: str, replace: Callable[[str], str]) -> str:
    """Replace every hidden character, and nothing else."""
    return (
        text
        if text.isprintable()
        else _BEYOND_ASCII.sub(
            lambda run: "".join(replace(one) if category(one) in _HIDDEN else one for one in run[0]), text
        )
    )
