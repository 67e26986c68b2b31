"""The long form: `python -m tests.faults --log sqlite|kafka|cluster --warehouse duckdb|postgres --seed 1 --kills 200 --webhooks 100000`.

Prints a table, or with `--json` the same for scripts; exits with 1 when anything was lost, doubled, set back or left over.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults.breaker import Breaker
from tests.faults.load import Vendors
from tests.faults.plan import ALL, CLOCKS, KINDS, OF_WAREHOUSE, Plan
from tests.faults.run import Asked, Report, run


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", choices=sorted(KINDS), default="sqlite")
    parser.add_argument("--warehouse", choices=sorted(OF_WAREHOUSE), default="duckdb")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--webhooks", type=int, default=100_000)
    parser.add_argument("--clocks", action="store_true", help="clocks jump as well, by libfaketime, with which everything is much slower")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="the folder, with all logs, also when all was right")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="ingest-faults-"))
    right = False
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            kinds = ALL if asked.clocks else ALL - CLOCKS
            report = runner.run(
                _run(Asked(asked.log, asked.warehouse, asked.seed, asked.kills, asked.webhooks, folder / "stand", kinds=kinds))
            )
        right = not report.verdict.faults()
        _print(report, as_json=asked.json)
    finally:
        if right and not asked.keep:
            shutil.rmtree(folder)
        else:
            print(f"settings, logs and data are in {folder}", file=sys.stderr)
    return 0 if right else 1


async def _run(asked: Asked) -> Report:
    with Console(stderr=True).status("starting …") as status:

        def tell(vendors: Vendors, breaker: Breaker, plan: Plan) -> None:
            status.update(
                f"{vendors.sent.webhooks} of {asked.webhooks} webhooks accepted,"
                f" {breaker.done.total()} of {len(plan.faults)} faults ({breaker.kills} kills of {plan.kills})"
            )

        return await run(asked, tell)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.summary(), indent=2))
        return
    table = Table(
        "",
        "",
        title=f"{report.asked.log}, {report.asked.warehouse}, seed {report.asked.seed}: {'all right' if not report.verdict.faults() else 'WRONG'}",
    )
    for name, value in report.summary().items():
        shown = "\n".join(f"{key}: {count}" for key, count in value.items()) if isinstance(value, dict) else value
        table.add_row(name, "\n".join(map(str, shown)) if isinstance(shown, list) else str(shown), end_section=isinstance(value, dict))
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
