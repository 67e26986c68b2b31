"""`reconcile`: compare what the vendors have with the warehouse, repair the differences, and print them."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.live import Live

from ingest.cli import ExitCode, Stopped
from ingest.cli.options import (
    AsJson,
    Config,
    WithParent,
    WithSettings,
    complete_account,
    receive_settings,
    stop_with_parent,
)
from ingest.cli.output import Console, new_table, print_json, print_line, show_waits
from ingest.errors import ConfigurationError, VendorRefused
from ingest.files import require_writable
from ingest.service_manager import notify_ready
from ingest.settings import Settings
from ingest.settings.sources import Live as LiveSettings
from ingest.settings.sources import load_settings, watched_paths
from ingest.spans import parse_span
from ingest.telemetry import configure_logging
from ingest.waits import announcing
from ingest.words import counted

if TYPE_CHECKING:
    from ingest.readiness import Probe
    from receivers.reconcile.report import Counts, Report
    from receivers.reconcile.run import Follow

log = structlog.get_logger()

_LINE_SECONDS = 5.0
_POLL_SECONDS = 0.2
_STOP_SECONDS = 10.0
_COLUMNS = ("seen", "matched", "missed", "repaired", "gone", "requests")
# Counts that get a line of their own where they are not zero.
_REMARKS = {
    "untold": "in a state that the vendor sends no webhook for, loaded too",
    "newer_here": "newer here than in the vendor's list, not changed",
    "unreadable": "not readable, see the table dead_letters",
}


def reconcile(
    since: Annotated[
        str,
        typer.Option(
            help="A date, an instant, or how long ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
            show_default="reconcile.lookback",
        ),
    ] = "",
    until: Annotated[str, typer.Option(help="Written like --since.", show_default="now")] = "",
    account: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this account; can be repeated.",
            show_default="all with REST credentials",
            autocompletion=complete_account,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is missing, and repair nothing.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Repeat every reconcile.every, and at once when a vendor reports that it gave up a "
            "delivery.",
        ),
    ] = False,
    confirm_key: Annotated[
        bool,
        typer.Option(
            "--confirm-key",
            help="With --account: confirm that the key is that account's although it finds few of the "
            "bookings here. The others are marked as gone.",
        ),
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    with_parent: WithParent = False,
    with_settings: WithSettings = False,
) -> None:
    """Find by REST what webhooks missed, repair it through the log, and say how many bookings were missed.

    Vendors are asked what changed in the window. Some, such as Calendly, cannot be asked that: they are asked
    what starts in it and, without --until, also in the future. A number of days ago begins at midnight UTC. A
    run that was stopped continues where it was if it is repeated within a day with the same --since and
    --until. A consumer must be running (`ingest up` or `ingest consume`), because repairs go through the log.
    Where `ingest up` or somebody else is reconciling an account, it waits for its turn, ten minutes at most.

    A key that finds less than half of the bookings here is refused, because it may be another account's. If
    the key is right and the vendor has deleted those bookings, see what would be marked as gone, then confirm
    the key once. Only a fingerprint of the key is stored.

    Exit code 0: nothing is missing any more; 1: something is still missing; 2: a key or an argument is
    refused; 3: something could not be reached.

    Examples:
        ingest reconcile
        ingest reconcile --since 30d --dry-run
        ingest reconcile --since 2026-11-01 --account sales --json
        ingest reconcile --account sales --confirm-key --dry-run
    """
    from consumers.dead_letters.redrive import open_letter_times
    from receivers.reconcile.run import choose_accounts, open_reconciler

    settings = receive_settings(config, with_settings)
    configure_logging("reconcile")
    stop_with_parent(with_parent)
    if watch:
        if since or until or dry_run or as_json or confirm_key:
            raise ConfigurationError(
                "--watch can be combined only with --account: the settings say what it compares, and the "
                "table reconciliations has what it finds"
            )
        _watch(settings, account or [])
        return
    if confirm_key and not account:
        raise ConfigurationError("--confirm-key needs --account: name the account whose key you have checked")
    now = datetime.now(UTC)
    start, end = parse_span(since, until, now, now - settings.reconcile.lookback)
    accounts = choose_accounts(settings, account or [])
    try:
        with (
            show_waits(),
            show_progress(quiet=as_json) as on_progress,
            open_reconciler(
                settings, on_progress, lambda: open_letter_times(settings), dry_run=dry_run
            ) as reconciler,
        ):
            reports = reconciler.run(accounts, start, end, confirm_key=confirm_key)
    except KeyboardInterrupt:
        raise Stopped(
            "stopped: what was appended will be loaded; run it again "
            "with the same --since and --until to go on from here"
        ) from None
    if as_json:
        print_json(
            [
                {**report.columns(), "dry_run": dry_run, "recorded": not (dry_run or report.unrecorded)}
                for report in reports
            ]
        )
    else:
        _print_reports(reports, dry_run=dry_run)
    if code := max(map(_exit_code, reports), default=0):
        raise typer.Exit(code)


def _watch(settings: Settings, accounts: Sequence[str]) -> None:
    from consumers.dead_letters.redrive import open_letter_times
    from ingest.admin import serve_admin
    from ingest.disks import watch_disks
    from receivers.reconcile.run import choose_accounts, open_reconciler
    from receivers.schedule import Schedule

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    choose_accounts(settings, accounts)  # raises ConfigurationError where there is none
    live = LiveSettings(load_settings, watched_paths(), first=settings)
    watch_disks(settings.store_folders())
    serve_admin(settings.reconcile, "reconcile", {**_probes(settings), "settings": live.findings})
    with (
        announcing(lambda line: log.info("reconcile.waiting", why=line)),
        open_reconciler(
            settings, lambda *_: None, lambda: open_letter_times(settings), stop=stop
        ) as reconciler,
    ):
        reconciler.patience = 0.0  # its turn comes again, and other accounts are not to wait
        schedule = Schedule(settings, live.current, accounts, reconciler)
        # In a thread that a stop may cut off, which loses nothing: a vendor may have it wait for minutes.
        worker = threading.Thread(target=schedule.run, args=(stop,), name="watch", daemon=True)
        worker.start()
        notify_ready()
        while worker.is_alive() and not stop.wait(_POLL_SECONDS):
            pass
        worker.join(_STOP_SECONDS)
    if not stop.is_set():  # it died, and its traceback is in the log; `ingest up` starts it again
        raise typer.Exit(ExitCode.FAILED)


def _probes(settings: Settings) -> "dict[str, Probe]":
    """Return probes of what a comparison and its repairs need.

    A vendor's own trouble is in the metrics instead.
    """
    from ingest.log_probes import AppendProbe, probe_loaded
    from ingest.warehouse.destination import check_reachable

    return {
        "log": AppendProbe(settings),
        "undone": lambda: probe_loaded(
            settings.build_log(), settings.reconcile.undone_limit, settings.linger
        ),
        "warehouse": lambda: check_reachable(settings.warehouse),
        "state_dir": lambda: require_writable(Path(settings.reconcile.state_dir), "reconcile.state_dir"),
    }


def _exit_code(report: "Report") -> int:
    if report.failure:
        is_refused = isinstance(report.failure, VendorRefused | ConfigurationError)
        return ExitCode.REFUSED if is_refused else ExitCode.UNAVAILABLE
    if report.unrecorded:
        return ExitCode.UNAVAILABLE
    return ExitCode.OK if report.settled else ExitCode.FAILED


@contextmanager
def show_progress(*, quiet: bool) -> "Iterator[Follow]":
    """Show a live table on a terminal, a line for each account now and then elsewhere.

    Yields what is to be called with an account's progress.
    """
    console = Console(stderr=True, quiet=quiet)
    progress: dict[str, tuple[Counts, str]] = {}
    lock, next_line = threading.Lock(), time.monotonic()

    def show_live(account: str, counts: "Counts", reach: str) -> None:
        table = new_table("account", "window", "seen", "missed", "repaired", title="reconciling")
        with lock:
            progress[account] = (counts, reach)
            for name, (latest, until) in sorted(progress.items()):
                table.add_row(name, until, *map(str, (latest.seen, latest.missed, latest.repaired)))
            live.update(table)

    def print_lines(account: str, counts: "Counts", reach: str) -> None:
        nonlocal next_line
        with lock:
            progress[account] = (counts, reach)
            if time.monotonic() < next_line:
                return
            next_line = time.monotonic() + _LINE_SECONDS
            for name, (latest, until) in progress.items():
                console.print(f"{name}: {latest.seen} seen, {latest.missed} missed, {until}", soft_wrap=True)

    if not console.is_terminal or quiet:
        yield print_lines
        return
    with Live(console=console, transient=True) as live:
        yield show_live


def _print_reports(reports: "Sequence[Report]", *, dry_run: bool) -> None:
    """Print a table of the counts, and below it what the counts do not say."""
    table = new_table("account", *_COLUMNS, "seconds", unfolded=["account"])
    for report in reports:
        row = report.columns()
        counts = (str(row[name]) for name in _COLUMNS)
        table.add_row(report.account, *counts, f"{row['duration_seconds']:.1f}")
    Console().print(table)
    for report in reports:
        row, source = report.columns(), f"{report.vendor}/{report.account}"
        for name in filter(row.get, _REMARKS):
            print_line(f"{report.account}: {counted(row[name], 'booking')} {_REMARKS[name]}")
        if report.unproven:
            print_line(("not marked as gone", "red"), f" {source}: {report.unproven}")
        if report.failure:
            print_line(("failed", "red"), f" {source}: {report.failure}")
        elif missing := report.counts.missed - report.counts.repaired:
            what = "to repair" if dry_run else "not repaired yet: run it again"
            print_line(f"{source}: {counted(missing, 'booking')} {what}")
        if report.unrecorded:
            why = f"{report.unrecorded}; the next run tells what was found"
            print_line(("not recorded yet", "red"), f" {source}: {why}")
