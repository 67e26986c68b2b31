"""`sync`: the vendors' REST resources into tables of their own."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ingest.cli.options import UNAVAILABLE, AsJson, Config, complete_account, settings_of
from ingest.cli.output import Console, new_table, print_json, print_line, print_note
from ingest.cli.plural import counted
from ingest.cli.waits import showing_waits
from ingest.telemetry import configure_logging

if TYPE_CHECKING:
    from consumers.sync import Follow, Synced

REFUSED = 2
_NAMED = 5


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(sync)


def sync(
    account: Annotated[
        str | None,
        typer.Argument(
            help="Account.", show_default="all with REST credentials", autocompletion=complete_account
        ),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Argument(help="Some of its resources; else all but those that docs/sources.md excepts."),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="An object of a resource that has no list, such as Bookeo's holds; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Load what the vendors' REST sides have, each resource into its own table: bookings, customers, event types and the rest.

    Exit code 0: all loaded; 1: records were left out that have no key or that the warehouse refuses; 2: something was refused; 3: something could not be reached.
    The other resources are still loaded.

    Example:
        ingest sync sales event_types users_me
    """
    settings = settings_of(config)
    configure_logging("sync")
    from consumers.sync import sync as run

    done: list[Synced] = []
    with showing_waits(), _told(quiet=as_json) as (follow, tell):
        for one in run(settings, account, resources or [], follow, ids or []):
            tell(one)
            done.append(one)
    if as_json:
        print_json([_plain(one) for one in done])
    else:
        _show(done)
    raise typer.Exit(_code(done))


def _code(done: "Sequence[Synced]") -> int:
    problems = [one.problem for one in done if one.problem]
    if any(not problem.retryable for problem in problems):
        return REFUSED
    if problems:
        return UNAVAILABLE
    return int(any(one.keyless or one.refused for one in done))


@contextmanager
def _told(quiet: bool) -> "Iterator[tuple[Follow, Any]]":
    """Progress on a terminal, else a line on standard error where each resource begins and ends."""
    if quiet or not sys.stderr.isatty():
        yield (lambda *_: None, lambda _: None) if quiet else (_began, _ended)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def follow(account: str, resource: str, rows: int) -> None:
            name = f"{account} {resource}"
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None)
            progress.update(tasks[name], completed=rows)

        def tell(one: "Synced") -> None:
            follow(one.account, one.resource or "", one.rows)
            progress.update(tasks[f"{one.account} {one.resource or ''}"], total=one.rows)

        yield follow, tell


def _began(account: str, resource: str, rows: int) -> None:
    if not rows:
        print_note(f"{account} {resource}: reading")


def _ended(one: "Synced") -> None:
    how = f"failed: {one.problem}" if one.problem else f"{counted(one.rows, 'row')} in {one.seconds:.1f} s"
    print_note(f"{_name(one)}: {how}")


def _name(one: "Synced") -> str:
    return f"{one.account} {one.resource or 'all'}"


def _left_out(one: "Synced") -> "Iterator[str]":
    """A line for each kind of what was left out: how many, and which."""
    if one.absent:
        yield f"{_name(one)}: {len(one.absent)} left out, which the vendor no longer has (404 or 410): {_some(one.absent)}"
    if one.keyless:
        yield f"{_name(one)}: {len(one.keyless)} left out, which cannot be stored without a key: {_some(one.keyless)}"
    if one.refused:
        yield f"{_name(one)}: {len(one.refused)} left out, which the warehouse refuses: {_some(one.refused)}"


def _some(names: "Sequence[str]") -> str:
    """The first ones; `--json` has all."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _plain(one: "Synced") -> dict[str, Any]:
    return {
        "account": one.account,
        "vendor": one.vendor,
        "resource": one.resource,
        "table": one.table,
        "rows": one.rows,
        "seconds": round(one.seconds, 3),
        "problem": str(one.problem) if one.problem else None,
        "absent": list(one.absent),
        "keyless": list(one.keyless),
        "refused": list(one.refused),
    }


def _show(done: "Sequence[Synced]") -> None:
    """Nothing of it is cut, however narrow the terminal is."""
    table = new_table("account", "resource", "table", "rows", "seconds")
    for one in done:
        table.add_row(
            one.account, one.resource or "all", one.table or "", str(one.rows), f"{one.seconds:.1f}"
        )
    Console().print(table)
    for one in done:
        for line in [f"{_name(one)}: {one.problem}"] if one.problem else _left_out(one):
            print_line(line)
