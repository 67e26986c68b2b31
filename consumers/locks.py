"""Turns at a DuckDB file: one process may have it open at a time, so loader and readers take turns instead of failing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ingest.errors import WarehouseUnavailable
from ingest.lock_file import acquire, holder
from ingest.settings import WarehouseSettings

_POLL_SECONDS = 0.005
READER_SECONDS = 60.0


@contextmanager
def warehouse_lock(settings: WarehouseSettings, patience: float) -> Iterator[None]:
    """Held while the file is open. Nothing to take turns at for other destinations. Raises WarehouseUnavailable after `patience` seconds."""
    if settings.duckdb_file is None:
        yield
        return
    lock = FileLock(f"{settings.duckdb_file}.lock", poll_interval=_POLL_SECONDS)
    try:
        acquire(lock, patience, f"another process has {settings.duckdb_file} open")
    except Timeout:
        who = holder(Path(lock.lock_file))
        raise WarehouseUnavailable(f"another process has {settings.duckdb_file} open, for longer than {patience:.0f} s now{who}") from None
    except OSError as error:
        raise WarehouseUnavailable(f"{lock.lock_file} cannot be made: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
