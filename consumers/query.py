"""Reading the warehouse, also while a consumer writes to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from consumers.locks import reading_turn
from ingest.errors import ConfigurationError, NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.settings import Settings
from ingest.warehouse_values import JsonText, parsed_json, readable_values

if TYPE_CHECKING:
    import duckdb


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


def query_all(settings: Settings, statements: Sequence[str]) -> list[Answer]:
    """Several queries in one turn at the file; as `query`."""
    if settings.warehouse.duckdb_file:
        return list(map(_with_values, _query_duckdb(settings, statements)))
    return [query(settings, sql) for sql in statements]


def _query_duckdb(settings: Settings, statements: Sequence[str], parameters: Sequence[Any] = ()) -> list[Answer]:
    """Read-only, and without dlt: half the time of starting goes into importing that."""
    import duckdb

    path = settings.warehouse.duckdb_file
    if path is None or not path.exists():
        raise NothingLoaded(f"nothing has been loaded yet: there is no {path}")
    try:
        with reading_turn(settings.warehouse), duckdb.connect(str(path), read_only=True) as connection, readable_values():
            connection.execute("SET TimeZone = 'UTC'")
            _enter(connection, settings.warehouse.dataset)
            return [_answer(connection.execute(_one(connection, sql), parameters)) for sql in statements]
    except duckdb.IOException as error:
        raise WarehouseUnavailable(f"{path} is held by another program: {str(error).splitlines()[0]}") from None
    except duckdb.CatalogException as error:
        raise NoSuchTable(str(error)) from None
    except duckdb.Error as error:
        raise ConfigurationError(str(error)) from None


def _one(connection: "duckdb.DuckDBPyConnection", sql: str) -> str:
    number = len(connection.extract_statements(sql))
    if number == 0:
        raise ConfigurationError("There is no statement in it.")
    if number > 1:
        raise ConfigurationError(f"Only one statement is allowed (got {number}).")
    return sql


def _answer(cursor: "duckdb.DuckDBPyConnection") -> Answer:
    columns = [(column[0], str(column[1])) for column in cursor.description or ()]
    readers = [_reader(kind) for _, kind in columns]
    rows = [tuple(read(value) for read, value in zip(readers, row, strict=True)) for row in cursor.fetchall()]
    return Answer(_distinct([name for name, _ in columns]), rows)


def _enter(connection: "duckdb.DuckDBPyConnection", dataset: str) -> None:
    """Its tables by their bare names. Raises WarehouseUnavailable when it has none."""
    found = connection.execute("SELECT 1 FROM information_schema.tables WHERE table_schema = ? LIMIT 1", [dataset]).fetchone()
    if found is None:
        raise NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")
    connection.execute(f'USE "{dataset}"')


def _query_dlt(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    from consumers.warehouse import read

    columns, rows = read(settings, sql, parameters)
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
        return lambda values: None if values is None else [None if value is None else JsonText(value) for value in values]
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
