"""Turns a payload's bytes into JSON text that every destination takes. Pure.

JSON allows more than databases hold: halves of surrogate pairs (DuckDB, PostgreSQL), NUL, numbers of any size
and nesting of any depth (PostgreSQL: https://www.postgresql.org/docs/current/datatype-json.html). Programs
that read payloads also accept some things that JSON does not have: a byte order mark, control characters in
strings, NaN and Infinity. Such parts are replaced, and everything else stays as it was written. The exact
bytes stay in the log.
"""

import re
from math import isfinite

import msgspec
import orjson

from ingest.errors import PayloadError
from ingest.lenient_json import STRING, replace_deep

# What every reader follows: Python's own stops below 1000.
MAX_DEPTH = 500
# A longer number is an attack, and PostgreSQL stops at 16383 digits after the point.
_MAX_DIGITS = 400
# A double holds every number that has fewer digits, and an exponent of at most two.
_FEW_DIGITS = 200
_TOKEN = re.compile(rf"{STRING}|-?[0-9][-+.0-9eE]*|NaN|-?Infinity|[][{{}}]", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
# Finds what may be a number that does not fit, which costs far less than looking at every token.
_LARGE_NUMBER = re.compile(rb"[:\[,\s]-?[0-9.]{1,200}[eE][-+]?[0-9]{3}|[0-9.]{201}")
# Writes a number with one digit and one letter only and without signs, and every bracket that opens as one.
# That expression can only find something in a payload which then has one of these texts, and to look for them
# costs a tenth of it.
_SHAPE = bytes.maketrans(b"123456789.E{", b"0000000000e[")
_LARGE_SHAPES = (b"0e000", b"0" * (_FEW_DIGITS + 1))
_SURROGATE_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_NO_CHARACTER = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\u0000"
_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPE = re.compile(rf"{_SURROGATE_PAIR}|({_NO_CHARACTER})|\\.", re.DOTALL)


# Passes over a document, and checks all but the encoding of its strings.
_CHECKER = msgspec.json.Decoder(msgspec.Raw)


def json_text(data: bytes) -> str:
    """Return the payload unchanged where every destination takes it, else with parts replaced.

    NUL and halves of surrogate pairs become the replacement character. A number that a double cannot hold, or
    with more than 400 digits, becomes its text, and so does what is nested deeper than 500 levels. Raises
    PayloadError when the payload is not JSON.
    """
    if is_fit(data):
        return data.decode()
    text = data.decode("utf-8-sig", errors="replace")
    text = _TOKEN.sub(lambda token: _replacement(token[0]), text)
    text = replace_deep(text, MAX_DEPTH, lambda part: orjson.dumps(part).decode())
    if not _is_json(text.encode()):
        raise PayloadError("the payload is not JSON")
    return text


def is_fit(data: bytes) -> bool:
    """Return whether every destination takes the payload unchanged. Some that are fit count as unfit."""
    shape = data.translate(_SHAPE, b"+-")
    may_have_large_number = _LARGE_SHAPES[0] in shape or _LARGE_SHAPES[1] in shape
    return (
        shape.count(b"[") <= MAX_DEPTH
        and _is_json(data)
        and not (b"\\" in data and b"\\u0000" in data)  # to look for one byte takes no time
        and not (may_have_large_number and _LARGE_NUMBER.search(data))
    )


def _is_json(text: bytes) -> bool:
    try:
        _CHECKER.decode(text)
        if not text.isascii():
            text.decode()
    except ValueError:
        return False
    return True


def _replacement(token: str) -> str:
    if token.startswith('"'):
        escaped = _ESCAPE.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], token)
        return _CONTROL.sub(lambda control: f"\\u{ord(control[0]) or 0xFFFD:04x}", escaped)
    if token.endswith(("NaN", "Infinity")):
        return f'"{token}"'
    return token if token in set("[]{}") or _fits_double(token) else f'"{token}"'


def _fits_double(token: str) -> bool:
    """Return whether a double holds a number, neither as infinity nor as zero."""
    if not _NUMBER.fullmatch(token):
        return True  # it is no JSON, and stays none
    value = float(token)
    is_zero = not any(digit in "123456789" for digit in re.split("[eE]", token)[0])
    return len(token) <= _MAX_DIGITS and isfinite(value) and (value != 0 or is_zero)
