"""`sync`: load the vendors' REST resources into tables of their own."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ingest.cli import ExitCode
from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import (
    Console,
    new_table,
    print_json,
    print_line,
    print_note,
    progress_bars,
    show_waits,
)
from ingest.telemetry import configure_logging
from ingest.words import counted

if TYPE_CHECKING:
    from consumers.sync import Follow, SyncResult

_LISTED = 5


def sync(
    account: Annotated[
        str | None,
        typer.Argument(
            help="Account.", show_default="all with REST credentials", autocompletion=complete_account
        ),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Argument(help="Only these resources. By default all, except those that have to be named."),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="Id of an object to read, if the vendor has no list of them; can be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Load what the vendors' REST APIs have: bookings, customers, event types and so on.

    Each resource gets its own table. If one cannot be loaded, the others still are.

    Exit code 0: everything was loaded; 1: records were left out, because they have no key or the warehouse
    refuses them; 2: something was refused; 3: something could not be reached.

    Example:
        ingest sync sales event_types users_me
    """
    settings = read_settings(config)
    configure_logging("sync")
    from consumers.sync import sync as run_sync

    results: list[SyncResult] = []
    with show_waits(), _show_progress(quiet=as_json) as (on_rows, on_end):
        for result in run_sync(settings, account, resources or [], on_rows, ids or []):
            on_end(result)
            results.append(result)
    if as_json:
        print_json(
            [
                {
                    "account": result.account,
                    "vendor": result.vendor,
                    "resource": result.resource,
                    "table": result.table,
                    "rows": result.rows,
                    "seconds": round(result.seconds, 3),
                    "problem": str(result.problem) if result.problem else None,
                    "absent": list(result.absent),
                    "keyless": list(result.keyless),
                    "refused": list(result.refused),
                }
                for result in results
            ]
        )
    else:
        _print_results(results)
    raise typer.Exit(_exit_code(results))


def _exit_code(results: "Sequence[SyncResult]") -> int:
    problems = [result.problem for result in results if result.problem]
    if any(not problem.retryable for problem in problems):
        return ExitCode.REFUSED
    if problems:
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if any(result.keyless or result.refused for result in results) else ExitCode.OK


@contextmanager
def _show_progress(*, quiet: bool) -> "Iterator[tuple[Follow, Callable[[SyncResult], None]]]":
    """Show progress on a terminal, else print a line to standard error where each resource begins and ends.

    Yields what is to be called with the rows read so far, and with the result of each resource.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:.0f} rows"),
        TimeElapsedColumn(),
    )
    quiet_bars = quiet or not sys.stderr.isatty()
    with progress_bars(*columns, quiet=quiet_bars, transient=False) as progress:
        tasks: dict[str, TaskID] = {}

        def show_rows(account: str, resource: str, rows: int) -> None:
            name = f"{account} {resource}"
            if progress:
                if name not in tasks:
                    tasks[name] = progress.add_task(name, total=None)
                progress.update(tasks[name], completed=rows)
            elif not rows and not quiet:
                print_note(f"{name}: reading")

        def show_end(result: "SyncResult") -> None:
            if progress:
                show_rows(result.account, result.resource or "", result.rows)
                progress.update(tasks[f"{result.account} {result.resource or ''}"], total=result.rows)
            elif not quiet:
                loaded = f"{counted(result.rows, 'row')} in {result.seconds:.1f} s"
                print_note(f"{_name(result)}: {f'failed: {result.problem}' if result.problem else loaded}")

        yield show_rows, show_end


def _print_results(results: "Sequence[SyncResult]") -> None:
    table = new_table("account", "resource", "table", "rows", "seconds")
    for result in results:
        resource, seconds = result.resource or "all", f"{result.seconds:.1f}"
        table.add_row(result.account, resource, result.table or "", str(result.rows), seconds)
    Console().print(table)
    # Below the table, because nothing of these lines is cut, however narrow the terminal is.
    for result in results:
        if result.problem:
            print_line(f"{_name(result)}: {result.problem}")
            continue
        omissions = {
            "which the vendor no longer has (404 or 410)": result.absent,
            "which cannot be stored without a key": result.keyless,
            "which the warehouse refuses": result.refused,
        }
        for reason, names in omissions.items():
            if names:
                unlisted = len(names) - _LISTED
                rest = f" and {unlisted} more" if unlisted > 0 else ""  # `--json` has them all
                listing = f"{', '.join(names[:_LISTED])}{rest}"
                print_line(f"{_name(result)}: {len(names)} left out, {reason}: {listing}")


def _name(result: "SyncResult") -> str:
    return f"{result.account} {result.resource or 'all'}"
