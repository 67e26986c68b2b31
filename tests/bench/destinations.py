"""What a load costs at each destination: `python -m tests.bench.destinations [--only duckdb --write]`.

With `--matrix` it is what works at each: the black box of tests/destinations, step by step.

A consumer makes the tables and loads 100 events, and then 1,000 events of all vendors at once, of which some
are there or change bookings that are there. What stands in for a cloud is the emulator of tests/destinations,
on this machine: its time says how much work a load is, not how long the service takes. Bytes over the network
are those of the loopback interface, which is to be this program's alone:
`unshare --net sh -c 'ip link set lo up && python -m tests.bench.destinations'`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ingest.settings import Settings
from tests.bench.consume import fill
from tests.bench.figures import Figures, add_write_option, describe_machine
from tests.bench.simulated import PUBLIC_URL, account_settings
from tests.consumers.harness import open_consumer
from tests.consumers.postgres import running_postgres
from tests.destinations.bigquery import running_bigquery
from tests.destinations.black_box import open_black_box
from tests.destinations.databases import duckdb_file, postgres_server
from tests.destinations.databricks import running_databricks
from tests.destinations.destination import Destination
from tests.destinations.iceberg import running_iceberg
from tests.destinations.lakes import local_lake, running_azure, running_gcs, running_s3
from tests.destinations.mariadb import running_mariadb
from tests.destinations.redshift import redshift_types
from tests.destinations.snowflake import running_snowflake
from tests.destinations.two_consumers import check_two_consumers
from tests.support.generated import replace_block
from tests.support.settings import settings_tree

_PAGE = Path(__file__).parents[2] / "docs" / "destinations.md"
_FIRST_EVENTS, _EVENTS = 100, 1000
_KIB = 1024

# The columns of the matrix, and the steps of the black box that they stand for.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "consume": ("load", "events", "bookings", "dead_letter"),
    "query": ("query",),
    "status": ("status",),
    "reconcile": ("reconcile",),
    "sync": ("sync",),
    "replay": ("replay",),
    "dead letters": ("dead_letters_list",),
    "check": ("check",),
}

Opener = Callable[[Path, ExitStack], Destination]


def _alone(open_destination: Callable[[Path], AbstractContextManager[Destination]]) -> Opener:
    return lambda folder, stack: stack.enter_context(open_destination(folder))


DESTINATIONS: Mapping[str, tuple[str, Opener]] = {
    "duckdb": ("DuckDB", _alone(lambda folder: nullcontext(duckdb_file(folder)))),
    "postgres": ("PostgreSQL", lambda _, stack: postgres_server(stack.enter_context(running_postgres()))),
    "delta": ("Delta lake, a folder", _alone(lambda folder: nullcontext(local_lake(folder)))),
    "s3": ("Delta lake, S3 by moto", _alone(running_s3)),
    "azure": ("Delta lake, Azure by azurite", _alone(running_azure)),
    "gcs": ("Delta lake, GCS by fake-gcs-server", _alone(running_gcs)),
    "iceberg": ("Iceberg lake, S3 and REST catalog by SeaweedFS", _alone(running_iceberg)),
    "bigquery": ("BigQuery by bqemulator", _alone(running_bigquery)),
    "snowflake": ("Snowflake by fakesnow", _alone(running_snowflake)),
    "redshift": (
        "Redshift by PostgreSQL",
        lambda _, stack: redshift_types(stack.enter_context(running_postgres())),
    ),
    "databricks": ("Databricks by Sail", _alone(running_databricks)),
    "mariadb": ("MariaDB", _alone(running_mariadb)),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load took: seconds, and bytes that went over loopback and that the consumer wrote to files."""

    seconds: float
    network_bytes: int
    file_bytes: int


def load(tree: dict[str, Any]) -> Cost:
    """Load with these settings, and return what the second load took."""
    if credentials := os.environ.get("INGEST_WAREHOUSE__CREDENTIALS"):
        tree["warehouse"]["credentials"] = credentials
    settings = Settings.model_validate({**tree, "public_url": PUBLIC_URL, "accounts": account_settings()})
    with open_consumer(tree) as harness:
        for events in (_FIRST_EVENTS, _EVENTS):
            fill(settings, events)
            started, network, files = time.monotonic(), _network_bytes(), _file_bytes()
            while harness.lag():
                harness.loader.step()
            cost = Cost(time.monotonic() - started, _network_bytes() - network, _file_bytes() - files)
    return cost


def _network_bytes() -> int:
    [line] = [line for line in Path("/proc/self/net/dev").read_text().splitlines() if " lo:" in f" {line}"]
    return int(line.split()[1])


def _file_bytes() -> int:
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])


def measure(name: str) -> Cost:
    """Open a destination, and load into it in a process of its own."""
    _, open_destination = DESTINATIONS[name]
    with TemporaryDirectory(prefix="ingest-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        destination = open_destination(folder, stack)
        tree = settings_tree(folder) | {
            "warehouse": {**destination.warehouse, "work_dir": f"{folder}/dlt", "untested": True}
        }
        process = subprocess.run(
            [sys.executable, "-m", "tests.bench.destinations", "--load", json.dumps(tree)],
            env={**os.environ, **destination.environ},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return Cost(**json.loads(process.stdout.splitlines()[-1]))


def try_all(name: str) -> list[str]:
    """Run the black box at a destination, and then two consumers; return a row of the matrix."""
    title, open_destination = DESTINATIONS[name]
    with TemporaryDirectory(prefix="ingest-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        destination = open_destination(folder, stack)
        with open_black_box(folder, destination) as box:
            problems = box.problems()
        for step, problem in problems.items():
            print(f"{name}: {step}: {problem}", file=sys.stderr)
        is_loaded = "load" not in problems
        results = [
            "yes" if is_loaded and not problems.keys() & steps else "no"
            for steps in map(set, _COLUMNS.values())
        ]
        try:
            check_two_consumers(folder, destination)
        except AssertionError as error:
            print(f"{name}: two consumers: {error}", file=sys.stderr)
            results.append("no")
        else:
            results.append("yes")
    body = "whole" if destination.longest_json is None else "its place in the log"
    row = [title, *results, body if is_loaded and "events" not in problems else "no"]
    print(" | ".join(row), file=sys.stderr, flush=True)  # it may take long until all rows are there
    return row


def figures(costs: Mapping[str, Cost]) -> Figures:
    """Return the table of what was measured."""
    rows = [
        [
            DESTINATIONS[name][0],
            f"{cost.seconds:.1f} s",
            f"{cost.network_bytes / _KIB:,.0f} KiB",
            f"{cost.file_bytes / _KIB:,.0f} KiB",
        ]
        for name, cost in costs.items()
    ]
    columns = ("destination", "time", "over the network, both ways", "written to files by the consumer")
    return Figures(f"A load of {_EVENTS:,} events", columns, rows)


def main() -> None:
    """Measure, print, and write into docs/destinations.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=DESTINATIONS, default=list(DESTINATIONS))
    parser.add_argument("--load", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument(
        "--matrix", action="store_true", help="run the black box instead, and print what works"
    )
    add_write_option(parser)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(asdict(load(arguments.load))))
        return
    if arguments.matrix:
        rows = [try_all(name) for name in arguments.only]
        table = Figures("What works", ("destination", *_COLUMNS, "two consumers", "a body of 1 MiB"), rows)
    else:
        table = figures({name: measure(name) for name in arguments.only})
    table.print()
    if arguments.write:
        block = "matrix" if arguments.matrix else "loads"
        _PAGE.write_text(
            replace_block(_PAGE.read_text(), block, [*table.markdown(), f"{describe_machine()}."])
        )


if __name__ == "__main__":
    main()
