"""Turns at a DuckDB file: one process may have it open at a time, so loader and readers take turns instead of failing."""

from contextlib import AbstractContextManager, nullcontext

from filelock import FileLock

from ingest.settings import WarehouseSettings

_POLL_SECONDS = 0.005


def warehouse_lock(settings: WarehouseSettings) -> AbstractContextManager[object]:
    """Held while the file is open. Nothing to take turns at for other destinations."""
    if settings.duckdb_file is None:
        return nullcontext()
    return FileLock(f"{settings.duckdb_file}.lock", poll_interval=_POLL_SECONDS)
