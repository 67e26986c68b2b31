"""Destinations that are here as they are: DuckDB and PostgreSQL."""

from pathlib import Path
from uuid import uuid4

import duckdb
import psycopg2

from ingest.simulator.account import Row
from tests.consumers.postgres import PostgresServer
from tests.destinations.destination import Destination
from tests.support.polling import wait_for


def duckdb_file(folder: Path) -> Destination:
    """Return a DuckDB file, read between two loads as another program would."""
    file = folder / "warehouse.duckdb"

    def read(table: str) -> list[Row]:
        with _opened(file) as connection:
            cursor = connection.execute(f"select * from ingest.{table}")
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return Destination({"destination": "duckdb", "credentials": str(file)}, read)


def _opened(file: Path) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file, once no load holds its lock."""

    def opened() -> duckdb.DuckDBPyConnection | None:
        try:
            return duckdb.connect(str(file), read_only=True)
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise
            return None

    return wait_for(opened, "no load holds the DuckDB file")


def postgres_server(server: PostgresServer) -> Destination:
    """Return a dataset of its own at a PostgreSQL."""
    dataset = f"t{uuid4().hex[:12]}"
    return Destination(
        {"destination": "postgres", "dataset": dataset},
        lambda table: read_postgres(server, f"{dataset}.{table}"),
        {"INGEST_WAREHOUSE__CREDENTIALS": server.url},
    )


def read_postgres(server: PostgresServer, table: str) -> list[Row]:
    """Return the rows of a table of any dataset."""
    with psycopg2.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"select * from {table}")
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
