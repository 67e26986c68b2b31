"""How a value of the warehouse is written: as text in tables and CSV, and in JSON."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

from simplejson import RawJSON

from ingest.cli.output import json_text
from ingest.warehouse.values import JsonText

_MONEY_EXPONENT = -2
_SPACES = str.maketrans("\t\n\r", "   ")


def text_value(value: Any) -> str:
    """Write one value for people and CSV: nothing for null, decimals as people write money, nested values as JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float() | Decimal():
            return _decimal_text(value, _MONEY_EXPONENT) if isinstance(value, Decimal) else _float_text(value)
        case list() | tuple() | Mapping() | set():
            return json_text(json_value(value))
        case _:
            return _plain_text(value)


def json_value(value: Any) -> Any:
    """Make one value such that JSON has a word for it: numbers stay exact, NaN and infinities become null, what else there is becomes text."""
    match value:
        case JsonText():
            return RawJSON(value.translate(_SPACES))  # these stand between its values only
        case float() | Decimal():
            return _json_number(value)
        case None | bool() | str() | int():
            return value
        case list() | tuple() | set():
            return [json_value(item) for item in value]
        case Mapping():
            return {text_value(name): json_value(item) for name, item in value.items()}
        case _:
            return _plain_text(value)


def _json_number(value: float | Decimal) -> Any:
    if not isfinite(value):
        return None
    return RawJSON(_decimal_text(value, 0)) if isinstance(value, Decimal) else value


def _plain_text(value: Any) -> str:
    """Instants in UTC as ISO 8601, bytes as PostgreSQL writes them."""
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
    """What is no number is written as databases and JavaScript write it."""
    if isfinite(value):
        return repr(value)
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal_text(value: Decimal, shortest: int) -> str:
    """Digits without an exponent: 12.50, not 1.25E+1 nor 12.500000000. Zeros at the end are left out down to the exponent `shortest`."""
    if not value.is_finite():
        return _float_text(float(value))
    digits = f"{value:f}"
    if value.as_tuple().exponent >= shortest:  # type: ignore[operator]  # a number, as it is finite
        return digits
    whole, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0").ljust(-shortest, "0")
    return f"{whole}.{fraction}" if fraction else whole
