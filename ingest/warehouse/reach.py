"""Whether a running consumer's warehouse can be reached now, without dlt, whose pipelines are the loader's thread's affair."""

from ingest.disk import explain_unwritable, is_usable
from ingest.errors import WarehouseUnavailable
from ingest.settings import WarehouseSettings
from ingest.warehouse.destination import POSTGRES, credentials
from ingest.warehouse.errors import translated

_CONNECT_SECONDS = 2


def reach(settings: WarehouseSettings) -> None:
    """Raises WarehouseUnavailable. Of a destination other than DuckDB and PostgreSQL only a load can tell."""
    if file := settings.duckdb_file:
        if trouble := explain_unwritable(file.parent):
            raise WarehouseUnavailable(f"warehouse.credentials {file}: {trouble}")
        if file.exists() and not is_usable(file):
            raise WarehouseUnavailable(
                f"warehouse.credentials {file} cannot be read and written by this user: change its owner or mode"
            )
    elif settings.destination == POSTGRES and (url := credentials(settings)).startswith("postgres"):
        _select(url)


def _select(url: str) -> None:
    import psycopg2

    with translated():
        connection = psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        finally:
            connection.close()
