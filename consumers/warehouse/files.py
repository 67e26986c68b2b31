"""What pipelines have on this machine: a working folder each, held by one process, and for DuckDB the file they take turns at."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ingest.errors import WarehouseUnavailable
from ingest.locks import HeldLock, exclusive
from ingest.settings import Settings
from ingest.warehouse.destination import make_folder
from ingest.warehouse.errors import translated
from ingest.warehouse.lock import warehouse_lock

_HELD_SECONDS = 10.0
_DUCKDB_THREADS = 2  # each takes buffers of its own


def hold(folder: Path, otherwise: str) -> HeldLock:
    """A pipeline's folder for this process alone. Raises WarehouseUnavailable; with `otherwise` when another one has it, which may be on its way out."""
    make_folder(folder)
    file = folder.with_name(f"{folder.name}.lock")
    try:
        return exclusive(
            file,
            _HELD_SECONDS,
            lambda holder: WarehouseUnavailable(f"{otherwise}{holder}"),
            purpose=otherwise,
        )
    except OSError as error:
        raise WarehouseUnavailable(f"{file} cannot be made: {error.strerror}") from None


@contextmanager
def turn_at(settings: Settings, patience: float) -> Iterator[None]:
    """DuckDB's file stays open as long: dlt opens and closes it for every job, which costs more than a small load itself.

    Nothing to wait for at other destinations. Raises WarehouseUnavailable, also when another file was put there meanwhile: what was
    written is in the one that is gone.
    """
    file = settings.warehouse.duckdb_file
    with warehouse_lock(settings.warehouse, patience):
        with translated():
            kept = _keep_open(file, settings.consumer.duckdb_bytes) if file else None
        opened = _inode(file) if file else None
        try:
            yield
            if file and _inode(file) != opened:
                raise WarehouseUnavailable(f"{file} was moved, deleted or replaced while it was written to")
        finally:
            if kept:
                kept.close()


def _keep_open(file: Path, most_bytes: int) -> duckdb.DuckDBPyConnection:
    """Bounded, for the whole process: DuckDB would take most of the machine's memory, and we load a few megabytes at a time."""
    connection = duckdb.connect(str(file))
    connection.execute(f"SET memory_limit = '{most_bytes} B'")
    connection.execute(f"SET threads = {_DUCKDB_THREADS}")
    connection.execute("SET preserve_insertion_order = false")  # to keep it, results are held in memory
    return connection


def _inode(file: Path) -> int | None:
    """Return what tells a file from another one of its name; None where there is none."""
    try:
        return file.stat().st_ino
    except OSError:
        return None


def file_stamp(file: Path) -> tuple[int, ...]:
    """Changes whenever the file is written to or replaced; empty where there is none."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def prune(folder: Path) -> None:
    """Dlt keeps some eight files of every load."""
    for done in (folder / "load" / "loaded", folder / "normalize" / "loaded"):
        for package in done.glob("*"):
            shutil.rmtree(package, ignore_errors=True)
