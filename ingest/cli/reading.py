"""`query`: ask the warehouse."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from ingest.cli.options import AsJson, Config, settings_of
from ingest.cli.output import Console, full_width, print_csv, print_json, print_line
from ingest.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    app.command()(query)


def query(
    sql: Annotated[str, typer.Argument(help="One statement; the tables are there by their bare names.")],
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header line on standard output.")] = False,
    config: Config = None,
) -> None:
    """Ask the warehouse, also while the consumer loads.

    Example: [bold]ingest query "select status, count(*) from bookings group by status"[/bold]
    """
    from consumers.query import plain
    from consumers.query import query as ask

    if as_json and as_csv:
        raise ConfigurationError("--json and --csv are two answers: choose one")
    answer = ask(settings_of(config), sql)
    if as_json:
        print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows], plain)
    elif as_csv:
        print_csv(answer.columns, ([str(_cell(value)) for value in row] for row in answer.rows))
    else:
        _show(answer.columns, answer.rows)


def _show(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """A table where it fits the terminal, else a line per value: cut columns would tell nothing."""
    console = Console()
    if not rows:
        print_line(f"no rows; columns: {', '.join(columns)}")
        return
    table = _table("", columns, rows)
    if full_width(console, table) <= console.width:
        console.print(table)
        return
    width = max(map(len, columns), default=0)
    for number, row in enumerate(rows, start=1):
        console.rule(f"row {number}", align="left")
        for name, value in zip(columns, row, strict=True):
            print_line(f"{name:<{width}}  {_cell(value)}")


def _table(title: str, columns: Any, rows: Any) -> Table:
    table = Table(*map(str, columns), title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(str(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        from consumers.query import plain

        return plain(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value
