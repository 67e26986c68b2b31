"""The warehouse by dlt: the only place that knows pipelines, load packages and merge strategies.

The log is the truth, dlt's working folder is scratch. So a package that was left pending is dropped, never finished:
its records were not committed, and are read and loaded again, by whoever owns them now.
"""

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
import structlog
from dlt.common.configuration.utils import get_resolved_traces
from dlt.common.schema.typing import TColumnSchema
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltResource

from consumers.rows import (
    SCHEMAS,
    TABLES,
    UNREADABLE_VERSION,
    Row,
    Table,
    arrow,
    how_to_fill,
    stored_booking_row,
)
from consumers.versions import Key
from consumers.warehouse.fence import Fence, fenced
from consumers.warehouse.files import file_stamp, hold, prune, turn_at
from ingest.errors import LoadRefused, OutOfMemory, UnreadableValue, WarehouseUnavailable
from ingest.log import Partition
from ingest.settings import Settings
from ingest.warehouse.destination import (
    POSTGRES,
    destination,
    keep_values,
)
from ingest.warehouse.errors import translated
from ingest.warehouse.values import readable_values

log = structlog.get_logger()

_KEYS_PER_QUERY = 500
_ROWS_AT_ONCE = 16  # a row may be as large as a body
_TURN_SECONDS = 10.0
_LOOK_SECONDS = 60.0
_NAMES = [table.name for table in TABLES]
_OF_VERSIONS = (
    "vendor",
    "account",
    "booking_id",
    "version",
    "first_seen_at",
    "last_event_id",
    "column_versions",
)
_NOTES = "_dlt_version"  # what dlt has noted of the tables it made
_FILES = "dlt.destinations.filesystem"
_LOADS = "_dlt_loads"  # what dlt notes of each load, last of all


class Warehouse:
    """One pipeline, held by one process at a time."""

    def __init__(self, settings: Settings) -> None:
        """Raises WarehouseUnavailable when another consumer holds the pipeline, ConfigurationError when dlt cannot use the destination as it is set."""
        self._all_settings, self._settings = settings, settings.warehouse
        self._most_bytes = settings.consumer.batch_bytes
        self._name = "_".join(filter(None, ["ingest", settings.consumer.instance]))
        self._folder = Path(settings.warehouse.work_dir) / self._name
        self._held = hold(
            self._folder,
            f"another consumer works in {self._folder}: stop it, or give this one its own consumer.instance",
        )
        self._destination = destination(settings, settings.consumer.instance)
        self._fence = Fence(None, "")
        self._staging = f"staging/{settings.consumer.instance}"
        self._failed = True  # what is there is not known yet
        self._asked, self._left_as = False, tuple[int, ...]()
        self._made = False  # whether the tables are there, with all their columns
        self.is_new = (
            False  # whether it had none of the tables when this process first looked, or looked again
        )
        with translated():
            self._pipeline = self._fresh_pipeline()
            self._strategies = _merge_strategies(self._pipeline)

    @contextmanager
    def turn(self, partitions: Iterable[Partition] = ()) -> Iterator[None]:
        """Around all that belongs to one load of these. Raises WarehouseUnavailable when the destination is out of reach.

        It starts anew after a turn that failed, and where all was taken away.
        """
        with turn_at(self._all_settings, _TURN_SECONDS), fenced(self._pipeline, _TURN_SECONDS) as self._fence:
            self._fence.hold(self._staging, *sorted({f"{one.topic}/{one.number}" for one in partitions}))
            self._make_tables()
            self._failed = True
            yield
            self._failed = False
        if self._asked:
            self._left_as, self._asked = self._stamp(), False

    def may_differ(self) -> bool:
        """Whether somebody may have replaced it since the last turn in which `loaded` was asked; at destinations where asking costs money, only a turn tells."""
        return self._left_as != self._stamp()

    def _stamp(self) -> tuple[int, ...]:
        """Changes with DuckDB's file, and at a PostgreSQL with time."""
        if self._settings.duckdb_file:
            return file_stamp(self._settings.duckdb_file)
        return (int(time.monotonic() // _LOOK_SECONDS),) if self._settings.destination == POSTGRES else ()

    def prepare(self) -> None:
        """Makes the tables, as every first turn does, so that they can be read before the first event. Raises as `load` does."""
        with self.turn():
            pass

    def versions(self, keys: Iterable[Key]) -> Mapping[Key, Row]:
        """Return the columns of these bookings' rows that mostly suffice to decide; within a turn. Raises WarehouseUnavailable."""
        rows = dict(self._rows(_OF_VERSIONS, keys))
        for key, row in rows.items():
            if row["version"] == UNREADABLE_VERSION:
                why = "somebody changed it in the table bookings: the next message about the booking replaces it"
                log.warning(
                    "booking.version_unreadable", vendor=key[0], account=key[1], booking_id=key[2], why=why
                )
        return rows

    def bookings(self, keys: Iterable[Key]) -> Mapping[Key, Row]:
        """Their whole rows; within a turn. Raises WarehouseUnavailable, OutOfMemory where several are larger than a batch may be."""
        return self._rows(SCHEMAS["bookings"].names, keys)

    def _rows(self, columns: Sequence[str], keys: Iterable[Key]) -> Mapping[Key, Row]:
        wanted = list(keys)
        found: dict[Key, Row] = {}
        size = 0
        for values in self._bookings(columns, wanted):
            row = stored_booking_row(columns, values)
            found[row["vendor"], row["account"], row["booking_id"]] = row
            size += sum(len(value) for value in values if isinstance(value, str))
            if size > self._most_bytes and len(wanted) > 1:
                raise OutOfMemory(
                    f"the stored rows of {len(wanted)} bookings are larger than {self._most_bytes} bytes together"
                )
        return found

    def _bookings(self, columns: Sequence[str], wanted: Sequence[Key]) -> Iterator[Sequence[Any]]:
        """Those with these booking ids, in queries of a bounded size, and a few rows at a time where the driver can."""
        if not wanted:
            return
        with translated(), self._pipeline.sql_client() as client:
            keep_values(client)
            table = client.make_qualified_table_name("bookings")
            for some in (wanted[at : at + _KEYS_PER_QUERY] for at in range(0, len(wanted), _KEYS_PER_QUERY)):
                marks = ", ".join(["%s"] * len(some))
                sql = f"SELECT {', '.join(columns)} FROM {table} WHERE booking_id IN ({marks})"  # noqa: S608 - our own names, and marks
                try:
                    with readable_values(), client.execute_query(sql, *(key[2] for key in some)) as cursor:
                        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                            yield from rows
                except DatabaseUndefinedRelation:
                    return  # nothing was ever loaded
                except UnreadableValue as error:
                    raise LoadRefused(f"what bookings has already: {error}") from error

    def letters(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the headers of those dead letters that are there, by id; within a turn. Raises WarehouseUnavailable."""
        wanted, found = sorted(set(ids)), dict[str, str]()
        with translated(), self._pipeline.sql_client() as client:
            table = client.make_qualified_table_name("dead_letters")
            for some in (wanted[at : at + _KEYS_PER_QUERY] for at in range(0, len(wanted), _KEYS_PER_QUERY)):
                marks = ", ".join(["%s"] * len(some))
                sql = f"SELECT id, headers FROM {table} WHERE id IN ({marks})"  # noqa: S608 - our own names, and marks
                found |= {str(row[0]): row[1] or "" for row in client.execute_sql(sql, *some) or ()}
        return found

    def loaded(self, loads: Iterable[str]) -> set[str]:
        """Return those of these loads that the destination has; within a turn. Raises WarehouseUnavailable."""
        self._asked = True
        wanted, found = sorted(loads), set[str]()
        with translated(), self._pipeline.sql_client() as client:
            table = client.make_qualified_table_name(_LOADS)
            for some in (wanted[at : at + _KEYS_PER_QUERY] for at in range(0, len(wanted), _KEYS_PER_QUERY)):
                marks = ", ".join(["%s"] * len(some))
                sql = f"SELECT load_id FROM {table} WHERE status = 0 AND load_id IN ({marks})"  # noqa: S608 - our own names, and marks
                found |= {str(row[0]) for row in client.execute_sql(sql, *some) or ()}
        return found

    def has(self, loads: frozenset[str]) -> bool:
        """Whether it has all of these loads; within a turn. Raises WarehouseUnavailable.

        Files have to be read one by one, of every load there ever was: there only `loaded`, when a consumer starts, finds out.
        """
        return self._destination.destination_type == _FILES or self.loaded(loads) == loads

    def load(self, rows: Mapping[str, list[Row]]) -> str:
        """Within a turn; when that ends, every row is visible, and the load has the id that is returned.

        Raises WarehouseUnavailable; OutOfMemory when fewer rows may fit; LoadRefused or RowsTooLarge when these rows are the reason.
        """
        resources = [self._resource(table, rows[table.name]) for table in TABLES if table.name in rows]
        with translated():
            extracted = self._pipeline.extract(resources)
            self._pipeline.normalize()
            self._fence.look()
            info = self._pipeline.load()
            if set(info.loads_ids) != set(extracted.loads_ids) or any(
                p.state != "loaded" for p in info.load_packages
            ):
                raise WarehouseUnavailable("dlt did not load the package it was given; it is loaded again")
        get_resolved_traces().clear()  # dlt's note of every setting it read: a full memory, in time
        prune(self._folder)
        return max(extracted.loads_ids)

    def load_nothing(self) -> None:
        """Load no row of each table, in a turn of its own: to see whether loads work. Raises as `load` does."""
        with self.turn():
            self.load({name: [] for name in _NAMES})

    def close(self) -> None:
        """Gives the pipeline up."""
        if self._pipeline.is_active:  # a reader in this process makes its own the active one
            self._pipeline.deactivate()
        self._held.release()

    def _make_tables(self) -> None:
        """No record is to blame for what is wrong here."""
        try:
            with translated():
                if self._failed or self._missing([_NOTES]):
                    self._fence.hold("tables")
                    self._start_anew()
        except LoadRefused as error:
            raise WarehouseUnavailable(f"the tables cannot be made: {error}") from error

    def _start_anew(self) -> None:
        """With tables that somebody took away: dlt makes those of a load, and then notes that all are there."""
        self._pipeline = self._fresh_pipeline()
        if self._pipeline.has_pending_data:
            raise WarehouseUnavailable(
                f"{self._folder} cannot be emptied: what a load has left there would be loaded once more"
            )
        missing = self._missing([*_NAMES, _NOTES])
        self.is_new = set(missing) >= set(_NAMES)
        lacking = self._lacking_columns(missing)
        for table, columns in lacking.items():
            why = f"they are made anew, empty in the rows that are there: {how_to_fill(table)}"
            log.warning("warehouse.columns_missing", table=table, columns=columns, why=why)
        if (missing or lacking) and _NOTES not in missing:
            with self._pipeline.sql_client() as client:
                notes = client.make_qualified_table_name(_NOTES)
                client.execute_sql(f"DELETE FROM {notes} WHERE schema_name = %s", self._name)  # noqa: S608 - our own names
        if missing or lacking or not self._made:
            self.load({name: [] for name in _NAMES})
        self._made = True

    def _missing(self, tables: Iterable[str]) -> list[str]:
        with self._pipeline.sql_client() as client:
            return [name for name in tables if not _is_there(client, name)]

    def _lacking_columns(self, missing: Collection[str]) -> dict[str, list[str]]:
        """Return our columns that tables do not have, by table: of an older version, or because somebody dropped them."""
        with self._pipeline.sql_client() as client:
            there = {name: columns_of(client, name) for name in _NAMES if name not in missing}
        lacking = {
            name: [column for column in SCHEMAS[name].names if column not in columns]
            for name, columns in there.items()
        }
        return {name: columns for name, columns in lacking.items() if columns}

    def _fresh_pipeline(self) -> dlt.Pipeline:
        shutil.rmtree(self._folder, ignore_errors=True)
        return dlt.pipeline(
            self._name,
            pipelines_dir=self._settings.work_dir,
            destination=self._destination,
            dataset_name=self._settings.dataset,
        )

    def _resource(self, table: Table, rows: list[Row]) -> DltResource:
        columns: dict[str, TColumnSchema] = {column: {"data_type": "json"} for column in table.json}
        resource: DltResource = dlt.resource(
            [arrow(table.name, rows)], name=table.name, primary_key=table.key, columns=columns
        )
        return resource.apply_hints(write_disposition=self._strategies[table.replaces])


def columns_of(client: SqlClientBase[Any], table: str) -> set[str]:
    """Return the names of a table's columns, in lower case."""
    no_rows = f"SELECT * FROM {client.make_qualified_table_name(table)} WHERE 1 = 0"  # noqa: S608 - our own names
    with client.execute_query(no_rows) as cursor:
        return {column[0].lower() for column in cursor.description or ()}


def _is_there(client: SqlClientBase[Any], table: str) -> bool:
    try:
        client.execute_sql(f"SELECT 1 FROM {client.make_qualified_table_name(table)} WHERE 1 = 0")  # noqa: S608 - our own names
    except DatabaseUndefinedRelation:
        return False
    return True


def _merge_strategies(pipeline: dlt.Pipeline) -> dict[bool, Any]:
    """By whether later rows replace: the exact strategy where the destination has it, the universal one elsewhere."""
    can = pipeline.destination_client().capabilities.supported_merge_strategies or []
    return {
        True: {"disposition": "merge", "strategy": "upsert" if "upsert" in can else "delete-insert"},
        False: {
            "disposition": "merge",
            "strategy": "insert-only" if "insert-only" in can else "delete-insert",
        },
    }
