"""A strict and quick reader of JSON."""

from functools import lru_cache
from typing import Any

import orjson

_MOST_BRACKETS = 500  # a payload with fewer is not nested so deep that anything recurses too far
# Writes a number with one digit only, and what may come before it as a comma. The first integer of more than
# 64 bits has 20 digits.
_SHAPE = bytes.maketrans(b"123456789:[ \t\r\n", b"000000000,,,,,,")
_LONG_NUMBERS = (b"," + b"0" * 20, b",-" + b"0" * 20)


@lru_cache(maxsize=1)
def loads(raw: bytes) -> Any:
    """Read JSON, and keep what the last document holds: a payload is checked first, and mapped then.

    Nobody may change what this returns. Raises ValueError for what is not JSON.
    """
    return orjson.loads(raw)


def may_be_inexact(raw: bytes) -> bool:
    """Return whether `loads` may round an integer, or return what is nested too deep for others."""
    if raw.count(b"[") + raw.count(b"{") > _MOST_BRACKETS:
        return True
    return any(map(raw.translate(_SHAPE).__contains__, _LONG_NUMBERS))
