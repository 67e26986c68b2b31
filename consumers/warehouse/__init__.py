"""The warehouse by dlt: the only place that knows pipelines, load packages and merge strategies.

The log is the truth, and dlt's working folder is scratch. A package that was left pending is dropped, never
finished: its records were not committed, so whoever owns them now reads and loads them again.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import structlog

from consumers.booking_rows import UNREADABLE_VERSION, Row, stored_booking_row
from consumers.fitting import fit_rows
from consumers.message import Key
from consumers.rows import SCHEMAS, TABLES, arrow_table, how_to_fill
from consumers.warehouse.direct import PostgresTables
from consumers.warehouse.duckdb_tables import DuckDBTables
from consumers.warehouse.lease import Lease
from consumers.warehouse.locks import Fence, LoadingTurns, lock_folder
from consumers.warehouse.tables import Tables
from ingest.destinations import FILESYSTEM, POSTGRES
from ingest.destinations import Fence as FenceKind
from ingest.errors import (
    IngestError,
    LoadRefused,
    OutOfMemory,
    UnreadableValue,
    WarehouseUnavailable,
)
from ingest.log import Partition
from ingest.settings import Settings
from ingest.times import parse_stored_instant
from ingest.warehouse import readable_values
from ingest.warehouse.destination import destination, staging_bucket
from ingest.warehouse.errors import translated

log = structlog.get_logger()

_TURN_SECONDS = 10.0
_LOOK_SECONDS = 60.0
_MAINTENANCE_SECONDS = 3600.0  # between two looks whether it is time
_TABLE_NAMES = [table.name for table in TABLES]
# The columns that decide whether most messages change a row.
_VERSION_COLUMNS = (
    "vendor",
    "account",
    "booking_id",
    "version",
    "first_seen_at",
    "column_versions",
)


class Warehouse:
    """The destination of a consumer, by one pipeline, which one process uses at a time.

    `is_new` says that it had none of the tables when this process first looked at it, or looked again.
    """

    def __init__(self, settings: Settings) -> None:
        """Lock the pipeline.

        Raises WarehouseUnavailable when another consumer has locked it, ConfigurationError when dlt cannot
        use the destination as it is set, or this consumer could not be kept apart from others there.
        """
        self._all_settings, self._settings = settings, settings.warehouse
        self._turns = LoadingTurns(settings)
        self._most_bytes = settings.consumer.batch_bytes
        self._name = "_".join(filter(None, ["ingest", settings.consumer.instance]))
        self._folder = Path(settings.warehouse.work_dir) / self._name
        self._folder_lock = lock_folder(
            self._folder,
            f"another consumer works in {self._folder}: stop it, or give this one its own consumer.instance",
        )
        self._lease: Lease | None = None
        self._staging_lock = f"staging/{settings.consumer.instance}"
        self._failed = (
            True  # whether the last turn failed, or there was none: then the destination's state is not known
        )
        self._has_all_columns = False
        self._loads_were_asked = False
        self._stamp_after_turn: tuple[int, ...] = ()
        self._maintenance_due = 0.0
        self.is_new = False
        try:
            self._destination = destination(settings, settings.consumer.instance)
            if self._settings.kind.fence in {FenceKind.LEASE, FenceKind.NONE}:
                is_kept = self._settings.kind.fence is FenceKind.NONE
                note = self._folder.with_name(f"{self._name}.lease")
                self._lease = Lease(self._name, note, is_kept=is_kept)
                if not is_kept:
                    self._lease.guard(self._destination, self._settings.kind.transactions)
            with translated():
                self._pipeline = self._fresh_pipeline()
                self._tables = self._choose_tables()
        except BaseException:
            self._folder_lock.release()
            raise

    @contextmanager
    def turn(self, partitions: Iterable[Partition] = ()) -> Iterator[None]:
        """Hold the destination for one load of records of these partitions, and all that belongs to it.

        The tables are made where they are missing, and the pipeline is made anew after a turn that failed.
        Raises WarehouseUnavailable when the destination is out of reach.
        """
        partition_locks = sorted({f"{partition.topic}/{partition.number}" for partition in partitions})
        with self._turns.turn(_TURN_SECONDS), self._tables.turn(_TURN_SECONDS) as fence:
            fence.acquire(self._staging_lock, *partition_locks)
            self._make_tables(fence)
            self._failed = True
            yield
            self._failed = False
        if self._loads_were_asked:
            self._stamp_after_turn, self._loads_were_asked = self._stamp(), False

    def keep_open(self, stays_open: bool) -> None:
        """Say whether loads follow each other without a pause: then DuckDB's file stays open for a while.

        Nobody else can read what they loaded before it is closed. Without a pause to come it is closed now.
        """
        self._turns.keep_open(stays_open)

    def may_differ(self) -> bool:
        """Return whether somebody may have replaced it since the last turn in which `loaded` was called.

        Always False at destinations where asking costs money: there only a turn can tell.
        """
        return self._stamp_after_turn != self._stamp()

    def _stamp(self) -> tuple[int, ...]:
        """Return what changes with DuckDB's file, and at PostgreSQL with time."""
        if self._settings.duckdb_file:
            try:
                status = self._settings.duckdb_file.stat()
            except OSError:
                return ()
            return status.st_ino, status.st_size, status.st_mtime_ns
        return (int(time.monotonic() // _LOOK_SECONDS),) if self._settings.kind is POSTGRES else ()

    def prepare(self) -> None:
        """Make the tables, so that they can be read before the first event. Raises as `load` does."""
        with self.turn():
            pass

    def versions(self, keys: Iterable[Key], more_columns: Iterable[str] = ()) -> Mapping[Key, Row]:
        """Return the columns of bookings' rows that mostly suffice to decide, and more; within a turn.

        Raises as `bookings` does.
        """
        return self._booking_rows([*_VERSION_COLUMNS, *sorted(more_columns)], keys)

    def bookings(self, keys: Iterable[Key]) -> Mapping[Key, Row]:
        """Return bookings' whole rows; within a turn.

        Raises WarehouseUnavailable, and OutOfMemory where several rows are larger together than a batch may
        be.
        """
        return self._booking_rows(SCHEMAS["bookings"].names, keys)

    def _booking_rows(self, columns: Sequence[str], keys: Iterable[Key]) -> Mapping[Key, Row]:
        booking_ids = [booking_id for _, _, booking_id in keys]
        rows: dict[Key, Row] = {}
        size = 0
        for values in self._booking_values(columns, booking_ids):
            row = stored_booking_row(columns, values)
            vendor, account, booking_id = row["vendor"], row["account"], row["booking_id"]
            rows[vendor, account, booking_id] = row
            if row["version"] == UNREADABLE_VERSION:
                log.warning(
                    "booking.version_unreadable",
                    vendor=vendor,
                    account=account,
                    booking_id=booking_id,
                    why="somebody changed it in the table bookings: the next message about the booking"
                    " replaces it",
                )
            size += sum(len(value) for value in values if isinstance(value, str))
            if size > self._most_bytes and len(booking_ids) > 1:
                raise OutOfMemory(
                    f"the stored rows of {len(booking_ids)} bookings are larger than {self._most_bytes}"
                    " bytes together"
                )
        return rows

    def _booking_values(self, columns: Sequence[str], booking_ids: Iterable[str]) -> Iterator[Sequence[Any]]:
        """Yield rows of `bookings` with these ids, a few at a time where the driver can."""
        try:
            with translated(), readable_values():
                yield from self._tables.select(columns, "bookings", "booking_id", booking_ids)
        except UnreadableValue as error:
            raise LoadRefused(f"what bookings has already: {error}") from error

    def letters(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the headers of dead letters that the destination has, by their ids; within a turn.

        Raises WarehouseUnavailable.
        """
        with translated():
            rows = list(self._tables.select(("id", "headers"), "dead_letters", "id", ids))
        return {str(letter_id): headers or "" for letter_id, headers in rows}

    def statements(self, table: str, ids: Iterable[str]) -> Mapping[str, datetime]:
        """Return when the rows with these ids of a table of statements were stated; within a turn.

        Raises WarehouseUnavailable.
        """
        with translated():
            rows = list(self._tables.select(("id", "stated_at"), table, "id", ids))
        return {str(row_id): parse_stored_instant(stated_at) for row_id, stated_at in rows if stated_at}

    def loaded(self, loads: Iterable[str]) -> set[str]:
        """Return those of these loads that the destination has; within a turn.

        Raises WarehouseUnavailable.
        """
        self._loads_were_asked = True
        with translated():
            rows = list(
                self._tables.select(("load_id", "status"), self._tables.loads_table, "load_id", loads)
            )
        return {str(load_id) for load_id, status in rows if status == 0}

    def has(self, loads: frozenset[str]) -> bool:
        """Return whether it has all of these loads; within a turn. Raises WarehouseUnavailable."""
        return self.loaded(loads) == loads

    def load(self, rows: Mapping[str, Sequence[Row]]) -> str:
        """Load rows, by table, within a turn at whose end they are visible, and return the load's id.

        Raises WarehouseUnavailable; OutOfMemory when fewer rows may fit; LoadRefused or RowsTooLarge when
        these rows are the reason.
        """
        fitting = fit_rows(rows, self._settings.kind, is_staged=self._settings.staging is not None)
        tables = {name: arrow_table(name, fitting[name]) for name in _TABLE_NAMES if name in fitting}
        with translated():
            return self._tables.write(tables)

    def load_nothing(self) -> None:
        """Load no rows into each table, in a turn of its own, to see whether loads work.

        Raises as `load` does.
        """
        with self.turn():
            self.load({name: [] for name in _TABLE_NAMES})

    def drop(self) -> None:
        """Drop the dataset, and the staging dataset of this pipeline. Raises WarehouseUnavailable."""
        with translated():
            self._tables.drop()

    def maintain(self) -> None:
        """Do what the destination leaves to us, as compacting small files; outside of a turn.

        Nothing is lost where it fails: the log says why, and it is tried again later.
        """
        if self._lease and self._lease.is_due():
            with self._tables.turn(_TURN_SECONDS):
                pass  # it is renewed by that
        if time.monotonic() < self._maintenance_due:
            return
        self._maintenance_due = time.monotonic() + _MAINTENANCE_SECONDS
        try:
            with translated():
                self._tables.maintain(self._settings.compact_every)
        except IngestError as error:
            log.warning("warehouse.maintenance_failed", why=str(error))

    def close(self) -> None:
        """Close what is open, give back the lease, and release the pipeline."""
        with suppress(WarehouseUnavailable):  # another file took its place, which the next consumer finds out
            self.keep_open(False)
        if self._lease:
            self._lease.release(self._pipeline.sql_client)
        if self._pipeline.is_active:  # a reader in this process makes its own the active one
            self._pipeline.deactivate()
        self._folder_lock.release()

    def _make_tables(self, fence: Fence) -> None:
        """Make missing tables.

        Raises WarehouseUnavailable also for what is refused: no record is to blame for it.
        """
        try:
            with translated():
                if self._failed or not self._tables.has(self._tables.notes_table):
                    fence.acquire("tables")
                    self._restart()
        except LoadRefused as error:
            raise WarehouseUnavailable(f"the tables cannot be made: {error}") from error

    def _restart(self) -> None:
        """Make the pipeline anew, and tables and columns that somebody took away.

        dlt makes the tables of a load, and then notes that all of them exist; so its note is deleted where
        one does not.
        """
        self._pipeline = self._tables.pipeline = self._fresh_pipeline()
        if self._pipeline.has_pending_data:
            raise WarehouseUnavailable(
                f"{self._folder} cannot be emptied, and what a load left there would be loaded again"
            )
        existing = self._tables.columns([*_TABLE_NAMES, self._tables.notes_table])
        missing = [name for name in _TABLE_NAMES if name not in existing]
        self.is_new = missing == _TABLE_NAMES
        missing_columns = _missing_columns(existing)
        for table, columns in missing_columns.items():
            why = f"they are made anew, empty in the rows that are there: {how_to_fill(table)}"
            log.warning("warehouse.columns_missing", table=table, columns=columns, why=why)
        has_notes = self._tables.notes_table in existing
        if (missing or missing_columns) and has_notes:
            self._tables.forget_made()
        if missing or missing_columns or not has_notes or not self._has_all_columns:
            self._tables.make({name: arrow_table(name, []) for name in _TABLE_NAMES})
        self._has_all_columns = True
        if self._settings.views:
            self._tables.make_views()

    def _fresh_pipeline(self) -> dlt.Pipeline:
        shutil.rmtree(self._folder, ignore_errors=True)
        return dlt.pipeline(
            self._name,
            pipelines_dir=self._settings.work_dir,
            destination=self._destination,
            staging=staging_bucket(self._all_settings, self._all_settings.consumer.instance),
            dataset_name=self._settings.dataset,
        )

    def _choose_tables(self) -> Tables:
        """Return the tables as this destination is best read and written."""
        if database := self._settings.duckdb_file:
            return DuckDBTables(self._pipeline, self._folder, self._settings.kind, database)
        if self._settings.kind is POSTGRES:
            return PostgresTables(self._pipeline, self._folder, self._settings.kind)
        if self._settings.kind is FILESYSTEM:
            from consumers.warehouse.lake import LakeTables

            return LakeTables(self._pipeline, self._folder, self._all_settings)
        return Tables(self._pipeline, self._folder, self._settings.kind, self._lease)


def _missing_columns(existing: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Return our columns that tables lack, by table: they are older, or somebody has dropped columns."""
    missing = {
        name: [column for column in SCHEMAS[name].names if column not in existing[name]]
        for name in _TABLE_NAMES
        if name in existing
    }
    return {name: columns for name, columns in missing.items() if columns}
