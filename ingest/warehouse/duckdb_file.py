"""Read-only access to the warehouse's DuckDB file, in turns with the consumer.

Only one process may have the file open, so the consumer and readers wait for each other at a lock.
dlt is not used: half the time in which a command starts would go into importing it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from ingest.errors import ConfigurationError, NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.locks import exclusive
from ingest.settings import WarehouseSettings
from ingest.warehouse import (
    Bounds,
    JsonText,
    QueryResult,
    RunningQuery,
    distinct_names,
    in_utc,
    readable_values,
)
from ingest.warehouse.idle import Idle

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

READER_SECONDS = 60.0
_MEMORY = "1GB"
_RETRY_SECONDS = 0.1
_ALIAS = "warehouse"  # of the file, in a database in memory
_MOST_LATE_ROWS = 5000
# Databases in memory, by the file that they read. Each has threads, so few are kept.
_IDLE: "Idle[DuckDBPyConnection]" = Idle(2)
# What a query could reach besides the tables, and where it could write:
# https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
LOCKED_DOWN = {
    "temp_directory": "''",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    # Without external access the database's own files would still be read and written.
    "disabled_filesystems": "'LocalFileSystem'",
    "memory_limit": f"'{_MEMORY}'",
    "lock_configuration": "true",  # the last one
}
# DuckDB's names of statements that read; PIVOT is MULTI.
_READING_STATEMENTS = {"SELECT", "EXPLAIN", "MULTI"}


# Functions that convert values of DuckDB's types. Values of all other types are only converted to UTC.
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "JSON": lambda value: None if value is None else JsonText(value),
    "JSON[]": lambda values: (
        None if values is None else [None if value is None else JsonText(value) for value in values]
    ),
}


def run_statements(
    connection: "DuckDBPyConnection", statements: Sequence[str], parameters: Sequence[Any]
) -> list[QueryResult]:
    """Run statements of ours. Raises as `ingest.warehouse.query.query` does."""
    results = []
    for sql in statements:
        check_statement(connection, sql)
        results.append(result_of(connection.execute(sql, parameters)))
    return results


def run_bounded(
    connection: "DuckDBPyConnection", sql: str, bounds: Bounds, running: RunningQuery
) -> QueryResult:
    """Run a statement that somebody wrote. Raises as `ingest.warehouse.query.query_bounded` does."""
    for name, value in LOCKED_DOWN.items():
        connection.execute(f"SET {name} = {value}")
    check_statement(connection, sql, only_reading=True)
    running.start(connection.interrupt)
    return result_of(connection.execute(sql), bounds)


class DuckDBFile:
    """The file of a warehouse on DuckDB. It is open only while a query runs, in turns with the consumer."""

    def __init__(self, path: Path, settings: WarehouseSettings) -> None:
        self._path = path
        self._settings = settings

    def query(self, statements: Sequence[str], parameters: Sequence[Any] = ()) -> list[QueryResult]:
        """Run statements, with JSON as JsonText. Raises as `ingest.warehouse.query.query` does."""
        with self._turn(), readable_values(), translated_errors(self._path), self._attached() as connection:
            any_table = "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND schema_name = ? LIMIT 1"
            if connection.execute(any_table, [_ALIAS, self._settings.dataset]).fetchone() is None:
                raise self._no_tables()
            connection.execute(f'USE {_ALIAS}."{self._settings.dataset}"')
            return run_statements(connection, statements, parameters)

    def query_bounded(self, sql: str, bounds: Bounds, running: RunningQuery) -> QueryResult:
        """Run a statement that somebody wrote. Raises as `ingest.warehouse.query.query_bounded` does."""
        with self._opened() as connection:
            return run_bounded(connection, sql, bounds, running)

    def query_plain(self, sql: str, parameters: Sequence[Any]) -> QueryResult:
        """Run a query, and return values as DuckDB has them.

        Another program that has the file open takes no turns, so it is waited for. Raises
        WarehouseUnavailable, of it NothingLoaded where there is no table.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_HeldByAnother),
            stop=stop_after_delay(READER_SECONDS),
            wait=wait_fixed(_RETRY_SECONDS),
            reraise=True,
        )

        def run() -> QueryResult:
            with self._turn(), translated_errors(self._path), self._attached() as connection:
                connection.execute(f'USE {_ALIAS}."{self._settings.dataset}"')
                cursor = connection.execute(sql, parameters)
                return QueryResult([column[0] for column in cursor.description or ()], cursor.fetchall())

        try:
            return retrying(run)
        except NoSuchTable as error:
            raise NothingLoaded(f"nothing has been loaded yet: {_first_line(error)}") from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the file. Raises WarehouseUnavailable, of it NothingLoaded where there is no file."""
        if not self._path.exists():
            raise NothingLoaded(f"nothing has been loaded yet: there is no {self._path}")
        with reading_turn(self._settings):
            yield

    @contextmanager
    def _attached(self) -> "Iterator[DuckDBPyConnection]":
        """Attach the file to a database in memory, which is kept: to start one takes longer than a query.

        Nothing else uses it meanwhile, and after an error it is not used again.
        """
        import duckdb

        connection = _IDLE.take(self._path)
        if connection is None:
            folder = f"{self._path}.tmp"  # as DuckDB calls it by itself for a file
            connection = duckdb.connect(config={"temp_directory": folder, "memory_limit": _MEMORY})
            connection.execute("SET TimeZone = 'UTC'")
            # For a page in some order, only the columns that choose its rows are read whole.
            connection.execute(f"SET late_materialization_max_rows = {_MOST_LATE_ROWS}")
        try:
            path = str(self._path).replace("'", "''")
            with _opening(self._path):
                connection.execute(f"ATTACH '{path}' AS {_ALIAS} (READ_ONLY)")
            yield connection
            connection.execute("USE memory")
            connection.execute(f"DETACH {_ALIAS}")
        except BaseException:
            connection.close()
            raise
        _IDLE.keep(self._path, connection)

    @contextmanager
    def _opened(self) -> "Iterator[DuckDBPyConnection]":
        """Connect to the file and nothing else, with the dataset's tables by their bare names."""
        import duckdb

        dataset = self._settings.dataset
        with self._turn(), readable_values():
            with _opening(self._path):
                connection = duckdb.connect(str(self._path), read_only=True)
            with connection, translated_errors(self._path):
                connection.execute("SET TimeZone = 'UTC'")
                any_table = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? LIMIT 1"
                if connection.execute(any_table, [dataset]).fetchone() is None:
                    raise self._no_tables()
                connection.execute(f'USE "{dataset}"')
                yield connection

    def _no_tables(self) -> NothingLoaded:
        dataset = self._settings.dataset
        return NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")


class _HeldByAnother(WarehouseUnavailable):
    """Another program has the file open, and does not take turns."""


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Raise the errors of opening a file as ours."""
    import duckdb

    try:
        yield
    except duckdb.IOException as error:
        if "lock" in str(error):
            raise _HeldByAnother(f"{path} is held by another program: {_first_line(error)}") from None
        raise WarehouseUnavailable(f"{path} cannot be opened: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


@contextmanager
def translated_errors(place: Path | str) -> Iterator[None]:
    """Raise DuckDB's errors as ours."""
    import duckdb

    try:
        yield
    except duckdb.PermissionException as error:
        raise ConfigurationError(
            f"a query reads the tables of the warehouse and nothing else: {_first_line(error)}"
        ) from None
    except duckdb.OutOfMemoryException:
        raise ConfigurationError(
            f"the query needs more than {_MEMORY} of memory: ask for fewer rows or columns"
        ) from None
    except duckdb.InterruptException:
        raise ConfigurationError("the query was stopped before its end") from None
    except duckdb.IOException as error:
        raise WarehouseUnavailable(f"{place} cannot be read: {_first_line(error)}") from None
    except duckdb.CatalogException as error:
        raise NoSuchTable(str(error)) from None
    except duckdb.Error as error:
        raise ConfigurationError(str(error)) from None


def check_statement(connection: "DuckDBPyConnection", sql: str, *, only_reading: bool = False) -> None:
    """Raise ConfigurationError unless there is exactly one statement, and it reads if `only_reading`."""
    statements = connection.extract_statements(sql)
    number = len(statements)
    if number == 0:
        raise ConfigurationError("There is no statement in it.")
    if number > 1:
        raise ConfigurationError(f"Only one statement is allowed (got {number}).")
    if only_reading and statements[0].type.name not in _READING_STATEMENTS:
        raise ConfigurationError(
            "Only statements that read are allowed:"
            " SELECT, WITH, FROM, VALUES, PIVOT, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN."
        )


def result_of(cursor: "DuckDBPyConnection", bounds: Bounds | None = None) -> QueryResult:
    """Return the result of a statement, with JSON as JsonText and instants in UTC."""
    columns = [(column[0], str(column[1])) for column in cursor.description or ()]
    converters = [_CONVERTERS.get(kind, in_utc) for _, kind in columns]
    rows = bounds.fetch(cursor.fetchmany) if bounds else cursor.fetchall()
    return QueryResult(
        distinct_names([name for name, _ in columns]),
        [tuple(convert(value) for convert, value in zip(converters, row, strict=True)) for row in rows],
    )


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
            f"another process has had {settings.duckdb_file} open for more than {patience:.0f} s{holder}"
        )

    purpose = f"the warehouse file {settings.duckdb_file} is in use"
    try:
        lock = exclusive(file, patience, busy, purpose=purpose)
    except OSError as error:
        raise WarehouseUnavailable(f"{file} cannot be made: {error.strerror}") from None
    with lock:
        yield
