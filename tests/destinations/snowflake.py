"""Snowflake by `fakesnow`, which keeps the tables in DuckDB.

It cannot show: prices and what a warehouse that is resumed bills, permissions, how COPY treats JSON's null
(here it is null), VARIANT's limit of 16 MiB, and locks of two transactions.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import python_packages, running_server
from tests.support.ports import free_port
from tests.support.processes import ROOT

_DATABASE = "emulated"


@contextmanager
def running_snowflake(folder: Path) -> Iterator[Destination]:
    """Run the emulator."""
    packages = python_packages("fakesnow", "fakesnow[server]==0.12.1", "snowflake-connector-python<5")
    port = free_port()
    command = [sys.executable, "-m", "tests.destinations.programs.fakesnow", str(port)]
    url = f"http://127.0.0.1:{port}/session"
    with running_server(folder, "fakesnow", command, url, PYTHONPATH=f"{packages}:{ROOT}"):
        connection = f"snowflake://any:any@fakesnow/{_DATABASE}?host=127.0.0.1&port={port}&protocol=http"
        yield Destination(
            {"destination": "snowflake"},
            lambda table: _read(port, table),
            {"INGEST_WAREHOUSE__CREDENTIALS": connection},
            client_modules=("pandas",),
        )


def _read(port: int, table: str) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own affair
        from snowflake import connector

        options = {"user": "any", "password": "any", "account": "fakesnow", "database": _DATABASE}
        with (
            connector.connect(**options, host="127.0.0.1", port=port, protocol="http") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"select * from ingest.{table}")
            names = [column[0].lower() for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
