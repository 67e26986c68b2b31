"""`reconcile`: what the vendors have, compared with the warehouse, and repaired; shown while it runs and when it is done."""

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
from rich.table import Table

from ingest.cli import Stopped
from ingest.cli.instants import span_of
from ingest.cli.options import UNAVAILABLE, AsJson, Config, complete_account
from ingest.cli.output import Console, new_table, print_json, print_line
from ingest.cli.parent import WithParent, WithSettings, follow_parent, handed_settings
from ingest.cli.plural import counted
from ingest.cli.waits import showing_waits
from ingest.disk import require_writable
from ingest.errors import ConfigurationError, VendorRefused
from ingest.settings import Settings
from ingest.settings.live import Live as LiveSettings
from ingest.settings.sources import load_settings, watched_paths
from ingest.telemetry import configure_logging
from ingest.waits import announcing

if TYPE_CHECKING:
    from ingest.readiness import Probe
    from receivers.reconcile.report import Counts, Report
    from receivers.reconcile.run import Follow, Reconciler

log = structlog.get_logger()

_LINE_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_STOP_SECONDS = 10.0
_COLUMNS = ("seen", "matched", "missed", "repaired", "gone", "requests")
# What is worth a line when there is any.
_RARE = {
    "untold": "in a state that the vendor sends no webhook for, loaded too",
    "newer_here": "newer here than in the vendor's list, not changed",
    "unreadable": "not readable, see the table dead_letters",
}


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(reconcile)


def reconcile(
    since: Annotated[
        str,
        typer.Option(
            help="A date, an instant, or how long ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
            show_default="reconcile.lookback",
        ),
    ] = "",
    until: Annotated[str, typer.Option(help="As --since.", show_default="now")] = "",
    account: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this account; can be repeated.",
            show_default="all with REST credentials",
            autocompletion=complete_account,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find, and repair nothing.")] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Again and again, every reconcile.every; at once when a vendor says that it gave up a delivery.",
        ),
    ] = False,
    confirm_key: Annotated[
        bool,
        typer.Option(
            "--confirm-key",
            help="With --account: the key is that account's although it finds few of the bookings here, and what it does not find is gone.",
        ),
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    with_parent: WithParent = False,
    with_settings: WithSettings = False,
) -> None:
    """Find by REST what webhooks missed, repair it through the log, and say how many there were.

    Vendors are asked what changed in the window; Calendly, which cannot be asked that, what starts in it, and without --until
    also in the future. Whole days ago begin at midnight UTC. A run that was stopped goes on where it was, within a day, when the
    same --since and --until are given. A consumer must be running (`ingest up`, or `ingest consume`): repairs go through the log.

    A key is refused when it finds less than half of the bookings here: it may be another account's. Where the vendor has deleted them, confirm
    the key once, after a look at what would be marked as gone. Nothing secret is kept of it.

    Exit code 0: nothing is missing any more; 1: something is; 2: a key or an argument is refused; 3: something could not be reached.

    Examples:
        ingest reconcile
        ingest reconcile --since 30d --dry-run
        ingest reconcile --since 2026-11-01 --account sales --json
        ingest reconcile --account sales --confirm-key --dry-run
    """
    from receivers.reconcile.run import choose_accounts

    settings = handed_settings(config, with_settings)
    configure_logging("reconcile")
    follow_parent(with_parent)
    if watch:
        if since or until or dry_run or as_json or confirm_key:
            raise ConfigurationError(
                "--watch goes with --account only: what it compares is in the settings, what it finds in reconciliations"
            )
        _watch(settings, account or [])
        return
    if confirm_key and not account:
        raise ConfigurationError(
            "--confirm-key needs --account: name the account whose key you have looked at"
        )
    now = datetime.now(UTC)
    start, end = span_of(since, until, now, now - settings.reconcile.lookback)
    accounts = choose_accounts(settings, account or [])
    try:
        with (
            showing_waits(),
            _shown(as_json) as follow,
            _reconciler(settings, follow, dry_run=dry_run) as reconciler,
        ):
            reports = reconciler.run(accounts, start, end, confirm_key=confirm_key)
    except KeyboardInterrupt:
        raise Stopped(
            "stopped: what was appended will be loaded; run it again with the same --since and --until to go on from here"
        ) from None
    _tell(reports, dry_run, as_json)
    if code := max(map(_exit_code, reports), default=0):
        raise typer.Exit(code)


def _watch(settings: Settings, accounts: Sequence[str]) -> None:
    from ingest.admin import serve_admin
    from receivers.reconcile.run import choose_accounts
    from receivers.schedule import Schedule

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    choose_accounts(settings, accounts)  # raises ConfigurationError where there is none
    live = LiveSettings(load_settings, watched_paths(), first=settings)
    serve_admin(settings.reconcile, "reconcile", {**_probes(settings), "settings": live.findings})
    with (
        announcing(lambda line: log.info("reconcile.waiting", why=line)),
        _reconciler(settings, lambda *_: None, stop=stop) as reconciler,
    ):
        schedule = Schedule(settings, live.current, accounts, reconciler)
        # Beside the main thread, because a vendor may have it wait for minutes; to be cut off then loses nothing.
        work = threading.Thread(target=schedule.run, args=(stop,), name="watch", daemon=True)
        work.start()
        while work.is_alive() and not stop.wait(_LOOK_SECONDS):
            pass
        work.join(_STOP_SECONDS)
    if not stop.is_set():
        raise typer.Exit(1)  # it died, and its traceback is in the log; `ingest up` starts it again


def _probes(settings: Settings) -> "dict[str, Probe]":
    """What a comparison and its repairs need; each vendor's own trouble is in the metrics."""
    from ingest.log_probes import AppendProbe, probe_loaded
    from ingest.warehouse.reach import reach

    return {
        "log": AppendProbe(settings),
        "undone": lambda: probe_loaded(settings.build_log(), settings.reconcile.undone_limit),
        "warehouse": lambda: reach(settings.warehouse),
        "state_dir": lambda: require_writable(Path(settings.reconcile.state_dir), "reconcile.state_dir"),
    }


@contextmanager
def _reconciler(
    settings: Settings, follow: "Follow", *, dry_run: bool = False, stop: threading.Event | None = None
) -> "Iterator[Reconciler]":
    from ingest.warehouse.bookings import StoredBookings
    from receivers.reconcile.run import Reconciler

    producer = None if dry_run else settings.build_log().producer()
    try:
        yield Reconciler(settings, StoredBookings(settings), producer, follow, stop or threading.Event())
    finally:
        if producer:
            producer.close()


def _exit_code(report: "Report") -> int:
    if report.failure:
        return 2 if isinstance(report.failure, VendorRefused | ConfigurationError) else UNAVAILABLE
    if report.unrecorded:
        return UNAVAILABLE
    return 0 if report.settled else 1


@contextmanager
def _shown(quiet: bool) -> "Iterator[Follow]":
    """A live table on a terminal, a line per account now and then elsewhere."""
    console = Console(stderr=True, quiet=quiet)
    latest: dict[str, tuple[Counts, str]] = {}
    lock, line_at = threading.Lock(), time.monotonic()

    def follow(account: str, counts: "Counts", reach: str) -> None:
        nonlocal line_at
        with lock:
            latest[account] = (counts, reach)
            if live:
                live.update(_progress(latest))
            elif time.monotonic() >= line_at:
                line_at = time.monotonic() + _LINE_SECONDS
                for name, (one, at) in latest.items():
                    console.print(f"{name}: {one.seen} seen, {one.missed} missed, {at}", soft_wrap=True)

    live = Live(console=console, transient=True) if console.is_terminal and not quiet else None
    if not live:
        yield follow
        return
    with live:
        yield follow


def _progress(latest: "dict[str, tuple[Counts, str]]") -> Table:
    table = new_table("account", "window", "seen", "missed", "repaired", title="reconciling")
    for account, (counts, reach) in sorted(latest.items()):
        table.add_row(account, reach, *map(str, (counts.seen, counts.missed, counts.repaired)))
    return table


def _tell(reports: "Sequence[Report]", dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {**report.columns(), "dry_run": dry_run, "recorded": not (dry_run or report.unrecorded)}
                for report in reports
            ]
        )
        return
    table = new_table("account", *_COLUMNS, "seconds", whole=["account"])
    for report in reports:
        row = report.columns()
        table.add_row(
            report.account, *(str(row[name]) for name in _COLUMNS), f"{row['duration_seconds']:.1f}"
        )
    Console().print(table)
    for report in reports:
        _remark(report, dry_run)


def _remark(report: "Report", dry_run: bool) -> None:
    """What is not in the table."""
    row, named = report.columns(), f"{report.vendor}/{report.account}"
    for name, meaning in _RARE.items():
        if row[name]:
            print_line(f"{report.account}: {counted(row[name], 'booking')} {meaning}")
    if report.unproven:
        print_line(("not marked as gone", "red"), f" {named}: {report.unproven}")
    if report.failure:
        print_line(("failed", "red"), f" {named}: {report.failure}")
    elif missing := report.counts.missed - report.counts.repaired:
        print_line(
            f"{named}: {counted(missing, 'booking')} {'to repair' if dry_run else 'not repaired yet: run it again'}"
        )
    if report.unrecorded:
        print_line(
            ("not recorded yet", "red"), f" {named}: {report.unrecorded}; the next run tells what was found"
        )
