"""Reconciliation of a simulated month: `python -m tests.bench.reconcile [--bookings 20000]`.

The simulated vendors and the consumer share the machine with what is measured. It prints requests beside the fewest that
could do, bookings a second where the vendors set no limit, the share of a vendor's limit that is used where they do, and
the memory of a month beside that of a part of it.
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
from tests.month.rehearsal import Outcome, Run, rehearse
from tests.month.story import Plan

_MIB = 1024 * 1024
_NO_LOOK: Mapping[str, Mapping[str, Any]] = {"calendly": {"check_no_shows": False}}
# As Calendly has it for those who pay: so many requests a minute.
_LIMIT = RateLimit(500, 60)


def main() -> None:
    """Measures once and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bookings", type=int, default=20_000)
    bookings = parser.parse_args().bookings
    console = Console(highlight=False, width=150)
    console.print(
        f"{platform.machine()}, Python {platform.python_version()}: a month, {bookings} bookings, a tenth of the webhooks lost"
    )
    console.print(
        _table(
            [
                *_both("every held meeting looked at", _month(bookings)),
                *_both("no look", _month(bookings, **_NO_LOOK)),
            ]
        )
    )
    small, large = (_month(share, **_NO_LOOK).runs[1].memory for share in (bookings // 10, bookings))
    console.print(
        f"memory: {small / _MIB:.0f} MiB for {bookings // 10} bookings, {large / _MIB:.0f} MiB for {bookings}: {large / small:.2f} times"
    )
    _limited(console)


def _month(
    bookings: int, limits: Mapping[str, RateLimit] | None = None, **accounts: Mapping[str, Any]
) -> Outcome:
    with TemporaryDirectory(prefix="month-") as folder:
        return rehearse(Path(folder), Plan(datetime.now(UTC), bookings), limits, **accounts)


def _both(name: str, outcome: Outcome) -> list[tuple[str, Run, int]]:
    return [
        (f"{name}, {which} run", run, len(wrong))
        for which, run, wrong in zip(("1st", "2nd"), outcome.runs, outcome.wrong[1:], strict=True)
    ]


def _table(lines: list[tuple[str, Run, int]]) -> Table:
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
    """Calendly alone, at its own limit, which we keep to by ourselves, or only because its answers tell."""
    for how, ours in (("keeping to it by itself", 500), ("told by the vendor's answers", 0)):
        outcome = _month(3_000, {"calendly": _LIMIT}, calendly={"rate_limit": ours})
        report = next(report for report in outcome.runs[0].reports if report["account"] == "calendly")
        # A new allowance each minute, the first at once.
        fewest = (report["requests"] - 1) // _LIMIT.requests * _LIMIT.seconds
        share = fewest / report["duration_seconds"]
        console.print(
            f"limit of {_LIMIT.requests} requests a minute, {how}: {report['requests']} requests in {report['duration_seconds']:.1f} s,"
            f" at least {fewest:.0f} s by the limit: {share:.0%} of the speed it allows"
        )


if __name__ == "__main__":
    main()
