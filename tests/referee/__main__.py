"""The long form of the referee: many lives, each by a seed of its own, some of them side by side.

Each life that is over is kept in a folder, so that a run that was stopped goes on where it was.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.referee.life import Life
from tests.referee.plan import plan_of
from tests.referee.report import LifeResult, Results, VendorResult, describe_life, describe_lives
from tests.referee.truth import Judge


def main() -> int:
    """Live and judge; return 1 if any hour was called complete falsely."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=30)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(".cache/referee"))
    arguments = parser.parse_args()
    results = Results(arguments.folder, arguments.days)
    seeds = range(arguments.seed, arguments.seed + arguments.lives)
    done = [result for seed in seeds if (result := results.read(seed))]
    waiting = sorted({*seeds} - {result.seed for result in done})
    if done:
        print(f"{len(done)} of {len(seeds)} lives were lived before", flush=True)
    with ProcessPoolExecutor(arguments.workers) as pool:
        for future in as_completed(pool.submit(live, seed, arguments.days) for seed in waiting):
            result = future.result()
            results.write(result)
            done.append(result)
            print(f"{len(done)}/{len(seeds)} {describe_life(result)}", flush=True)
    print(describe_lives(done))
    judgements = [vendor.judgement for result in done for vendor in result.vendors.values()]
    for line in [line for judgement in judgements for line in judgement.false][:20]:
        print("false:", line)
    for line in [line for judgement in judgements for line in judgement.waiting][:20]:
        print("not proven:", line)
    return 1 if any(judgement.false for judgement in judgements) else 0


def live(seed: int, days: int) -> LifeResult:
    """Live one life, and return what was found."""
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        life = Life(Path(folder), plan_of(seed, days), seed)
        judge = Judge(life)
        with life.installed():
            false = [judge.find_false() for hour in life.run() if hour % 24 == 0]
            life.calm()
            judgements = judge.judge()
    for name, judgement in judgements.items():
        judgement.false += [line for at_that_time in false for line in at_that_time[name]]
    vendors = {name: VendorResult(judgements[name], life.tally.costs[name]) for name in judgements}
    return LifeResult(seed, vendors, life.tally.faults, time.monotonic() - began_at)


def _folder() -> str | None:
    """Return a folder in memory, where there is one: checkpoints are written all the time."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    raise SystemExit(main())
