"""Turns at a DuckDB file: only one process may have it open, so consumer and readers wait for each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import WarehouseUnavailable
from ingest.locks import exclusive
from ingest.settings import WarehouseSettings

READER_SECONDS = 60.0


@contextmanager
def reading_turn(settings: WarehouseSettings, patience: float = READER_SECONDS) -> Iterator[None]:
    """Take a reader's turn at the file. Raises WarehouseUnavailable after `patience` seconds.

    A reader leaves no files behind: where no consumer has made the lock file, it takes no lock.
    """
    if settings.duckdb_file is None or not _lock_file(settings.duckdb_file).exists():
        yield
        return
    with warehouse_lock(settings, patience):
        yield


def _lock_file(database: Path) -> Path:
    return database.with_name(f"{database.name}.lock")


@contextmanager
def warehouse_lock(settings: WarehouseSettings, patience: float) -> Iterator[None]:
    """Lock DuckDB's file while it is open; do nothing at other destinations.

    Raises WarehouseUnavailable after `patience` seconds.
    """
    if settings.duckdb_file is None:
        yield
        return
    file = _lock_file(settings.duckdb_file)

    def busy(holder: str) -> WarehouseUnavailable:
        return WarehouseUnavailable(
            f"another process has {settings.duckdb_file} open, for longer than {patience:.0f} s now{holder}"
        )

    purpose = f"the warehouse file {settings.duckdb_file} is in use"
    try:
        lock = exclusive(file, patience, busy, purpose=purpose)
    except OSError as error:
        raise WarehouseUnavailable(f"{file} cannot be made: {error.strerror}") from None
    with lock:
        yield
