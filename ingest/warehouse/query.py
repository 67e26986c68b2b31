"""Reading the warehouse, also while a consumer writes to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import ConfigurationError, NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.settings import Settings
from ingest.warehouse.bounds import Bounds, RunningQuery
from ingest.warehouse.lock import reading_turn
from ingest.warehouse.values import JsonText, parsed_json, readable_values

if TYPE_CHECKING:
    import duckdb

_MEMORY = "1GB"
# What a query could reach besides the tables, and where it could write: https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
_LOCKED_DOWN = {
    "temp_directory": "''",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "disabled_filesystems": "'LocalFileSystem'",  # without external access the database's own files would still be read and written
    "memory_limit": f"'{_MEMORY}'",
    "lock_configuration": "true",  # the last one
}
# DuckDB's names of statements; PIVOT is MULTI.
_READERS = {"SELECT", "EXPLAIN", "MULTI"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names, each once, and rows; JSON columns as values, instants in UTC."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]


def query(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    """The dataset's tables are there by their bare names; `%s` stands for a parameter where there are any.

    Raises WarehouseUnavailable, of it NothingLoaded; ConfigurationError for bad SQL, of it NoSuchTable; UnreadableValue.
    """
    return _with_values(query_exact(settings, sql, parameters))


def query_exact(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    """As `query`, with JSON as JsonText: parsed, numbers would lose digits."""
    if settings.warehouse.duckdb_file:
        return _query_duckdb(settings, [sql.replace("%s", "?") if parameters else sql], parameters)[0]
    return _query_dlt(settings, sql, parameters)


def query_bounded(settings: Settings, sql: str, bounds: Bounds) -> Answer:
    """As `query_exact`, for a statement that somebody wrote: it reads the tables and nothing else, and ends in time. Raises ConfigurationError for another."""
    if settings.warehouse.duckdb_file:
        return RunningQuery().result(
            lambda running: _query_duckdb_bounded(settings, sql, bounds, running), bounds
        )
    return RunningQuery().result(lambda running: _query_dlt_bounded(settings, sql, bounds, running), bounds)


def query_all(settings: Settings, statements: Sequence[str]) -> list[Answer]:
    """Several queries in one turn at the file; as `query`."""
    if settings.warehouse.duckdb_file:
        return list(map(_with_values, _query_duckdb(settings, statements)))
    return [query(settings, sql) for sql in statements]


def _query_duckdb(
    settings: Settings, statements: Sequence[str], parameters: Sequence[Any] = ()
) -> list[Answer]:
    with _connected(settings) as connection:
        return [_answer(connection.execute(_one(connection, sql), parameters)) for sql in statements]


def _query_duckdb_bounded(settings: Settings, sql: str, bounds: Bounds, running: RunningQuery) -> Answer:
    with _connected(settings) as connection:
        for name, value in _LOCKED_DOWN.items():
            connection.execute(f"SET {name} = {value}")
        _one(connection, sql, readers_only=True)
        running.start(connection.interrupt)
        return _answer(connection.execute(sql), bounds)


@contextmanager
def _connected(settings: Settings) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Read-only, and without dlt: half the time of starting goes into importing that."""
    import duckdb

    path = settings.warehouse.duckdb_file
    if path is None or not path.exists():
        raise NothingLoaded(f"nothing has been loaded yet: there is no {path}")
    with reading_turn(settings.warehouse), readable_values():
        try:
            connection = duckdb.connect(str(path), read_only=True)
        except duckdb.IOException as error:
            what = "is held by another program" if "lock" in str(error) else "cannot be opened"
            raise WarehouseUnavailable(f"{path} {what}: {_first_line(error)}") from None
        with connection, _translated(path):
            connection.execute("SET TimeZone = 'UTC'")
            _enter(connection, settings.warehouse.dataset)
            yield connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """DuckDB's errors as ours."""
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
        raise WarehouseUnavailable(f"{path} cannot be read: {_first_line(error)}") from None
    except duckdb.CatalogException as error:
        raise NoSuchTable(str(error)) from None
    except duckdb.Error as error:
        raise ConfigurationError(str(error)) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _one(connection: "duckdb.DuckDBPyConnection", sql: str, *, readers_only: bool = False) -> str:
    statements = connection.extract_statements(sql)
    number = len(statements)
    if number == 0:
        raise ConfigurationError("There is no statement in it.")
    if number > 1:
        raise ConfigurationError(f"Only one statement is allowed (got {number}).")
    if readers_only and statements[0].type.name not in _READERS:
        raise ConfigurationError(
            "Only statements that read are allowed: SELECT, WITH, FROM, VALUES, PIVOT, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN."
        )
    return sql


def _answer(cursor: "duckdb.DuckDBPyConnection", bounds: Bounds | None = None) -> Answer:
    columns = [(column[0], str(column[1])) for column in cursor.description or ()]
    readers = [_reader(kind) for _, kind in columns]
    found = bounds.fetch(cursor.fetchmany) if bounds else cursor.fetchall()
    rows = [tuple(read(value) for read, value in zip(readers, row, strict=True)) for row in found]
    return Answer(_distinct([name for name, _ in columns]), rows)


def _enter(connection: "duckdb.DuckDBPyConnection", dataset: str) -> None:
    """Its tables by their bare names. Raises WarehouseUnavailable when it has none."""
    found = connection.execute(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = ? LIMIT 1", [dataset]
    ).fetchone()
    if found is None:
        raise NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")
    connection.execute(f'USE "{dataset}"')


def _query_dlt(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    from ingest.warehouse.destination import read

    columns, rows = read(settings, sql, parameters)
    return Answer(_distinct(columns), [tuple(map(_in_utc, row)) for row in rows])


def _query_dlt_bounded(settings: Settings, sql: str, bounds: Bounds, running: RunningQuery) -> Answer:
    from ingest.warehouse.destination import read_bounded

    columns, rows = read_bounded(settings, sql, bounds, running)
    return Answer(_distinct(columns), [tuple(map(_in_utc, row)) for row in rows])


def _distinct(names: Sequence[str]) -> list[str]:
    """Of columns of one name each after the first gets a number, so that none hides another: id, id_2."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        distinct.append(next(new for new in chain([name], numbered) if new not in distinct))
    return distinct


def _reader(kind: str) -> Callable[[Any], Any]:
    """How a value of a DuckDB type is read."""
    if kind == "JSON":
        return lambda value: None if value is None else JsonText(value)
    if kind == "JSON[]":
        return lambda values: (
            None if values is None else [None if value is None else JsonText(value) for value in values]
        )
    return _in_utc


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value


def _with_values(exact: Answer) -> Answer:
    return Answer(exact.columns, [tuple(map(_parsed, row)) for row in exact.rows])


def _parsed(value: Any) -> Any:
    """JSON that cannot be parsed stays text."""
    try:
        return parsed_json(value) if isinstance(value, JsonText) else value
    except ValueError:
        return value
