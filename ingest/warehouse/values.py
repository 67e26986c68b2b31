"""Values of the warehouse as text: for people and CSV, and as JSON."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

import simplejson
from simplejson import RawJSON

from ingest.terminal import replace_hidden
from ingest.warehouse import JsonText

_MONEY_DIGITS = 2
_SPACES = str.maketrans("\t\n\r", "   ")


def text_value(value: Any) -> str:
    """Format a value for people and CSV.

    Null becomes nothing, decimals are written as people write money, and nested values as JSON.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float() | Decimal():
            return _decimal_text(value, _MONEY_DIGITS) if isinstance(value, Decimal) else _float_text(value)
        case list() | tuple() | Mapping() | set():
            return json_text(json_value(value))
        case _:
            return _plain_text(value)


def json_value(value: Any) -> Any:
    """Convert a value to one that JSON can hold.

    Numbers stay exact, NaN and infinities become null, and values of other types text.
    """
    match value:
        case JsonText():
            # Line ends and tabs in JSON text stand between its values only.
            return RawJSON(value.translate(_SPACES))
        case float() | Decimal():
            number = RawJSON(_decimal_text(value, 0)) if isinstance(value, Decimal) else value
            return number if isfinite(value) else None
        case None | bool() | str() | int():
            return value
        case list() | tuple() | set():
            return [json_value(item) for item in value]
        case Mapping():
            return {text_value(name): json_value(item) for name, item in value.items()}
        case _:
            return _plain_text(value)


def _plain_text(value: Any) -> str:
    """Format instants as ISO 8601 in UTC, bytes as PostgreSQL does, and other values as Python does."""
    match value:
        case datetime() if value.tzinfo is not None:
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return f"\\x{bytes(value).hex()}"
        case _:
            return str(value)


def _float_text(value: float) -> str:
    """Format a float, and NaN and infinities as databases and JavaScript do."""
    if isfinite(value):
        return repr(value)
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal_text(value: Decimal, min_digits: int) -> str:
    """Format a decimal without an exponent: 12.50, not 1.25E+1 nor 12.500000000.

    Zeros at the end are left out, but `min_digits` digits after the point are kept.
    """
    if not value.is_finite():
        return _float_text(float(value))
    digits = f"{value:f}"
    if value.as_tuple().exponent >= -min_digits:  # type: ignore[operator]  # a number, as it is finite
        return digits
    integer, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0").ljust(min_digits, "0")
    return f"{integer}.{fraction}" if fraction else integer


def json_text(value: Any, default: Callable[[Any], Any] | None = None, *, ascii_only: bool = False) -> str:
    """Return JSON on one line. It is exact, and safe to look at: every hidden character is an escape.

    NaN and infinities are null; decimals keep all their digits.
    """

    def escape(character: str) -> str:
        # An escape for each UTF-16 code unit: https://www.rfc-editor.org/rfc/rfc8259#section-7
        units = character.encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[index : index + 4]}" for index in range(0, len(units), 4))

    text = simplejson.dumps(value, default=default, ensure_ascii=ascii_only, ignore_nan=True)
    return replace_hidden(text, escape)
