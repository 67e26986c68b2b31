"""What psycopg2 makes of PostgreSQL's values: never an error, and JSON as the text it is; and statements that somebody wrote, which only read."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ingest.errors import ConfigurationError, NoSuchTable
from ingest.warehouse.bounds import Bounds
from ingest.warehouse.values import JsonText

# The oid of each type and of its arrays: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_TIMES = {
    "date": (1082, 1182),
    "time": (1083, 1183),
    "timestamp": (1114, 1115),
    "timestamptz": (1184, 1185),
    "timetz": (1266, 1270),
}
_INTERVAL = {"interval": (1186, 1187)}
_JSON = {"json": (114, 199), "jsonb": (3802, 3807)}
_INFINITE = {"infinity", "-infinity"}
_END_OF_DAY = "24:"  # psycopg2 makes it the day's beginning

_Cast = Callable[[str | None, Any], Any]


def keep_times(connection: Any) -> None:
    """Give a time that Python has no value for (24:00, infinity, before Christ, after 9999) as PostgreSQL's own text."""
    _register(connection, _time_types())


def keep_json(connection: Any) -> None:
    """Give JSON as its text: parsed, numbers would lose digits, and some are beyond what Python parses."""
    _register(connection, _json_types())


def _register(connection: Any, types: list[Any]) -> None:
    from psycopg2.extensions import register_type

    for type_ in types:
        register_type(type_, connection)


@cache
def _time_types() -> list[Any]:
    return _types(_TIMES | _INTERVAL, _time_or_text)


@cache
def _json_types() -> list[Any]:
    return _types(_JSON, lambda _: lambda text, _cursor: None if text is None else JsonText(text))


def _types(oids: Mapping[str, tuple[int, int]], cast_of: Callable[[int], _Cast]) -> list[Any]:
    from psycopg2.extensions import new_array_type, new_type

    types: list[Any] = []
    for name, (oid, array) in oids.items():
        type_ = new_type((oid,), name, cast_of(oid))
        types += [type_, new_array_type((array,), f"{name}[]", type_)]
    return types


def _time_or_text(oid: int) -> _Cast:
    from psycopg2.extensions import string_types

    usual = string_types[oid]

    def cast(text: str | None, cursor: Any) -> Any:
        try:
            return text if text in _INFINITE or (text or "").startswith(_END_OF_DAY) else usual(text, cursor)
        except (ValueError, OverflowError):
            return text

    return cast


# Volatile functions that change nothing, and those behind TABLESAMPLE.
_HARMLESS = [
    "system",
    "bernoulli",
    "random",
    "random_normal",
    "gen_random_uuid",
    "uuidv4",
    "uuidv7",
    "clock_timestamp",
    "timeofday",
]
_HARMLESS += [
    "pg_relation_size",
    "pg_table_size",
    "pg_total_relation_size",
    "pg_indexes_size",
    "pg_database_size",
]
# A read-only transaction still calls functions that read and write the server's files, end sessions, or run SQL that they are given as
# text; and an administrator reads everybody's passwords. So nothing is named that is volatile, or that not everybody may use.
_FORBIDDEN = """
    SELECT proname FROM pg_catalog.pg_proc AS found
    WHERE lower(proname) = ANY(%(words)s) AND proname <> ALL(%(harmless)s)
      AND prorettype NOT IN ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype)
      AND (provolatile = 'v' OR NOT has_function_privilege('public', found.oid, 'execute') OR proname ~ '^(crosstab|connectby|xpath_table)')
    UNION SELECT relname FROM pg_catalog.pg_class AS found
    WHERE lower(relname) = ANY(%(words)s) AND relnamespace = 'pg_catalog'::regnamespace
      AND NOT has_table_privilege('public', found.oid, 'select')
    LIMIT 1
"""
_READ_ALL_DATA_SINCE = 140_000


def read_only(connection: Any, sql: str, bounds: Bounds) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one statement, in a transaction that only reads and ends in time. Raises ConfigurationError, of it NoSuchTable."""
    import psycopg2

    with connection.cursor() as cursor:
        cursor.execute("BEGIN READ ONLY")
        try:
            return _read(cursor, sql, bounds)
        except psycopg2.errors.QueryCanceled:
            raise bounds.too_long() from None
        except psycopg2.errors.UndefinedTable as error:
            raise NoSuchTable(str(error.diag.message_primary)) from None
        except psycopg2.OperationalError:
            raise
        except psycopg2.Error as error:
            raise ConfigurationError(
                _in_plain_words(str(error.diag.message_primary or error).splitlines()[0])
            ) from None
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


def _in_plain_words(message: str) -> str:
    """What the server says of statements that its cursor does not take."""
    if "multi-query plan" in message:
        return "Only one statement is allowed."
    if re.fullmatch(r"cannot open .* as cursor", message):
        return "Only statements that read are allowed: SELECT, WITH, VALUES, TABLE, SHOW, EXPLAIN."
    return message


def _read(cursor: Any, sql: str, bounds: Bounds) -> tuple[list[str], list[tuple[Any, ...]]]:
    """By a cursor that the server opens: it takes one statement only, and only one that reads."""
    from psycopg2.sql import Literal

    _check_words(cursor, sql)
    milliseconds = max(1, int(bounds.seconds * 1000))
    cursor.execute(
        "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)",
        [f"{milliseconds}ms"] * 2,
    )
    cursor.execute("SELECT usesuper FROM pg_catalog.pg_user WHERE usename = current_user")
    if cursor.fetchone() == (True,) and cursor.connection.server_version >= _READ_ALL_DATA_SINCE:
        cursor.execute("SET LOCAL ROLE pg_read_all_data")
    statement = Literal(sql.strip().rstrip(";")).as_string(cursor)
    block = f"DECLARE answer refcursor := 'answer'; BEGIN OPEN answer FOR EXECUTE {statement}; END"
    cursor.execute("DO %s", [block])
    cursor.execute("FETCH FORWARD 0 FROM answer")
    columns = [column[0] for column in cursor.description or ()]

    def fetch(rows: int) -> list[tuple[Any, ...]]:
        cursor.execute(f"FETCH FORWARD {rows} FROM answer")
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    return columns, list(bounds.fetch(fetch))


def _check_words(cursor: Any, sql: str) -> None:
    if re.search(r"\bU&", sql, re.IGNORECASE):
        raise ConfigurationError("names and texts with Unicode escapes (U&) are not allowed here")
    words = sorted({word.lower() for word in re.findall(r"[^\W\d][\w$]*", sql)})
    cursor.execute(_FORBIDDEN, {"words": words, "harmless": _HARMLESS})
    forbidden = cursor.fetchone()
    if forbidden:
        raise ConfigurationError(
            f"{forbidden[0]} is not allowed here: a query reads the tables of the warehouse and nothing else"
        )
