"""The referee of gaps: each delivery that was kept away is in a gap, and each gap is closed in the end.

python -m tests.referee.gaps --lives 10 --days 90
"""

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from ingest.event import Cause
from ingest.warehouse.completeness import HOUR
from ingest.warehouse.gaps import Gap
from tests.referee.gap_life import GapLife
from tests.referee.life import MINUTE
from tests.referee.losses import Miss
from tests.referee.plan import plan_of
from tests.referee.truth import Judge

_TOLERANCE = timedelta(minutes=1)  # between the clocks of a delivery and of what tells of it


@dataclass(slots=True)
class CauseResult:
    """What became of the gaps of one cause. `waits` are the minutes from ends of outages to closed gaps."""

    kept_away: int = 0
    gaps: int = 0
    waits: list[float] = field(default_factory=list)


@dataclass(slots=True)
class GapResult:
    """What was found in a life: by cause; deliveries that are in no gap, gaps that are open, false hours."""

    causes: dict[Cause, CauseResult] = field(default_factory=lambda: defaultdict(CauseResult))
    uncovered: list[Miss] = field(default_factory=list)
    open: list[Gap] = field(default_factory=list)
    false: list[str] = field(default_factory=list)

    def add(self, other: "GapResult") -> None:
        """Add what was found in another life."""
        for cause, of_cause in other.causes.items():
            known = self.causes[cause]
            known.kept_away += of_cause.kept_away
            known.gaps += of_cause.gaps
            known.waits += of_cause.waits
        self.uncovered += other.uncovered
        self.open += other.open
        self.false += other.false

    def describe(self) -> str:
        """Return a table of the causes, and what was not as it should be."""
        lines = ["| cause | deliveries kept away | gaps | median minutes from the end to the closed gap |"]
        lines.append("|---|---|---|---|")
        for cause, of_cause in sorted(self.causes.items()):
            middle = f"{median(of_cause.waits):.0f}" if of_cause.waits else "-"
            lines.append(f"| {cause.value} | {of_cause.kept_away} | {of_cause.gaps} | {middle} |")
        waits = [wait for of_cause in self.causes.values() for wait in of_cause.waits]
        middle = f"{median(waits):.0f}" if waits else "-"
        lines.append(
            f"| all | {sum(of.kept_away for of in self.causes.values())} |"
            f" {sum(of.gaps for of in self.causes.values())} | {middle} |"
        )
        lines += [f"in no gap: {miss}" for miss in self.uncovered[:20]]
        lines += [f"open: {gap}" for gap in self.open[:20]]
        lines += [f"false: {line}" for line in self.false[:20]]
        return "\n".join(lines)


def judge_gaps(life: GapLife) -> GapResult:
    """Live a life, and return what became of what was kept away."""
    judge, false = Judge(life), []
    with life.installed():
        for hour in life.run():
            if hour % 24 == 0:
                false += [line for lines in judge.find_false().values() for line in lines]
        life.calm()
        false += [line for lines in judge.find_false().values() for line in lines]
    gaps = life.gaps()
    result = GapResult(
        uncovered=_uncovered(life, gaps), open=[gap for gap in gaps if gap.is_open], false=false
    )
    for miss in life.product.misses:
        result.causes[miss.cause].kept_away += 1
    for gap in gaps:
        result.causes[gap.cause].gaps += 1
    for cause, source, end in life.ends:
        closed = [
            (gap.closed_at - end) / MINUTE
            for gap in gaps
            if (gap.cause, gap.source) == (cause, source) and gap.closed_at and gap.closed_at >= end
            if gap.until_at and gap.from_at <= end <= gap.until_at + HOUR
        ]
        result.causes[cause].waits += [min(closed)] if closed else []
    return result


def _uncovered(life: GapLife, gaps: list[Gap]) -> list[Miss]:
    """Return the deliveries that were kept away, and are in no gap of their account that says why.

    Only where the vendor sent nothing, the gap may be what a comparison found; there, a delivery without news
    counts for nothing.
    """
    spans: dict[tuple[str, bool], list[tuple[datetime, datetime]]] = defaultdict(list)
    for gap in gaps:
        span = gap.from_at - _TOLERANCE, (gap.until_at or life.clock.now) + _TOLERANCE
        spans[gap.source, gap.cause is Cause.NOT_DELIVERED].append(span)

    def is_covered(miss: Miss) -> bool:
        is_silence = miss.cause is Cause.SILENCE
        known = spans[miss.source, False] + (spans[miss.source, True] if is_silence else [])
        return any(since <= miss.at <= until for since, until in known) or (is_silence and not miss.news)

    return [miss for miss in life.product.misses if not is_covered(miss)]


def main() -> int:
    """Live and judge; return 1 if a delivery is in no gap, a gap is open, or an hour is proven falsely."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=10)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    total = GapResult()
    for seed in range(arguments.seed, arguments.seed + arguments.lives):
        began_at = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            life = GapLife(Path(folder), plan_of(seed, arguments.days), seed)
            result = judge_gaps(life)
        total.add(result)
        print(
            f"seed {seed}: {len(life.product.misses)} deliveries kept away,"
            f" {len(result.uncovered)} in no gap, {len(result.open)} gaps open,"
            f" {len(result.false)} hours false; {life.tally.faults};"
            f" {time.monotonic() - began_at:.0f} s",
            flush=True,
        )
    print(total.describe())
    return 1 if total.uncovered or total.open or total.false else 0


if __name__ == "__main__":
    raise SystemExit(main())
