"""`replay`: rows are made anew from the log, for a mapping that was mended, a warehouse that was lost, or a new one."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ingest.cli.instants import span_of
from ingest.cli.options import AsJson, Config, settings_of
from ingest.cli.waits import showing_waits
from ingest.errors import LogUnavailable
from ingest.instant import format_instant
from ingest.log import Reader
from ingest.settings import Settings
from ingest.telemetry import configure_logging

if TYPE_CHECKING:
    from consumers.replay import Replay, Report, Wanted

_LINE_EVERY = 10_000
_BEGUN = "replaying"
_STILL_SECONDS = 5.0  # a load takes one or two
_INTERRUPTED = 130  # as shells have it


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(replay)


def replay(
    since: Annotated[
        str,
        typer.Option(
            help="What was received since a date, an instant, or so long ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
            show_default="all the log has",
        ),
    ] = "",
    until: Annotated[str, typer.Option(help="And before; as --since.", show_default="now")] = "",
    account: Annotated[list[str] | None, typer.Option(help="This account; may be given several times.", show_default="all")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and replay nothing.")] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Load again what is in the log: after a mapping was mended, a warehouse was lost, or for a new one.

    Rows that differ from what is made of their events today are replaced; what is right stays as it is, and what is newer wins. A
    consumer must be running (`ingest up`, or `ingest consume`): webhooks are taken and loaded meanwhile, and go before. To stop it
    with Ctrl-C, or to run it twice, does no harm. Exit code 0: all is loaded; 2: an argument is refused; 3: something could not be reached.

    Examples: [bold]ingest replay[/bold]   [bold]ingest replay --since 30d --dry-run[/bold]   [bold]ingest replay --since 2026-11-01 --account sales --json[/bold]
    """
    settings = settings_of(config)
    configure_logging("replay")
    wanted = _wanted(settings, since, until, account or [])
    with showing_waits(), _opened(settings, wanted, dry_run=dry_run, quiet=as_json) as run:
        report = _run(run)
    if as_json:
        print(json.dumps({**report.columns(), "dry_run": dry_run}))
    else:
        _tell(report, dry_run=dry_run)


def _wanted(settings: Settings, since: str, until: str, accounts: list[str]) -> "Wanted":
    from consumers.replay import Wanted

    begin, end = span_of(since, until, datetime.now(UTC))
    for name in set(accounts) - settings.accounts.keys():
        print(f"the settings have no account {name}: what the log has of it is replayed all the same", file=sys.stderr)
    return Wanted(begin, end, frozenset(accounts))


@contextmanager
def _opened(settings: Settings, wanted: "Wanted", *, dry_run: bool, quiet: bool) -> "Iterator[Replay]":
    from consumers.replay import CLOCKS_DIFFER, Replay
    from ingest.opening import open_producer, open_reader

    reader = open_reader(settings, wanted.since and wanted.since - CLOCKS_DIFFER)
    producer = None if dry_run else open_producer(settings)
    try:
        _say_where_it_begins(reader, wanted.since)
        with _shown(reader.total(), quiet=quiet) as follow:
            yield Replay(settings, reader, producer, wanted, follow)
    finally:
        reader.close()
        if producer:
            producer.close()


def _say_where_it_begins(reader: Reader, since: datetime | None) -> None:
    begins = reader.begins()
    if begins is None:
        print("the log has no records", file=sys.stderr)
    elif since and begins > since:
        print(f"the log has records from {format_instant(begins)} on: what came before cannot be replayed", file=sys.stderr)


def _run(run: "Replay") -> "Report":
    """What is said when it does not come to its end tells how to go on."""
    try:
        return run.run()
    except KeyboardInterrupt:
        print(f"stopped: {_how_to_go_on(run)}", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    except LogUnavailable as error:
        raise LogUnavailable(f"{error}; {_how_to_go_on(run)}") from error


def _how_to_go_on(run: "Replay") -> str:
    if run.report.appended:
        return "all of it is in the log again, and is loaded as soon as a consumer runs: there is nothing to repeat"
    since = run.go_on_since
    return f"to go on, give it --since {format_instant(since.replace(microsecond=0))}" if since else "nothing was replayed yet"


def _doing(report: "Report") -> str:
    if report.still_seconds > _STILL_SECONDS:
        return "nobody loads what waits in the log: is `ingest up` or `ingest consume` running?"
    return "all is in the log again, and waits to be loaded" if report.appended else _BEGUN


@contextmanager
def _shown(total: int, *, quiet: bool) -> "Iterator[Callable[[Report], None]]":
    """A bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True, quiet=quiet, highlight=False)
    if console.is_terminal and not quiet:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("records"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(_BEGUN, total=total)
            yield lambda report: progress.update(task, completed=report.read, description=_doing(report))
        return
    said = (_BEGUN, 0)

    def line(report: "Report") -> None:
        nonlocal said
        if (now := (_doing(report), report.read // _LINE_EVERY)) != said:
            said = now
            console.print(f"{report.read} of {total} records read, {report.replayed.total()} replayed: {now[0]}", soft_wrap=True)

    yield line


def _tell(report: "Report", *, dry_run: bool) -> None:
    told, console = report.columns(), Console(highlight=False, soft_wrap=True)
    reach = f", received from {told['from']} to {told['to']}" if report.first else ""
    console.print(f"{told['replayed']} records {'would be' if dry_run else 'were'} replayed{reach}")
    for account, count in told["accounts"].items():
        console.print(f"  {account or 'of no account'}: {count}", markup=False)
    others = ", ".join(f"{count} {_MEANING[reason]}" for reason, count in told["skipped"].items() if count)
    if others:
        console.print(f"left out: {others}")
    if report.loaded:
        console.print(f"all of it is loaded, after {told['seconds']:.1f} s")


_MEANING = {"replays": "replays from before", "other_accounts": "of other accounts", "outside": "received at other times"}
