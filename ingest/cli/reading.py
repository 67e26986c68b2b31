"""`query` and `status`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from ingest.cli.options import UNAVAILABLE, AsJson, Config, settings_of
from ingest.cli.output import Console, new_table, print_csv, print_json, print_line
from ingest.errors import ConfigurationError, IngestError, NoSuchTable, NothingLoaded
from ingest.settings import Settings

_TABLES = ("bookings", "booking_events", "dead_letters", "reconciliations")
_PER_ACCOUNT = (
    "select vendor, account, count(*) as bookings, max(updated_at) as newest_change, max(loaded_at) as last_load"
    " from bookings group by vendor, account"
)
# The newest of each account.
_LAST_RUNS = (
    "select vendor, account, finished_at, outcome, seen, missed, repaired, gone from reconciliations as run where finished_at ="
    " (select max(finished_at) from reconciliations where account = run.account and vendor = run.vendor) order by vendor, account"
)
# What people read in these columns where there is no value.
_NO_VALUE = {"newest_change": "never", "last_load": "never", "rows": "not there"}


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    app.command()(query)
    app.command()(status)


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
    if _whole_width(console, table) <= console.width:
        console.print(table)
        return
    width = max(map(len, columns), default=0)
    for number, row in enumerate(rows, start=1):
        console.rule(f"row {number}", align="left")
        for name, value in zip(columns, row, strict=True):
            print_line(f"{name:<{width}}  {_cell(value)}")


def _whole_width(console: Console, table: Table) -> int:
    """How wide it would be with nothing cut or folded."""
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum


def status(as_json: AsJson = False, config: Config = None) -> None:
    """Where everything stands: what waits in the log and in this machine's spools, what is in the warehouse, how fresh each account is.

    Exit code 3: a part of it cannot be reached.

    Example: [bold]ingest status --json[/bold]
    """
    settings = settings_of(config)
    found = {"log": _log_status(settings), "spool": _spool_status(settings), "warehouse": _warehouse_status(settings)}
    if as_json:
        print_json(found, _cell)
    else:
        _show_status(found)
    if any("error" in part for part in found.values()):
        raise typer.Exit(UNAVAILABLE)


def _show_status(found: dict[str, dict[str, Any]]) -> None:
    console = Console()
    for name, part in found.items():
        if "error" in part:
            print_line((name, "bold"), ": ", (part["error"], "red"))
        if "nothing" in part:
            print_line((name, "bold"), f": {part['nothing']}")
        for title in ("topics", "files", "accounts", "reconciliations", "tables"):
            if rows := part.get(title):
                console.print(_status_table(title, rows))


def _status_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Times are never cut or folded; what else is too wide for the terminal is folded."""
    times = [column for column in rows[0] if any(isinstance(row[column], datetime) for row in rows)]
    table = new_table(*rows[0], title=title, whole=times)
    for row in rows:
        table.add_row(*(_status_cell(column, value) for column, value in row.items()))
    return table


def _status_cell(column: str, value: Any) -> str:
    if value is None:
        return _NO_VALUE.get(column, "")
    return f"{value:%Y-%m-%d %H:%M:%SZ}" if isinstance(value, datetime) else str(_cell(value))


def _log_status(settings: Settings) -> dict[str, Any]:
    from ingest.opening import read_backlog

    try:
        entries = read_backlog(settings)
    except IngestError as error:
        return {"error": str(error)}
    return {
        "topics": [
            {
                "topic": entry.partition.topic,
                "partition": entry.partition.number,
                "next": entry.next,
                "committed": entry.committed,
                "lag": entry.lag,
            }
            for entry in entries
        ]
    }


def _spool_status(settings: Settings) -> dict[str, Any]:
    """Of a receiver on this machine; no files where none has run with these settings."""
    from receivers.spool.opening import spool_states

    try:
        return {"files": [asdict(state) for state in spool_states(settings)]}
    except IngestError as error:
        return {"error": str(error)}


def _warehouse_status(settings: Settings) -> dict[str, Any]:
    """None stands for what a table would tell that is not there: it is no empty one."""
    try:
        return {
            "accounts": _accounts(settings),
            "reconciliations": _rows(settings, _LAST_RUNS),
            "tables": [{"table": name, "rows": _count(settings, name)} for name in _TABLES],
        }
    except NothingLoaded as nothing:
        return {"nothing": str(nothing)}
    except IngestError as error:
        return {"error": str(error)}


def _accounts(settings: Settings) -> list[dict[str, Any]] | None:
    """Those that have bookings, and those of the settings that have none: nothing else tells that an account is silent."""
    loaded = _rows(settings, _PER_ACCOUNT)
    if loaded is None:
        return None
    none = {"bookings": 0, "newest_change": None, "last_load": None}
    rows = [{"vendor": one.vendor, "account": name, **none} for name, one in settings.accounts.items()] + loaded
    by_account = {(row["vendor"], row["account"]): row for row in rows}
    return [by_account[key] for key in sorted(by_account)]


def _count(settings: Settings, table: str) -> int | None:
    rows = _rows(settings, f"select count(*) as number from {table}")  # noqa: S608 - our own names
    return None if rows is None else int(rows[0]["number"])


def _rows(settings: Settings, sql: str) -> list[dict[str, Any]] | None:
    """None where the table is not there. Raises WarehouseUnavailable, of it NothingLoaded."""
    from consumers.query import query as ask

    try:
        found = ask(settings, sql)
    except NoSuchTable:
        return None
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


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
