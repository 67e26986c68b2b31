"""What a person sees: a live picture on a terminal, a line now and then elsewhere, a summary at the end."""

import shutil
import sys
import time
from datetime import UTC
from types import TracebackType
from typing import Any, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ingest.booking import BookingStatus
from ingest.cli.demo.report import Outcome, Plan, Repair
from ingest.cli.demo.sandbox import Stage
from ingest.cli.demo.watch import Watch
from ingest.cli.output import Console, message, new_table, print_line
from ingest.simulator.sender import Sent

_LINE_SECONDS = 2.0
_SHOWN_DIFFERENCES = 10
_COLUMNS = ("seen", "matched", "missed", "repaired", "gone", "requests")


class View:
    """A context: live from entry to exit."""

    def __init__(self, plan: Plan, stage: Stage, sent: Sent, watch: Watch, *, quiet: bool) -> None:
        self._plan, self._stage, self._sent, self._watch = plan, stage, sent, watch
        self._console = Console(stderr=True, quiet=quiet)
        self._live = (
            Live(console=self._console, auto_refresh=False)
            if self._console.is_terminal and not quiet
            else None
        )
        self._began = self._line_at = time.monotonic()

    def __enter__(self) -> Self:
        self._console.print(f"starting in {self._stage.folder} …")
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    @property
    def shown(self) -> bool:
        """Whether anybody looks: else the details need not be asked for."""
        return not self._console.quiet

    def say(self, line: str) -> None:
        """Something happened that is worth a line."""
        self._console.print(f"{self._elapsed():5.1f} s  {line}")

    def update(self) -> None:
        """Show what is known now."""
        if self._live:
            self._live.update(self._picture(), refresh=True)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + _LINE_SECONDS
            self._console.print(self._line())

    def _line(self) -> str:
        accepted = self._sent.answers[202]
        return f"{self._elapsed():5.1f} s  accepted {accepted}  events {self._watch.events}  bookings {self._watch.bookings}  {self._fresh()}"

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _fresh(self) -> str:
        recent = sorted(self._watch.freshness[-500:])
        return (
            f"webhook to row {recent[len(recent) // 2]:.2f} s (median)"
            if recent
            else "waiting for the first row"
        )

    def _picture(self) -> Table:
        answers = self._sent.answers
        figures = (
            f"accepted {answers[202]}  rejected {answers[401]}  events {self._watch.events}  {self._fresh()}"
        )
        picture = Table.grid()
        picture.add_row(
            ProgressBar(self._plan.pace.seconds, min(self._elapsed(), self._plan.pace.seconds), width=80)
        )
        for part in (message(("bookings, live  ", "bold"), figures), self._counts(), self._newest()):
            picture.add_row(part)
        return picture

    def _counts(self) -> Table:
        table = new_table("account", *BookingStatus, "all")
        for account, counts in sorted(self._watch.statuses.items()):
            cells = [str(counts.get(status, "")) for status in BookingStatus]
            table.add_row(account, *cells, str(sum(counts.values())))
        return table

    def _newest(self) -> Table:
        table = new_table(
            "vendor",
            "status",
            "starts at (UTC)",
            "customer",
            "service",
            "price",
            title="newest rows of `bookings`",
        )
        for vendor, status, starts_at, customer, service, price in self._watch.newest:
            table.add_row(
                vendor,
                status,
                f"{starts_at:%a %d %b %H:%M}",
                customer,
                service,
                "" if price is None else f"{price:.2f}",
            )
        return table


def show_summary(outcome: Outcome) -> None:
    """The figures and the verdict, and where to look next."""
    console = Console()
    table = Table(show_header=False, box=None)
    for name, value in _figures(outcome):
        table.add_row(name, str(value))
    console.print(table)
    if outcome.repair:
        console.print(_repairs(outcome.repair))
    for wrong in outcome.wrong[:_SHOWN_DIFFERENCES]:
        where = f"{wrong.account} {wrong.booking_id} {wrong.column}"
        print_line(("differs", "red"), f" {where}: expected {wrong.expected!r}, found {wrong.found!r}")
    verdict, why = (
        (("right", "green"), "the warehouse equals the truth")
        if outcome.right
        else (("WRONG", "red"), ", ".join(outcome.faults()))
    )
    print_line(verdict, f": {why} ({outcome.truth} bookings checked, {len(outcome.wrong)} differences)")
    ours = "ingest" if shutil.which("ingest") else sys.argv[0]
    command = f"{ours} query --config {outcome.stage.config}"
    print_line(f'look around: {command} "select vendor, status, starts_at, customer_name from bookings"')  # noqa: S608 - to be typed


def _repairs(repair: Repair) -> Table:
    title = f"reconciliation found {repair.total('missed')} bookings whose last change was missed, of {repair.lost} that were lost"
    table = new_table("account", *_COLUMNS, title=title, unfolded=["account"])
    for report in repair.reports:
        table.add_row(report["account"], *(str(report[column]) for column in _COLUMNS))
    table.add_row("all", *(str(repair.total(column)) for column in _COLUMNS), style="bold")
    return table


def _figures(outcome: Outcome) -> list[tuple[str, Any]]:
    summary = outcome.summary()
    first = outcome.watch.first_row_at
    answers = ", ".join(f"{answer}: {count}" for answer, count in summary["answers"].items())
    return [
        (
            "webhooks",
            f"{summary['webhooks']} distinct in {summary['seconds']:g} s; answers {answers}; given up {summary['given_up']}",
        ),
        (
            "first row",
            f"{summary['first_row_seconds']:.1f} s after start, at {first.astimezone(UTC):%H:%M:%S} UTC"
            if first
            else "never",
        ),
        ("webhook to answer", _spread(summary["answer_seconds"])),
        ("webhook to row", _spread(summary["row_visible_seconds"])),
        (
            "warehouse",
            f"{summary['bookings']} bookings, {summary['events']} events by webhook, {summary['dead_letters']} dead letters",
        ),
        ("log", outcome.stage.settings.log),
        ("topics", ", ".join(outcome.stage.settings.topics())),
    ]


def _spread(seconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
