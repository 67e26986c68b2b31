"""Query the warehouse, also while a consumer writes to it.

The dataset's tables have their bare names in every statement.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any

from ingest.destinations import FILESYSTEM
from ingest.errors import NoSuchTable, NothingLoaded
from ingest.settings import Settings
from ingest.warehouse import (
    EMPTY_RESULT,
    Bounds,
    JsonText,
    QueryResult,
    RunningQuery,
    distinct_names,
    in_utc,
    parsed_json,
)
from ingest.warehouse.duckdb_file import DuckDBFile

if TYPE_CHECKING:
    from ingest.warehouse.lake import Lake


def query(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """Run a statement, in which `%s` stands for a parameter where there are any, and parse its JSON values.

    Raises WarehouseUnavailable, of it NothingLoaded; ConfigurationError for bad SQL, of it NoSuchTable;
    UnreadableValue.
    """
    return _with_parsed_json(query_exact(settings, sql, parameters))


def query_or_empty(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """Run a statement as `query` does; return no columns and no rows where its table does not exist yet."""
    try:
        return query(settings, sql, parameters)
    except (NothingLoaded, NoSuchTable):
        return EMPTY_RESULT


def query_exact(settings: Settings, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """Run a statement as `query` does, with JSON as JsonText: parsed numbers would lose digits."""
    if reader := _reader(settings):
        return reader.query([sql.replace("%s", "?") if parameters else sql], parameters)[0]
    from ingest.warehouse.destination import read

    return _in_utc(settings, *read(settings, sql, parameters))


def query_bounded(settings: Settings, sql: str, bounds: Bounds) -> QueryResult:
    """Run a statement that somebody wrote: it only reads tables, and ends in time. JSON values are JsonText.

    Raises as `query` does, and ConfigurationError for a statement that would do more or exceeds its bounds.
    """

    def run(running: RunningQuery) -> QueryResult:
        if reader := _reader(settings):
            return reader.query_bounded(sql, bounds, running)
        from ingest.warehouse.destination import read_bounded

        return _in_utc(settings, *read_bounded(settings, sql, bounds, running))

    return RunningQuery().result(run, bounds)


def query_all(settings: Settings, statements: Sequence[str]) -> list[QueryResult]:
    """Run several statements as `query` does, where DuckDB reads in one turn."""
    if reader := _reader(settings):
        return list(map(_with_parsed_json, reader.query(statements)))
    return [query(settings, sql) for sql in statements]


def _reader(settings: Settings) -> "DuckDBFile | Lake | None":
    """Return what reads by DuckDB; None where dlt's own client reads."""
    if file := settings.warehouse.duckdb_file:
        return DuckDBFile(file, settings.warehouse)
    if settings.warehouse.kind is FILESYSTEM:
        from ingest.warehouse.lake_formats import open_lake

        return open_lake(settings.warehouse)
    return None


def _in_utc(settings: Settings, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> QueryResult:
    zone = UTC if settings.warehouse.kind.has_naive_instants else None
    return QueryResult(distinct_names(columns), [tuple(in_utc(value, zone) for value in row) for row in rows])


def _with_parsed_json(exact: QueryResult) -> QueryResult:
    """Return a result with its JSON values parsed. Those that cannot be parsed stay text."""

    def parsed(value: Any) -> Any:
        with suppress(ValueError):
            return parsed_json(value) if isinstance(value, JsonText) else value
        return value

    return QueryResult(exact.columns, [tuple(map(parsed, row)) for row in exact.rows])
