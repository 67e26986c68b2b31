"""What a demo was asked for, and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.cli.demo.sandbox import Stage
from ingest.cli.demo.watch import Watch
from ingest.simulator.rehearsal import Pace
from ingest.simulator.sender import Sent
from ingest.simulator.truth import Difference


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; `outage` is for how many seconds of the pace the receiver is down."""

    folder: Path
    pace: Pace
    log: str = ""
    seed: int = 1
    workers: int = 1
    outage: float = 0.0


@dataclass(frozen=True, slots=True)
class Repair:
    """What reconciliation said after an outage: its reports, and of how many bookings a webhook that tells their final state was never accepted."""

    reports: list[dict[str, Any]]
    lost: int

    def total(self, column: str) -> int:
        """Over all accounts."""
        return sum(report[column] for report in self.reports)

    @property
    def right(self) -> bool:
        """All that was lost was found missing, nothing else was, and all of it was repaired."""
        complete = all(report["outcome"] == "complete" for report in self.reports)
        return complete and self.total("missed") == self.total("repaired") == self.lost


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `webhook_events` are the warehouse's that came by webhook, `truth` how many bookings there should be."""

    plan: Plan
    stage: Stage
    sent: Sent
    watch: Watch
    wrong: list[Difference]
    truth: int
    dead_letters: int
    webhook_events: int
    first_row_seconds: float | None
    repair: Repair | None = None

    @property
    def right(self) -> bool:
        """Every booking as it truly is, every webhook one event, nothing set aside; nothing given up, or all of that found and repaired."""
        return not self.faults()

    def faults(self) -> list[str]:
        """What is not right, in words."""
        found = {
            f"{len(self.wrong)} differences": self.wrong,
            f"{self.webhook_events} events of {self.sent.webhooks} webhooks": self.webhook_events
            != self.sent.webhooks,
            f"{self.dead_letters} dead letters": self.dead_letters,
            f"{self.sent.given_up} webhooks given up": self.sent.given_up and not self.repair,
            "reconciliation did not find just what was lost, and repair it": self.repair
            and not self.repair.right,
        }
        return [fault for fault, there in found.items() if there]

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "right": self.right,
            "seconds": self.plan.pace.seconds,
            "webhooks": self.sent.webhooks,
            "answers": {str(answer): count for answer, count in self.sent.answers.items()},
            "given_up": self.sent.given_up,
            "bookings_expected": self.truth,
            "bookings": self.watch.bookings,
            "events": self.webhook_events,
            "dead_letters": self.dead_letters,
            "differences": len(self.wrong),
            "first_row_seconds": self.first_row_seconds,
            "answer_seconds": percentiles(self.sent.latencies),
            "row_visible_seconds": percentiles(self.watch.freshness),
            "lost": self.repair and self.repair.lost,
            "reconciliations": self.repair and self.repair.reports,
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and max; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {
        name: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    return {name: round(value, 4) for name, value in (at | {"max": ordered[-1]}).items()}
