"""`query`: run one statement in the warehouse, and print the answer as a table, CSV or JSON."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import print_csv, print_json, print_line, print_rows
from ingest.errors import ConfigurationError
from ingest.times import parse_duration
from ingest.warehouse.values import json_value, text_value

_STDIN = "-"


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
