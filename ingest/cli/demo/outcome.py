"""What a demo was asked for, and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.cli.demo.stage import Stage
from ingest.cli.demo.watch import Watch
from ingest.simulator.rehearsal import Pace
from ingest.simulator.sender import Sent
from ingest.simulator.truth import Difference


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    folder: Path
    pace: Pace
    log: str = ""
    seed: int = 1
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `events` and `bookings` are the warehouse's, `truth` how many bookings there should be."""

    plan: Plan
    stage: Stage
    sent: Sent
    watch: Watch
    wrong: list[Difference]
    truth: int
    dead_letters: int
    first_row_seconds: float | None

    @property
    def right(self) -> bool:
        """Every booking as it truly is, every webhook one event, nothing set aside or given up."""
        return not self.wrong and self.watch.events == self.sent.webhooks and not self.dead_letters and not self.sent.given_up

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
            "events": self.watch.events,
            "dead_letters": self.dead_letters,
            "differences": len(self.wrong),
            "first_row_seconds": self.first_row_seconds,
            "answer_seconds": percentiles(self.sent.latencies),
            "row_visible_seconds": percentiles(self.watch.freshness),
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and max; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {name: round(value, 4) for name, value in (at | {"max": ordered[-1]}).items()}
