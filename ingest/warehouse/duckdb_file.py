"""Read-only access to the warehouse's DuckDB file, in turns with the consumer.

Only one process may have the file open, so the consumer and readers wait for each other at a lock.
dlt is not used: half the time in which a command starts would go into importing it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
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

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

READER_SECONDS = 60.0
_MEMORY = "1GB"
_ATTACHED_MEMORY = "200MB"
_RETRY_SECONDS = 0.1
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
        with self._opened() as connection:
            return run_statements(connection, statements, parameters)

    def query_bounded(self, sql: str, bounds: Bounds, running: RunningQuery) -> QueryResult:
        """Run a statement that somebody wrote. Raises as `ingest.warehouse.query.query_bounded` does."""
        with self._opened() as connection:
            return run_bounded(connection, sql, bounds, running)

    def query_attached(self, sql: str, parameters: Sequence[Any]) -> QueryResult:
        """Run one of many queries, and return values as DuckDB has them.

        The file is attached to a connection that stays. Another program that has the file open takes no
        turns, so it is waited for. Raises WarehouseUnavailable, of it NothingLoaded where there is no table.
        """
        import duckdb

        self._require_file()
        retrying = Retrying(
            retry=retry_if_exception_type(duckdb.IOException),
            stop=stop_after_delay(READER_SECONDS),
            wait=wait_fixed(_RETRY_SECONDS),
            reraise=True,
        )
        try:
            return retrying(self._attach_and_query, sql, parameters)
        except duckdb.CatalogException as error:
            raise NothingLoaded(f"nothing has been loaded yet: {_first_line(error)}") from None
        except duckdb.IOException as error:
            raise WarehouseUnavailable(
                f"{self._path} is held by another program: {_first_line(error)}"
            ) from None

    def _attach_and_query(self, sql: str, parameters: Sequence[Any]) -> QueryResult:
        path = str(self._path).replace("'", "''")
        with reading_turn(self._settings):
            self._memory.execute(f"ATTACH '{path}' AS warehouse (READ_ONLY)")
            try:
                self._memory.execute(f'USE warehouse."{self._settings.dataset}"')
                cursor = self._memory.execute(sql, parameters)
                return QueryResult([column[0] for column in cursor.description or ()], cursor.fetchall())
            finally:
                self._memory.execute("USE memory")
                self._memory.execute("DETACH warehouse")

    @cached_property
    def _memory(self) -> "DuckDBPyConnection":
        """A database in memory: to start one takes forty times as long as a query."""
        import duckdb

        return duckdb.connect(config={"memory_limit": _ATTACHED_MEMORY})

    def _require_file(self) -> None:
        if not self._path.exists():
            raise NothingLoaded(f"nothing has been loaded yet: there is no {self._path}")

    @contextmanager
    def _opened(self) -> "Iterator[DuckDBPyConnection]":
        """Connect to the file, with the dataset's tables by their bare names."""
        import duckdb

        self._require_file()
        dataset = self._settings.dataset
        with reading_turn(self._settings), readable_values():
            try:
                connection = duckdb.connect(str(self._path), read_only=True)
            except duckdb.IOException as error:
                trouble = "is held by another program" if "lock" in str(error) else "cannot be opened"
                raise WarehouseUnavailable(f"{self._path} {trouble}: {_first_line(error)}") from None
            with connection, translated_errors(self._path):
                connection.execute("SET TimeZone = 'UTC'")
                any_table = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? LIMIT 1"
                if connection.execute(any_table, [dataset]).fetchone() is None:
                    raise NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")
                connection.execute(f'USE "{dataset}"')
                yield connection


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
