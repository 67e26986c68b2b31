"""Reading the warehouse, also while a consumer writes to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from consumers.locks import READER_SECONDS, warehouse_lock
from ingest.errors import ConfigurationError, NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.settings import Settings

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names and rows; JSON columns as values, instants in UTC."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]


def query(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    """The dataset's tables are there by their bare names; `%s` stands for a parameter where there are any.

    Raises WarehouseUnavailable, of it NothingLoaded; ConfigurationError for bad SQL, of it NoSuchTable.
    """
    if settings.warehouse.duckdb_file:
        return _query_duckdb(settings, [sql.replace("%s", "?") if parameters else sql], parameters)[0]
    return _query_dlt(settings, sql, parameters)


def query_all(settings: Settings, statements: Sequence[str]) -> list[Answer]:
    """Several queries in one turn at the file; as `query`."""
    if settings.warehouse.duckdb_file:
        return _query_duckdb(settings, statements)
    return [_query_dlt(settings, sql) for sql in statements]


def _query_duckdb(settings: Settings, statements: Sequence[str], parameters: Sequence[Any] = ()) -> list[Answer]:
    """Read-only, and without dlt: half the time of starting goes into importing that."""
    import duckdb

    path = settings.warehouse.duckdb_file
    if path is None or not path.exists():
        raise NothingLoaded(f"nothing has been loaded yet: there is no {path}")
    try:
        with warehouse_lock(settings.warehouse, READER_SECONDS), duckdb.connect(str(path), read_only=True) as connection:
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
    found = connection.extract_statements(sql)
    if len(found) != 1:
        raise ConfigurationError(f"a query is one statement, and this is {len(found)}")
    return sql


def _answer(cursor: "duckdb.DuckDBPyConnection") -> Answer:
    columns = [(column[0], str(column[1])) for column in cursor.description or ()]
    return Answer([name for name, _ in columns], [_row(row, columns) for row in cursor.fetchall()])


def _enter(connection: "duckdb.DuckDBPyConnection", dataset: str) -> None:
    """Its tables by their bare names. Raises WarehouseUnavailable when it has none."""
    found = connection.execute("SELECT 1 FROM information_schema.tables WHERE table_schema = ? LIMIT 1", [dataset]).fetchone()
    if found is None:
        raise NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")
    connection.execute(f'USE "{dataset}"')


def _query_dlt(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    from consumers.warehouse import read

    columns, rows = read(settings, sql, parameters)
    kinds = [(name, "") for name in columns]
    return Answer(columns, [_row(row, kinds) for row in rows])


def _row(row: Sequence[Any], columns: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
    return tuple(_value(value, kind) for value, (_, kind) in zip(row, columns, strict=True))


def _value(value: Any, kind: str) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    return parsed_json(value) if kind == "JSON" else value


def parsed_json(value: Any) -> Any:
    """The value of a JSON column: some destinations give it back parsed, and others as text."""
    return orjson.loads(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """For JSON: instants as ISO 8601 in UTC, exact decimals as numbers, what JSON has no word for as text."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, date) else str(value)
