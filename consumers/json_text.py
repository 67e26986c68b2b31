"""Make a payload's bytes into JSON text that every destination takes. Pure.

JSON allows more than databases hold: halves of surrogate pairs (DuckDB, PostgreSQL), NUL, numbers of any size and nesting of any depth
(PostgreSQL: https://www.postgresql.org/docs/current/datatype-json.html). What reads payloads also lets pass some things that JSON does not
have: a byte order mark, control characters in strings, NaN and Infinity. Such a part is replaced; everything else stays as it was written.
The very bytes stay in the log.
"""

import re
from math import isfinite

import orjson

from ingest.errors import PayloadError
from ingest.json_nesting import STRING, replace_deep

# As deep as every reader follows: Python's own stops below 1000.
MAX_DEPTH = 500
# A longer number is an attack, and PostgreSQL stops at 16383 digits behind the point.
_MAX_DIGITS = 400
_TOKEN = re.compile(rf"{STRING}|-?[0-9][-+.0-9eE]*|NaN|-?Infinity|[][{{}}]", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
# What may be a number that does not fit; to look for it costs far less than to look at every token.
_LARGE_NUMBER = re.compile(rb"[:\[,\s]-?[0-9.]{1,400}[eE][-+]?[0-9]{3}|[0-9.]{401}")
_SURROGATE_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_NO_CHARACTER = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\u0000"
_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPE = re.compile(rf"{_SURROGATE_PAIR}|({_NO_CHARACTER})|\\.", re.DOTALL)


def json_text(data: bytes) -> str:
    """Return the payload as it is where it can be, else with parts replaced. Raises PayloadError when it is not JSON.

    NUL and halves of surrogate pairs become the replacement character; a number that a double cannot hold, or with more than 400
    digits, becomes its text; what is nested deeper than 500 levels becomes its text.
    """
    if _fits(data):
        return data.decode()
    text = data.decode("utf-8-sig", errors="replace")
    text = replace_deep(
        _TOKEN.sub(lambda token: _replaced(token[0]), text),
        MAX_DEPTH,
        lambda part: orjson.dumps(part).decode(),
    )
    if not _is_json(text):
        raise PayloadError("the payload is not JSON")
    return text


def _fits(data: bytes) -> bool:
    return (
        _is_json(data)
        and b"\\u0000" not in data
        and data.count(b"[") + data.count(b"{") <= MAX_DEPTH
        and not _LARGE_NUMBER.search(data)
    )


def _is_json(text: bytes | str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _replaced(token: str) -> str:
    if token.startswith('"'):
        return _CONTROL.sub(
            _escaped_control, _ESCAPE.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], token)
        )
    if token.endswith(("NaN", "Infinity")):
        return f'"{token}"'
    return token if token in set("[]{}") or _is_number_for_all(token) else f'"{token}"'


def _escaped_control(control: re.Match[str]) -> str:
    return f"\\u{ord(control[0]) or 0xFFFD:04x}"


def _is_number_for_all(token: str) -> bool:
    """Whether a double holds it, neither as infinity nor as zero."""
    if not _NUMBER.fullmatch(token):
        return True  # it is no JSON, and stays none
    value = float(token)
    is_zero = not any(digit in "123456789" for digit in re.split("[eE]", token)[0])
    return len(token) <= _MAX_DIGITS and isfinite(value) and (value != 0 or is_zero)
