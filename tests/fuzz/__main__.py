"""A million hostile requests: `python -m tests.fuzz --requests 1000000 --seed 1`.

Prints a table, or with `--json` the same for scripts; exits with 1 when anything was answered wrongly, lost,
not loaded, or grew.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.consumers.postgres import running_postgres
from tests.fuzz.run import Options, Report, run
from tests.long_run import add_options, carry_out


def main() -> int:
    """Run the fuzzer, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--postgres", action="store_true", help="load it into PostgreSQL too, which is to be installed"
    )
    add_options(parser)
    options = parser.parse_args()
    return carry_out(f"fuzz, seed {options.seed}", options, lambda folder: _run(options, folder))


def _run(options: argparse.Namespace, folder: Path) -> Report:
    with (
        _warehouses(postgres=options.postgres) as warehouses,
        Console(stderr=True).status("starting …") as status,
    ):
        return run(
            Options(options.requests, options.seed, options.connections, options.workers, folder),
            warehouses,
            status.update,
        )


@contextmanager
def _warehouses(*, postgres: bool) -> Iterator[dict[str, dict[str, Any]]]:
    if not postgres:
        yield {"duckdb": {}}
        return
    with running_postgres() as server:
        yield {
            "duckdb": {},
            "postgres": {"destination": "postgres", "credentials": server.url, "dataset": "fuzz"},
        }


if __name__ == "__main__":
    sys.exit(main())
