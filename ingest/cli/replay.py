"""`replay`: rows are made anew from the log, for a mapping that was mended, a warehouse that was lost, or a new one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ingest.cli import Stopped
from ingest.cli.instants import span_of
from ingest.cli.options import AsJson, Config, complete_account, settings_of
from ingest.cli.output import Console, print_json, print_line, print_note
from ingest.cli.waits import showing_waits
from ingest.clock import CLOCK_SKEW
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


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(replay)


def replay(
    since: Annotated[
        str,
        typer.Option(
            help="Received at or after this date, instant, or length of time ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
            show_default="the beginning of the log",
        ),
    ] = "",
    until: Annotated[
        str, typer.Option(help="Received before; written like --since.", show_default="now")
    ] = "",
    account: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this account; can be repeated.", show_default="all", autocompletion=complete_account
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the records without replaying them.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Load the records of the log again: after a mapping was fixed, after a warehouse was lost, or into a new warehouse.

    A row is replaced where today's code makes another row of the same event; right rows stay, and newer states win. Needs a running
    consumer (`ingest up` or `ingest consume`); new webhooks are loaded first meanwhile. Stopping it with Ctrl-C or running it twice
    does no harm.

    Exit code 0: everything is loaded; 2: an argument is wrong; 3: something could not be reached.

    Examples:
        ingest replay
        ingest replay --since 30d --dry-run
        ingest replay --since 2026-11-01 --account sales --json
    """
    settings = settings_of(config)
    configure_logging("replay")
    wanted = _wanted(settings, since, until, account or [])
    with showing_waits(), _opened(settings, wanted, dry_run=dry_run, quiet=as_json) as run:
        report = _run(run)
    if as_json:
        print_json({**report.columns(), "dry_run": dry_run})
    else:
        _tell(report, dry_run=dry_run)


def _wanted(settings: Settings, since: str, until: str, accounts: list[str]) -> "Wanted":
    from consumers.replay import Wanted

    begin, end = span_of(since, until, datetime.now(UTC))
    for name in set(accounts) - settings.accounts.keys():
        print_note(f"the settings have no account {name}; its records in the log are replayed anyway")
    return Wanted(begin, end, frozenset(accounts))


@contextmanager
def _opened(settings: Settings, wanted: "Wanted", *, dry_run: bool, quiet: bool) -> "Iterator[Replay]":
    from consumers.replay import Replay

    reader = settings.build_log().reader(wanted.since and wanted.since - CLOCK_SKEW)
    producer = None if dry_run else settings.build_log().producer()
    try:
        _say_where_it_begins(reader, wanted.since)
        with _shown(reader.total(), quiet=quiet) as follow:
            yield Replay(settings, reader, producer, wanted, follow)
    finally:
        reader.close()
        if producer:
            producer.close()


def _say_where_it_begins(reader: Reader, since: datetime | None) -> None:
    begins = reader.begins_at()
    if begins is None:
        print_note("the log has no records")
    elif since and begins > since:
        print_note(f"the log begins at {format_instant(begins)}; nothing before that can be replayed")


def _run(run: "Replay") -> "Report":
    """What is said when it does not come to its end tells how to go on."""
    try:
        return run.run()
    except KeyboardInterrupt:
        raise Stopped(f"stopped: {_how_to_go_on(run)}") from None
    except LogUnavailable as error:
        raise LogUnavailable(f"{error}; {_how_to_go_on(run)}") from error


def _how_to_go_on(run: "Replay") -> str:
    if run.report.appended:
        return "everything is in the log again and will be loaded when a consumer runs; there is nothing to repeat"
    since = run.go_on_since
    return (
        f"to continue, run it with --since {format_instant(since.replace(microsecond=0))}"
        if since
        else "nothing was replayed yet"
    )


def _doing(report: "Report") -> str:
    if report.still_seconds > _STILL_SECONDS:
        return "waiting for a consumer: is `ingest up` or `ingest consume` running?"
    return "everything is in the log again, waiting to be loaded" if report.appended else _BEGUN


@contextmanager
def _shown(total: int, *, quiet: bool) -> "Iterator[Callable[[Report], None]]":
    """A bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True, quiet=quiet)
    if console.is_terminal and not quiet:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("records"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(_BEGUN, total=total)
            yield lambda report: progress.update(task, completed=report.read, description=_doing(report))
        return
    said = (_BEGUN, 0)

    def line(report: "Report") -> None:
        nonlocal said
        if (now := (_doing(report), report.read // _LINE_EVERY)) != said:
            said = now
            console.print(
                f"{report.read} of {total} records read, {report.replayed.total()} replayed: {now[0]}",
                soft_wrap=True,
            )

    yield line


def _tell(report: "Report", *, dry_run: bool) -> None:
    told = report.columns()
    reach = f", received from {told['from']} to {told['to']}" if report.first else ""
    print_line(f"{told['replayed']} records {'would be' if dry_run else 'were'} replayed{reach}")
    for account, count in told["accounts"].items():
        print_line(f"  {account or 'no account'}: {count}")
    others = ", ".join(f"{count} {_MEANING[reason]}" for reason, count in told["skipped"].items() if count)
    if others:
        print_line(f"skipped: {others}")
    if report.loaded:
        print_line(f"everything was loaded within {told['seconds']:.1f} s")


_MEANING = {
    "replays": "from earlier replays",
    "other_accounts": "from other accounts",
    "outside": "received at other times",
    "refused": "too large for the log",
    "probes": "trials of the log",
}
