"""A million hostile requests: `python -m tests.fuzz --requests 1000000 --seed 1`.

Prints a table, or with `--json` the same for scripts; exits with 1 when anything was answered wrongly, lost, not loaded, or grew.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.consumers.postgres import running_postgres
from tests.fuzz.run import Asked, Report, run


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--postgres", action="store_true", help="load it into PostgreSQL too, which is to be installed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="the folder, with all logs, also when all was right")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="ingest-fuzz-"))
    right = False
    try:
        with _warehouses(postgres=asked.postgres) as warehouses, Console(stderr=True).status("starting …") as status:
            report = run(Asked(asked.requests, asked.seed, asked.connections, asked.workers, folder), warehouses, status.update)
        right = not report.faults()
        _print(report, as_json=asked.json)
    finally:
        if right and not asked.keep:
            shutil.rmtree(folder)
        else:
            print(f"logs and data are in {folder}", file=sys.stderr)
    return 0 if right else 1


@contextmanager
def _warehouses(*, postgres: bool) -> Iterator[dict[str, dict[str, Any]]]:
    if not postgres:
        yield {"duckdb": {}}
        return
    with running_postgres() as server:
        yield {"duckdb": {}, "postgres": {"destination": "postgres", "credentials": server.url, "dataset": "fuzz"}}


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.summary(), indent=2))
        return
    table = Table("", "", title="all right" if not report.faults() else "WRONG")
    for name, value in report.summary().items():
        shown = "\n".join(f"{key}: {count}" for key, count in value.items()) if isinstance(value, dict) else value
        table.add_row(name, "\n".join(shown) if isinstance(shown, list) else str(shown), end_section=isinstance(value, dict))
    Console(width=140).print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main())
