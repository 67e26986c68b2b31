"""Blocks of the documentation that `make docs` generates from the code.

A block named `settings` is between the lines `<!-- settings -->` and `<!-- end of settings -->`.
"""

from collections.abc import Iterable


def replace_block(text: str, name: str, lines: Iterable[str]) -> str:
    """Return the document with other lines in a block. Raises ValueError when it has no such block."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the document has no block named {name}")
    return text.partition(begin)[0] + begin + "\n".join([*lines, end]) + text.partition(end)[2]


def read_block(text: str, name: str) -> str:
    """Return the lines of a block."""
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]
