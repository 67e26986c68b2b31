"""A check whether the warehouse can be reached, beside a running consumer and without dlt."""

from contextlib import closing

from ingest.disk import explain_unwritable, is_usable
from ingest.errors import WarehouseUnavailable
from ingest.settings import WarehouseSettings
from ingest.warehouse.destination import POSTGRES, credentials
from ingest.warehouse.errors import translated

_CONNECT_SECONDS = 2


def check_reachable(settings: WarehouseSettings) -> None:
    """Raise WarehouseUnavailable when DuckDB's file or PostgreSQL is out of reach. Others are not tried."""
    if file := settings.duckdb_file:
        if trouble := explain_unwritable(file.parent):
            raise WarehouseUnavailable(f"warehouse.credentials {file}: {trouble}")
        if file.exists() and not is_usable(file):
            raise WarehouseUnavailable(
                f"warehouse.credentials {file} cannot be read and written by this user: change its owner or"
                " mode"
            )
    elif settings.destination == POSTGRES and (url := credentials(settings)).startswith("postgres"):
        import psycopg2

        with (
            translated(),
            closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT 1")
