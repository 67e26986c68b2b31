"""The warehouse by dlt: the only place that knows pipelines, load packages and merge strategies.

The log is the truth, dlt's working folder is scratch. So a package that was left pending is dropped, never finished:
its records were not committed, and are read and loaded again, by whoever owns them now.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from consumers.locks import READER_SECONDS, warehouse_lock
from consumers.rows import TABLES, Row, Table, arrow
from consumers.versions import Key, Stored
from ingest.errors import ConfigurationError, LoadRefused, WarehouseUnavailable
from ingest.settings import Settings

# Read by dlt when it is imported: no telemetry, no parallelism we do not need, no trying again (the loader does), nothing left behind.
for _name, _value in {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    "NORMALIZE__WORKERS": "1",
    "LOAD__WORKERS": "2",
    "LOAD__RAISE_ON_MAX_RETRIES": "1",
    "LOAD__DELETE_COMPLETED_JOBS": "true",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "ENABLE_RUNTIME_TRACE": "false",
}.items():
    os.environ.setdefault(_name, _value)

import dlt  # noqa: E402 - after its settings
import duckdb  # noqa: E402
from dlt.common.configuration.exceptions import ConfigFieldMissingException, ConfigurationException  # noqa: E402
from dlt.common.configuration.utils import get_resolved_traces  # noqa: E402
from dlt.common.schema.typing import TColumnSchema  # noqa: E402
from dlt.destinations.exceptions import DatabaseException, DatabaseUndefinedRelation  # noqa: E402
from dlt.destinations.sql_client import SqlClientBase  # noqa: E402
from dlt.extract import DltResource  # noqa: E402

_KEYS_PER_QUERY = 500
_TURN_SECONDS = 10.0
_DUCKDB_MEMORY = "200MB"

# Names that PEP 249 gives to every driver's errors.
_THE_ROWS = {"DataError", "IntegrityError"}
_NOT_THE_QUERY = {"OperationalError", "InterfaceError"}

_USER_AND_PASSWORD = re.compile(r"(?<=://)\S*@")  # in the addresses that some drivers quote


class Warehouse:
    """One pipeline, held by one process at a time."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError when another consumer holds the pipeline, or dlt cannot use the destination as it is set."""
        self._settings = settings.warehouse
        self._name = "_".join(filter(None, ["ingest", settings.consumer.instance]))
        self._folder = Path(settings.warehouse.work_dir) / self._name
        self._held = _hold(self._folder)
        self._destination = destination(settings)
        self._failed = False
        with _translated():
            self._pipeline = self._fresh_pipeline()
            self._strategies = _merge_strategies(self._pipeline)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around all that belongs to one load. Raises WarehouseUnavailable when the destination is out of reach.

        DuckDB's file stays open for as long: dlt opens and closes it for every job, which costs more than a small load itself.
        After a turn that failed, and where somebody else's was left pending, dlt's folder is made anew.
        """
        file = self._settings.duckdb_file
        with warehouse_lock(self._settings, _TURN_SECONDS):
            with _translated():
                if self._failed or self._pipeline.has_pending_data:
                    self._pipeline = self._fresh_pipeline()
                kept = _keep_open(file) if file else None
            self._failed = True
            try:
                yield
                self._failed = False
            finally:
                if kept:
                    kept.close()

    def prepare(self) -> None:
        """Makes the tables, so that they can be read before the first event. Raises as `load` does."""
        with self.turn():
            self.load({table.name: [] for table in TABLES})

    def versions(self, keys: Iterable[Key]) -> Mapping[Key, Stored]:
        """What `bookings` has of these, in queries of a bounded size; within a turn. Raises WarehouseUnavailable."""
        found: dict[Key, Stored] = {}
        with _translated(), self._pipeline.sql_client() as client:
            table = client.make_qualified_table_name("bookings")
            wanted = list(keys)
            for some in (wanted[at : at + _KEYS_PER_QUERY] for at in range(0, len(wanted), _KEYS_PER_QUERY)):
                marks = ", ".join(["%s"] * len(some))
                sql = f"SELECT vendor, account, booking_id, version, first_seen_at FROM {table} WHERE booking_id IN ({marks})"  # noqa: S608 - marks
                try:
                    rows = client.execute_sql(sql, *(key[2] for key in some)) or ()
                except DatabaseUndefinedRelation:
                    return {}  # nothing was ever loaded
                found |= {(row[0], row[1], row[2]): Stored(row[3], row[4].astimezone(UTC)) for row in rows}
        return found

    def load(self, rows: Mapping[str, list[Row]]) -> None:
        """Within a turn; when that ends, every row is visible. Raises WarehouseUnavailable, or LoadRefused when these rows are the reason."""
        resources = [self._resource(table, rows[table.name]) for table in TABLES if table.name in rows]
        with _translated():
            extracted = self._pipeline.extract(resources)
            self._pipeline.normalize()
            info = self._pipeline.load()
            if set(info.loads_ids) != set(extracted.loads_ids) or any(p.state != "loaded" for p in info.load_packages):
                raise WarehouseUnavailable("dlt did not load the package it was given; it is loaded again")
        self._prune()

    def close(self) -> None:
        """Gives the pipeline up."""
        if self._pipeline.is_active:  # a reader in this process makes its own the active one
            self._pipeline.deactivate()
        self._held.release()

    def _fresh_pipeline(self) -> dlt.Pipeline:
        shutil.rmtree(self._folder, ignore_errors=True)
        return dlt.pipeline(
            self._name, pipelines_dir=self._settings.work_dir, destination=self._destination, dataset_name=self._settings.dataset
        )

    def _resource(self, table: Table, rows: list[Row]) -> DltResource:
        columns: dict[str, TColumnSchema] = {column: {"data_type": "json"} for column in table.json}
        resource: DltResource = dlt.resource([arrow(table.name, rows)], name=table.name, primary_key=table.key, columns=columns)
        return resource.apply_hints(write_disposition=self._strategies[table.replaces])

    def _prune(self) -> None:
        """Dlt keeps some eight files of every load, and a note of every setting it read: a full disk and memory, in time."""
        get_resolved_traces().clear()
        for folder in (self._folder / "load" / "loaded", self._folder / "normalize" / "loaded"):
            for package in folder.glob("*"):
                shutil.rmtree(package, ignore_errors=True)


def try_out(settings: Settings) -> None:
    """Connects, and makes the dataset where it is missing. Raises WarehouseUnavailable, LoadRefused, ConfigurationError."""
    with reading_client(settings) as client:
        if not client.has_dataset():
            client.create_dataset()


@contextmanager
def reading_client(settings: Settings) -> Iterator[SqlClientBase[Any]]:
    """A connection of its own, beside a running consumer's."""
    with TemporaryDirectory(prefix="ingest-reader-") as scratch:
        pipeline = dlt.pipeline(
            "ingest_reader", pipelines_dir=scratch, destination=destination(settings), dataset_name=settings.warehouse.dataset
        )
        with _translated(), warehouse_lock(settings.warehouse, READER_SECONDS), pipeline.sql_client() as client:
            yield client


def read(settings: Settings, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query. Raises WarehouseUnavailable; ConfigurationError when the destination refuses the query."""
    with reading_client(settings) as client:
        if not client.has_dataset():
            raise WarehouseUnavailable(f"nothing has been loaded yet: there is no dataset {settings.warehouse.dataset}")
        try:
            with client.execute_query(sql) as cursor:
                return [column[0] for column in cursor.description or ()], cursor.fetchall()
        except DatabaseException as error:
            if _is_one(error.dbapi_exception, _NOT_THE_QUERY):
                raise
            raise ConfigurationError(str(error.dbapi_exception)) from None


def destination(settings: Settings) -> Any:
    """The dlt destination of the settings. Raises ConfigurationError."""
    chosen = settings.warehouse
    credentials = str(chosen.duckdb_file) if chosen.duckdb_file else (chosen.credentials and chosen.credentials.get_secret_value())
    layout = "_".join(filter(None, ["%s_staging", settings.consumer.instance]))
    given = {"credentials": credentials} if credentials else {}
    if chosen.duckdb_file:
        _check_name(chosen.duckdb_file, (chosen.dataset, layout % chosen.dataset))
        _make(chosen.duckdb_file.parent)
    try:
        return dlt.destination(chosen.destination, staging_dataset_name_layout=layout, **given)
    except Exception as error:  # noqa: BLE001 - whatever the destination's own import or configuration raises
        raise ConfigurationError(f"warehouse.destination {chosen.destination!r} is not one dlt can use: {type(error).__name__}") from None


def _check_name(file: Path, schemas: tuple[str, ...]) -> None:
    """DuckDB calls a database by its file's name, and cannot tell that from a schema of the same name."""
    if file.stem.lower() in schemas:
        raise ConfigurationError(
            f"warehouse.credentials: call the file something else than {file.name}, or choose another warehouse.dataset"
        )


def _keep_open(file: Path) -> duckdb.DuckDBPyConnection:
    """Bounded, for the whole process: DuckDB would take most of the machine's memory, and we load a few megabytes at a time."""
    connection = duckdb.connect(str(file))
    connection.execute(f"SET memory_limit = '{_DUCKDB_MEMORY}'")
    return connection


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WarehouseUnavailable(f"{folder} cannot be made: {error.strerror}") from None


def _hold(folder: Path) -> FileLock:
    _make(folder)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=10)
    except Timeout:
        raise ConfigurationError(f"another consumer works in {folder}: stop it, or give this one its own consumer.instance") from None
    return lock


def _merge_strategies(pipeline: dlt.Pipeline) -> dict[bool, Any]:
    """By whether later rows replace: the exact strategy where the destination has it, the universal one elsewhere."""
    can = pipeline.destination_client().capabilities.supported_merge_strategies or []
    return {
        True: {"disposition": "merge", "strategy": "upsert" if "upsert" in can else "delete-insert"},
        False: {"disposition": "merge", "strategy": "insert-only" if "insert-only" in can else "delete-insert"},
    }


@contextmanager
def _translated() -> Iterator[None]:
    """Dlt's errors as ours: terminal ones blame the rows, those of its configuration the settings, all others may pass."""
    try:
        yield
    except (WarehouseUnavailable, LoadRefused, ConfigurationError):
        raise
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ConfigurationException):
                raise ConfigurationError(f"warehouse.credentials are not what dlt can use: {_fault(cause)}") from None
        what = f"{type(causes[-1]).__name__}: {_first_line(causes[-1])}"
        if _blames_rows(causes):
            raise LoadRefused(what) from error
        raise WarehouseUnavailable(what) from error


def _blames_rows(causes: Sequence[BaseException]) -> bool:
    """Only where the driver says so. dlt calls a missing permission or column terminal as well, and that is no record's fault."""
    return any(_is_one(cause, _THE_ROWS) for cause in causes)


def _is_one(error: BaseException, names: set[str]) -> bool:
    return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _fault(error: ConfigurationException) -> str:
    """The names of missing fields; others of these errors quote the credentials."""
    return " ".join(str(error).splitlines()[:2]) if isinstance(error, ConfigFieldMissingException) else type(error).__name__


def _first_line(error: BaseException) -> str:
    return _USER_AND_PASSWORD.sub("…@", next(iter(str(error).splitlines()), ""))[:300]
