"""The output of a demo for people: live on a terminal, lines elsewhere, and a summary at the end."""

import shutil
import sys
import time
from datetime import UTC
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ingest.booking import BookingStatus
from ingest.cli.demo.report import DemoOptions, DemoReport, Reconciliation, WarehouseMonitor
from ingest.cli.demo.sandbox import Sandbox
from ingest.cli.output import Console, message, new_table, print_line
from ingest.simulator.simulation import DeliveryStats

_LINE_SECONDS = 2.0
_SHOWN_DIFFERENCES = 10
_RECENT_ROWS = 500
_COLUMNS = ("seen", "matched", "missed", "repaired", "gone", "requests")


class DemoView:
    """Shows the progress of a demo, from entry to exit."""

    def __init__(
        self,
        options: DemoOptions,
        sandbox: Sandbox,
        stats: DeliveryStats,
        monitor: WarehouseMonitor,
        *,
        quiet: bool,
    ) -> None:
        self._options, self._sandbox, self._stats, self._monitor = options, sandbox, stats, monitor
        self._console = Console(stderr=True, quiet=quiet)
        self._live = (
            Live(console=self._console, auto_refresh=False)
            if self._console.is_terminal and not quiet
            else None
        )
        self._began = self._next_line_at = time.monotonic()

    def __enter__(self) -> Self:
        self._console.print(f"starting in {self._sandbox.folder} …")
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    @property
    def visible(self) -> bool:
        """Say whether there is output, for which the details have to be queried."""
        return not self._console.quiet

    def note(self, line: str) -> None:
        """Print a line about an event."""
        self._console.print(f"{self._elapsed():5.1f} s  {line}")

    def update(self) -> None:
        """Show the current figures."""
        if self._live:
            self._live.update(self._live_view(), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _LINE_SECONDS
            self._console.print(self._line())

    def _line(self) -> str:
        accepted = self._stats.answers[202]
        figures = f"events {self._monitor.events}  bookings {self._monitor.bookings}  {self._freshness()}"
        return f"{self._elapsed():5.1f} s  accepted {accepted}  {figures}"

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _freshness(self) -> str:
        recent = sorted(self._monitor.freshness[-_RECENT_ROWS:])
        if not recent:
            return "waiting for the first row"
        return f"webhook to row {recent[len(recent) // 2]:.2f} s (median)"

    def _live_view(self) -> Table:
        answers = self._stats.answers
        counts = f"accepted {answers[202]}  rejected {answers[401]}  events {self._monitor.events}"
        grid = Table.grid()
        grid.add_row(
            ProgressBar(
                self._options.pace.seconds, min(self._elapsed(), self._options.pace.seconds), width=80
            )
        )
        for part in (
            message(("bookings, live  ", "bold"), f"{counts}  {self._freshness()}"),
            self._status_table(),
            self._newest_rows(),
        ):
            grid.add_row(part)
        return grid

    def _status_table(self) -> Table:
        table = new_table("account", *BookingStatus, "all")
        for account, counts in sorted(self._monitor.statuses.items()):
            cells = [str(counts.get(status, "")) for status in BookingStatus]
            table.add_row(account, *cells, str(sum(counts.values())))
        return table

    def _newest_rows(self) -> Table:
        table = new_table(
            "vendor",
            "status",
            "starts at (UTC)",
            "customer",
            "service",
            "price",
            title="newest rows of `bookings`",
        )
        for vendor, status, starts_at, customer, service, price in self._monitor.newest:
            table.add_row(
                vendor,
                status,
                f"{starts_at:%a %d %b %H:%M}",
                customer,
                service,
                "" if price is None else f"{price:.2f}",
            )
        return table


def show_summary(report: DemoReport) -> None:
    """Print the figures, the verdict, and a query to run next."""
    console = Console()
    table = Table(show_header=False, box=None)
    for name, value in _figures(report):
        table.add_row(name, value)
    console.print(table)
    if report.reconciliation:
        console.print(_reconciliation_table(report.reconciliation))
    for difference in report.differences[:_SHOWN_DIFFERENCES]:
        value = f"{difference.account} {difference.booking_id} {difference.column}"
        expected, actual = difference.expected, difference.actual
        print_line(("differs", "red"), f" {value}: expected {expected!r}, found {actual!r}")
    verdict, reason = ("right", "green"), "the warehouse equals the truth"
    if not report.right:
        verdict, reason = ("WRONG", "red"), ", ".join(report.faults())
    counts = f"{report.expected_bookings} bookings checked, {len(report.differences)} differences"
    print_line(verdict, f": {reason} ({counts})")
    program = "ingest" if shutil.which("ingest") else sys.argv[0]
    command = f"{program} query --config {report.sandbox.config}"
    sql = "select vendor, status, starts_at, customer_name from bookings"
    print_line(f'look around: {command} "{sql}"')


def _reconciliation_table(reconciliation: Reconciliation) -> Table:
    missed, lost = reconciliation.total("missed"), reconciliation.lost
    title = f"reconciliation found {missed} bookings whose last change was missed, of {lost} that were lost"
    table = new_table("account", *_COLUMNS, title=title, unfolded=["account"])
    for report in reconciliation.reports:
        table.add_row(report["account"], *(str(report[column]) for column in _COLUMNS))
    table.add_row("all", *(str(reconciliation.total(column)) for column in _COLUMNS), style="bold")
    return table


def _figures(report: DemoReport) -> list[tuple[str, str]]:
    summary, first, settings = report.summary(), report.monitor.first_row_at, report.sandbox.settings
    answers = ", ".join(f"{answer}: {count}" for answer, count in summary["answers"].items())
    webhooks = f"{summary['webhooks']} distinct in {summary['seconds']:g} s"
    rows = f"{summary['bookings']} bookings, {summary['events']} events by webhook"
    first_row = "never"
    if first:
        first_row = (
            f"{summary['first_row_seconds']:.1f} s after start, at {first.astimezone(UTC):%H:%M:%S} UTC"
        )
    return [
        ("webhooks", f"{webhooks}; answers {answers}; given up {summary['given_up']}"),
        ("first row", first_row),
        ("webhook to answer", _spread(summary["answer_seconds"])),
        ("webhook to row", _spread(summary["row_visible_seconds"])),
        ("warehouse", f"{rows}, {summary['dead_letters']} dead letters"),
        ("log", settings.log),
        ("topics", ", ".join(settings.topics())),
    ]


def _spread(seconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
