"""Run the long form of the test of faults.

`python -m tests.faults --log sqlite|kafka|cluster --warehouse duckdb|postgres --seed 1
--kills 200 --webhooks 100000`

The command prints a table, or with `--json` the same for scripts. It exits with 1 when anything was lost,
doubled, set back or left over, or what a fault took out of the log is in no gap, or a gap is not closed.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import uvloop
from rich.console import Console

from tests.faults.breaker import Breaker
from tests.faults.load import Vendors
from tests.faults.plan import ALL, CLOCKS, KINDS, OF_WAREHOUSE, Plan
from tests.faults.run import Report, RunOptions, run
from tests.long_run import add_options, carry_out


def main() -> int:
    """Run what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", choices=sorted(KINDS), default="sqlite")
    parser.add_argument("--warehouse", choices=sorted(OF_WAREHOUSE), default="duckdb")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--webhooks", type=int, default=100_000)
    parser.add_argument(
        "--clocks",
        action="store_true",
        help="clocks jump as well, by libfaketime, with which everything is much slower",
    )
    parser.add_argument(
        "--without-gaps",
        action="store_true",
        help="reconciliation does not run, and days of the world pass in minutes",
    )
    add_options(parser)
    options = parser.parse_args()
    return carry_out(
        f"{options.log}, {options.warehouse}, seed {options.seed}",
        options,
        lambda folder: _run(options, folder),
    )


def _run(options: argparse.Namespace, folder: Path) -> Report:
    kinds = ALL if options.clocks else ALL - CLOCKS
    request = RunOptions(
        options.log,
        options.warehouse,
        options.seed,
        options.kills,
        options.webhooks,
        folder / "system",
        kinds=kinds,
        reconcile=not (options.without_gaps or options.clocks),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_with_status(request))


async def _run_with_status(request: RunOptions) -> Report:
    with Console(stderr=True).status("starting …") as status:

        def on_progress(vendors: Vendors, breaker: Breaker, plan: Plan) -> None:
            status.update(
                f"{vendors.stats.webhooks} of {request.webhooks} webhooks accepted,"
                f" {breaker.done.total()} of {len(plan.faults)} faults"
                f" ({breaker.kills} kills of {plan.kills})"
            )

        return await run(request, on_progress)


if __name__ == "__main__":
    sys.exit(main())
