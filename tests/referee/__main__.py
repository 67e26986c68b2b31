"""The long form of the referee: many lives, each by a seed of its own.

python -m tests.referee --lives 40 --days 90
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.referee.life import Life, Plan
from tests.referee.truth import Judgement, judge_ledger


def main() -> int:
    """Live and judge; return 1 if any hour was called complete falsely."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=40)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    total = Judgement()
    started = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.lives):
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            life = Life(Path(folder), Plan(hours=24 * arguments.days), seed)
            with life.installed():
                for hour in life.run():
                    if hour % 24 == 0:
                        total.false += judge_ledger(life).false
                life.calm()
                judged = judge_ledger(life)
        total.add(judged)
        tally = life.tally
        print(
            f"seed {seed}: {judged.hours} account-hours, {judged.complete} proven, {len(total.false)} false;"
            f" {tally.runs} runs, {tally.failed} failed, {tally.requests} requests"
            f" ({tally.least_requests} the fewest); {tally.faults}; {time.monotonic() - started:.0f} s",
            flush=True,
        )
        for line in total.false[:5]:
            print(line)
    return 1 if total.false else 0


def _folder() -> str | None:
    """Return a folder in memory, where there is one: checkpoints are written all the time."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    raise SystemExit(main())
