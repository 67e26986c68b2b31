"""The options of a demo, what is measured while it runs, and its report with the output of it."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from ingest.cli.demo.sandbox import Sandbox
from ingest.cli.output import Console, new_table, print_line
from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.simulator.account import Difference
from ingest.simulator.simulation import DeliveryStats, Pace
from ingest.warehouse.query import query_all

_SHOWN_DIFFERENCES = 10
_COLUMNS = ("seen", "matched", "missed", "repaired", "gone", "requests")
_EPOCH = datetime.fromtimestamp(0, UTC)
_STATUS_COUNTS = "select account, status, count(*) from bookings group by all"
_NEWEST_ROWS = (
    "select vendor, status, starts_at, customer_name, service_name, price"
    " from bookings order by loaded_at desc limit 8"
)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of a demo; `outage` is for how many seconds of the pace the receiver is down."""

    folder: Path
    pace: Pace
    log: str = ""
    seed: int = 1
    workers: int = 1
    outage: float = 0.0


@dataclass(slots=True)
class WarehouseMonitor:
    """Polls the warehouse as any reader would.

    `freshness` has the seconds from an event's receipt to the first poll that returned its row, so it never
    flatters. `loaded_until` is when the newest row was loaded that is counted already.
    """

    settings: Settings
    events: int = 0
    bookings: int = 0
    freshness: list[float] = field(default_factory=list)
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    newest: list[tuple[Any, ...]] = field(default_factory=list)
    first_row_at: datetime | None = None
    loaded_until: datetime = _EPOCH

    def poll(self, *, details: bool = True) -> None:
        """Update the figures; a warehouse that does not exist yet has no rows."""
        since = f"timestamptz '{self.loaded_until.isoformat()}'"
        new_events = f"select received_at, loaded_at from booking_events where loaded_at > {since}"  # noqa: S608
        statements = [new_events, *((_STATUS_COUNTS, _NEWEST_ROWS) if details else ())]
        try:
            events, *answers = query_all(self.settings, statements)
        except IngestError:
            return
        now = datetime.now(UTC)
        if events.rows:
            self.first_row_at = self.first_row_at or now
            self.loaded_until = max(loaded for _, loaded in events.rows)
            self.freshness += [(now - received).total_seconds() for received, _ in events.rows]
            self.events += len(events.rows)
        if details:
            counts, newest = answers
            self.statuses = {}
            for account, status, count in counts.rows:
                self.statuses.setdefault(account, {})[status] = count
            self.bookings = sum(count for _, _, count in counts.rows)
            self.newest = list(newest.rows)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The reports of `ingest reconcile` after an outage, and how many bookings were lost in the outage.

    A booking is lost when a webhook that describes its final state was never accepted.
    """

    reports: Sequence[dict[str, Any]]
    lost: int

    def total(self, column: str) -> int:
        """Return the sum over all accounts."""
        return sum(report[column] for report in self.reports)

    @property
    def right(self) -> bool:
        """Say whether exactly the lost bookings were found missing, and all of them were repaired."""
        complete = all(report["outcome"] == "complete" for report in self.reports)
        return complete and self.total("missed") == self.total("repaired") == self.lost


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The result of a demo.

    `webhook_events` are the events in the warehouse that came by webhook, `expected_bookings` is how many
    bookings the warehouse should have.
    """

    options: DemoOptions
    sandbox: Sandbox
    stats: DeliveryStats
    monitor: WarehouseMonitor
    differences: list[Difference]
    expected_bookings: int
    dead_letters: int
    webhook_events: int
    first_row_seconds: float | None
    reconciliation: Reconciliation | None = None

    @property
    def right(self) -> bool:
        """Say whether the warehouse equals the truth and every webhook is one event, or was repaired."""
        return not self.faults()

    def faults(self) -> list[str]:
        """Describe what is not right."""
        stats, reconciliation = self.stats, self.reconciliation
        faults = []
        if self.differences:
            faults.append(f"{len(self.differences)} differences")
        if self.webhook_events != stats.webhooks:
            faults.append(f"{self.webhook_events} events of {stats.webhooks} webhooks")
        if self.dead_letters:
            faults.append(f"{self.dead_letters} dead letters")
        if stats.given_up and not reconciliation:
            faults.append(f"{stats.given_up} webhooks given up")
        if reconciliation and not reconciliation.right:
            faults.append("reconciliation did not find just what was lost, and repair it")
        return faults

    def summary(self) -> dict[str, Any]:
        """Return the figures for scripts."""
        return {
            "right": self.right,
            "seconds": self.options.pace.seconds,
            "webhooks": self.stats.webhooks,
            "answers": {str(answer): count for answer, count in self.stats.answers.items()},
            "given_up": self.stats.given_up,
            "bookings_expected": self.expected_bookings,
            "bookings": self.monitor.bookings,
            "events": self.webhook_events,
            "dead_letters": self.dead_letters,
            "differences": len(self.differences),
            "first_row_seconds": self.first_row_seconds,
            "answer_seconds": percentiles(self.stats.latencies),
            "row_visible_seconds": percentiles(self.monitor.freshness),
            "lost": self.reconciliation and self.reconciliation.lost,
            "reconciliations": self.reconciliation and self.reconciliation.reports,
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95, p99 and max, or nothing for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    chosen = {
        name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in shares.items()
    }
    return {name: round(value, 4) for name, value in (chosen | {"max": ordered[-1]}).items()}


def show_summary(report: DemoReport) -> None:
    """Print the figures, the verdict, and a query to run next."""
    console = Console()
    table = Table(show_header=False, box=None)
    for name, value in _figures(report):
        table.add_row(name, value)
    console.print(table)
    if reconciliation := report.reconciliation:
        missed, lost = reconciliation.total("missed"), reconciliation.lost
        title = (
            f"reconciliation found {missed} bookings whose last change was missed, of {lost} that were lost"
        )
        counts = new_table("account", *_COLUMNS, title=title, unfolded=["account"])
        for reconciled in reconciliation.reports:
            counts.add_row(reconciled["account"], *(str(reconciled[column]) for column in _COLUMNS))
        counts.add_row("all", *(str(reconciliation.total(column)) for column in _COLUMNS), style="bold")
        console.print(counts)
    for difference in report.differences[:_SHOWN_DIFFERENCES]:
        value = f"{difference.account} {difference.booking_id} {difference.column}"
        expected, actual = difference.expected, difference.actual
        print_line(("differs", "red"), f" {value}: expected {expected!r}, found {actual!r}")
    verdict, reason = ("right", "green"), "the warehouse equals the truth"
    if not report.right:
        verdict, reason = ("WRONG", "red"), ", ".join(report.faults())
    checked = f"{report.expected_bookings} bookings checked, {len(report.differences)} differences"
    print_line(verdict, f": {reason} ({checked})")
    program = "ingest" if shutil.which("ingest") else sys.argv[0]
    command = f"{program} query --config {report.sandbox.config}"
    sql = "select vendor, status, starts_at, customer_name from bookings"
    print_line(f'look around: {command} "{sql}"')


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
