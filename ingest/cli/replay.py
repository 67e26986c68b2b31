"""`replay`: load the records of the log again."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ingest.cli import Stopped
from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import print_json, print_line, print_note, progress_bars, show_waits
from ingest.clock import CLOCK_SKEW
from ingest.errors import LogUnavailable
from ingest.spans import parse_span
from ingest.telemetry import configure_logging
from ingest.times import format_instant

if TYPE_CHECKING:
    from consumers.replay import Replay, ReplayReport

_LINE_RECORDS = 10_000  # a line of progress for each so many
_REPLAYING = "replaying"
_STALLED_SECONDS = 5.0  # a load takes one or two
_SKIP_REASONS = {
    "replays": "from earlier replays",
    "other_accounts": "from other accounts",
    "outside": "received at other times",
    "refused": "too large for the log",
    "probes": "trials of the log",
}


def replay(
    since: Annotated[
        str,
        typer.Option(
            help="Received at or after this date, instant, or length "
            "of time ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
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
    """Load the records of the log again.

    Use it after a mapping was fixed, after a warehouse was lost, or to fill a new warehouse.

    A row is replaced if today's code makes a different row of the same event. Right rows stay, and newer
    states win. A consumer must be running (`ingest up` or `ingest consume`); new webhooks are loaded first.
    Stopping the replay with Ctrl-C or running it twice does no harm.

    Exit code 0: everything is loaded; 2: an argument is wrong; 3: something could not be reached.

    Examples:
        ingest replay
        ingest replay --since 30d --dry-run
        ingest replay --since 2026-11-01 --account sales --json
    """
    from consumers.replay import Replay, ReplayFilter

    settings = read_settings(config)
    configure_logging("replay")
    begin, end = parse_span(since, until, datetime.now(UTC))
    accounts = frozenset(account or ())
    for name in accounts - settings.accounts.keys():
        print_note(f"the settings have no account {name}; its records in the log are replayed anyway")
    log = settings.build_log()
    with (
        show_waits(),
        closing(log.reader(begin and begin - CLOCK_SKEW)) as reader,
        nullcontext() if dry_run else closing(log.producer()) as producer,
    ):
        begins_at = reader.begins_at()
        if begins_at is None:
            print_note("the log has no records")
        elif begin and begins_at > begin:
            print_note(f"the log begins at {format_instant(begins_at)}; nothing before that can be replayed")
        with _show_progress(reader.total(), quiet=as_json) as on_progress:
            run = Replay(settings, reader, producer, ReplayFilter(begin, end, accounts), on_progress)
            try:
                report = run.run()
            except KeyboardInterrupt:
                raise Stopped(f"stopped: {_how_to_continue(run)}") from None
            except LogUnavailable as error:
                raise LogUnavailable(f"{error}; {_how_to_continue(run)}") from error
    if as_json:
        print_json({**report.columns(), "dry_run": dry_run})
    else:
        _print_report(report, dry_run=dry_run)


def _how_to_continue(run: "Replay") -> str:
    if run.report.appended:
        return (
            "everything is in the log again and will be loaded "
            "when a consumer runs; there is nothing to repeat"
        )
    if since := run.go_on_since:
        return f"to continue, run it with --since {format_instant(since.replace(microsecond=0))}"
    return "nothing was replayed yet"


@contextmanager
def _show_progress(total: int, *, quiet: bool) -> "Iterator[Callable[[ReplayReport], None]]":
    """Show a progress bar on a terminal, a line now and then elsewhere.

    Yields what is to be called with the report.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("records"),
        TimeRemainingColumn(),
    )
    with progress_bars(*columns, quiet=quiet) as progress:
        if progress:
            task = progress.add_task(_REPLAYING, total=total)
            yield lambda report: progress.update(task, completed=report.read, description=_phase(report))
            return
        printed = (_REPLAYING, 0)

        def print_progress(report: "ReplayReport") -> None:
            nonlocal printed
            phase = _phase(report)
            if not quiet and (phase, report.read // _LINE_RECORDS) != printed:
                printed = (phase, report.read // _LINE_RECORDS)
                replayed = report.replayed.total()
                print_note(f"{report.read} of {total} records read, {replayed} replayed: {phase}")

        yield print_progress


def _phase(report: "ReplayReport") -> str:
    if report.overdue_seconds > _STALLED_SECONDS:
        return "waiting for a consumer: is `ingest up` or `ingest consume` running?"
    return "everything is in the log again, waiting to be loaded" if report.appended else _REPLAYING


def _print_report(report: "ReplayReport", *, dry_run: bool) -> None:
    columns = report.columns()
    span = f", received from {columns['from']} to {columns['to']}" if report.first else ""
    print_line(f"{columns['replayed']} records {'would be' if dry_run else 'were'} replayed{span}")
    for account, count in columns["accounts"].items():
        print_line(f"  {account or 'no account'}: {count}")
    skipped = [f"{count} {_SKIP_REASONS[reason]}" for reason, count in columns["skipped"].items() if count]
    if skipped:
        print_line(f"skipped: {', '.join(skipped)}")
    if report.loaded:
        print_line(f"everything was loaded within {columns['seconds']:.1f} s")
