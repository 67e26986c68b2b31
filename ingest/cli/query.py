"""`query`: run one statement in the warehouse, and print the answer as a table, CSV or JSON."""

import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite, isnan
from pathlib import Path
from typing import Annotated, Any

import typer
from simplejson import RawJSON

from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import json_text, print_csv, print_json, print_line, print_rows
from ingest.errors import ConfigurationError
from ingest.times import parse_duration
from ingest.warehouse import JsonText

_STDIN = "-"
_MONEY_DIGITS = 2
_SPACES = str.maketrans("\t\n\r", "   ")


def query(
    sql: Annotated[
        str,
        typer.Argument(
            help='One statement, or "-" for standard input. Use the bare names of the tables.',
            show_default=False,
        ),
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the statement from this file.")
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="CSV with a header line on standard output, in UTF-8.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Print at most this many rows. Without it, more than 100000 rows are an error.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        str, typer.Option(help="How long the query may take. With DuckDB, loads wait for it.")
    ] = "60s",
    config: Config = None,
) -> None:
    """Query the warehouse, even while the consumer loads. A query reads only the tables, and no files.

    Instants are in UTC. If two columns have the same name, the second is called `<name>_2`. In JSON, numbers
    are exact, and NaN and infinities are null.

    Examples:
        ingest query "select status, count(*) from bookings group by status"
        ingest query --file report.sql --csv > report.csv
        ingest query - --json < report.sql
    """
    from ingest.warehouse import Bounds
    from ingest.warehouse.query import query_bounded

    if as_json and as_csv:
        raise ConfigurationError("Use either --json or --csv.")
    statement = _read_statement(sql, file)
    try:
        seconds = parse_duration(timeout).total_seconds()
    except ValueError as error:
        raise ConfigurationError(f"--timeout {error}") from None
    if seconds <= 0:
        raise ConfigurationError("--timeout must be more than zero, for example 60s.")
    answer = query_bounded(read_settings(config), statement, Bounds(seconds, limit))
    if as_json:
        print_json([dict(zip(answer.columns, map(json_value, row), strict=True)) for row in answer.rows])
    elif as_csv:
        print_csv(answer.columns, (list(map(text_value, row)) for row in answer.rows))
    elif answer.rows:
        print_rows(answer.columns, [list(map(text_value, row)) for row in answer.rows])
    else:
        print_line(f"no rows; columns: {', '.join(answer.columns)}")


def _read_statement(sql: str, file: Path | None) -> str:
    """Return the statement of the argument, of standard input or of a file. Raises ConfigurationError."""
    if bool(sql) == bool(file):
        raise ConfigurationError(
            'Give one statement: as the argument, as "-" on standard input, or in a --file.'
        )
    if file is None and sql != _STDIN:
        return sql
    try:
        data = file.read_bytes() if file else sys.stdin.buffer.read()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{file or 'standard input'} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file or 'standard input'} is not UTF-8 text") from None


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
