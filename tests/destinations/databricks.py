"""Databricks by Sail with Delta tables, behind a stand-in for the Thrift interface of a SQL warehouse.

It cannot show: prices and when a warehouse stops, permissions, Unity Catalog, `COPY INTO` itself (files of a
volume are inserted by a query), what happens when two statements change one table, and the operator `:` for
JSON.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from databricks import sql

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import python_packages, running_server
from tests.support.ports import free_port
from tests.support.processes import ROOT

_CATALOG = "sail"
_PACKAGES = ("pysail==0.7.2", "pyspark-client==4.2.0", "pandas<3")


@contextmanager
def running_databricks(folder: Path) -> Iterator[Destination]:
    """Run the stand-in."""
    packages = python_packages("sail", *_PACKAGES)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    tables = folder / "databricks"
    command = [sys.executable, "-m", "tests.destinations.programs.databricks", str(port), str(tables)]
    with running_server(folder, "sail", command, url, PYTHONPATH=f"{packages}:{ROOT}"):
        login = {"server_hostname": "127.0.0.1", "http_path": "/sql", "access_token": "any"}
        elsewhere = {"_connection_uri": f"{url}/sql", "enable_telemetry": False}

        def read(table: str) -> list[Row]:
            with (
                closing(sql.connect(**login, **elsewhere, catalog=_CATALOG)) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(f"SELECT * FROM ingest.{table}")
                return [row.asDict() for row in cursor.fetchall()]

        credentials = {**login, "catalog": _CATALOG, "connection_parameters": json.dumps(elsewhere)}
        yield Destination(
            {"destination": "databricks"},
            read,
            {
                f"DESTINATION__DATABRICKS__CREDENTIALS__{name.upper()}": value
                for name, value in credentials.items()
            },
            client_modules=("databricks.sdk", "pandas"),
        )
