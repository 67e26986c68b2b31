"""Reconciliation of a simulated month: `python -m tests.bench.reconcile [--bookings 20000]`.

The simulated vendors and the consumer share the machine with what is measured. The output has the requests
beside the fewest possible, bookings a second without a rate limit, the used share of a rate limit, and the
memory of a month beside that of a tenth of it.
"""

import argparse
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from ingest.simulator.api import RateLimit
from tests.month.month import MonthPlan
from tests.month.run import MonthReport, ReconcileRun, run_month

_MIB = 1024 * 1024
_NO_CHECK: Mapping[str, Mapping[str, Any]] = {"calendly": {"check_no_shows": False}}
# Calendly's limit for paying customers: requests a minute.
_LIMIT = RateLimit(500, 60)


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bookings", type=int, default=20_000)
    bookings = parser.parse_args().bookings
    console = Console(highlight=False, width=150)
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    console.print(f"{machine}: a month, {bookings} bookings, a tenth of the webhooks lost")
    console.print(
        _table(
            [
                *_both_runs("every held meeting looked at", _month(bookings)),
                *_both_runs("no look", _month(bookings, **_NO_CHECK)),
            ]
        )
    )
    small, large = (_month(share, **_NO_CHECK).runs[1].memory for share in (bookings // 10, bookings))
    console.print(
        f"memory: {small / _MIB:.0f} MiB for {bookings // 10} bookings,"
        f" {large / _MIB:.0f} MiB for {bookings}: {large / small:.2f} times"
    )
    _limited(console)


def _month(
    bookings: int, limits: Mapping[str, RateLimit] | None = None, **accounts: Mapping[str, Any]
) -> MonthReport:
    with TemporaryDirectory(prefix="month-") as folder:
        return run_month(Path(folder), MonthPlan(datetime.now(UTC), bookings), limits, **accounts)


def _both_runs(name: str, report: MonthReport) -> list[tuple[str, ReconcileRun, int]]:
    return [
        (f"{name}, {which} run", run, len(wrong))
        for which, run, wrong in zip(("1st", "2nd"), report.runs, report.differences[1:], strict=True)
    ]


def _table(lines: list[tuple[str, ReconcileRun, int]]) -> Table:
    table = Table(
        "run",
        "seen",
        "missed",
        "repaired",
        "requests",
        "fewest possible",
        "seconds",
        "bookings/s",
        "memory",
        "differences left",
    )
    for name, run, wrong in lines:
        counts = [
            run.total(column) for column in ("seen", "missed", "repaired", "requests", "least_requests")
        ]
        slowest = max(report["duration_seconds"] for report in run.reports)
        table.add_row(
            name,
            *map(str, counts),
            f"{slowest:.1f}",
            f"{counts[0] / slowest:.0f}",
            f"{run.memory / _MIB:.0f} MiB",
            str(wrong),
        )
    return table


def _limited(console: Console) -> None:
    """Measure Calendly alone at its limit, which the product knows by a setting or from responses."""
    for method, rate_limit in (("keeping to it by itself", 500), ("told by the vendor's answers", 0)):
        month_report = _month(3_000, {"calendly": _LIMIT}, calendly={"rate_limit": rate_limit})
        report = next(report for report in month_report.runs[0].reports if report["account"] == "calendly")
        # The limit is renewed every minute, and the first is there at once.
        fewest = (report["requests"] - 1) // _LIMIT.requests * _LIMIT.seconds
        share = fewest / report["duration_seconds"]
        console.print(
            f"limit of {_LIMIT.requests} requests a minute, {method}:"
            f" {report['requests']} requests in {report['duration_seconds']:.1f} s,"
            f" at least {fewest:.0f} s by the limit: {share:.0%} of the speed it allows"
        )


if __name__ == "__main__":
    main()
