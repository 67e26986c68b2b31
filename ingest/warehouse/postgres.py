"""Values of PostgreSQL that psycopg2 cannot represent, and users' statements, which may only read."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ingest.errors import ConfigurationError, NoSuchTable
from ingest.warehouse import Bounds, JsonText

# The oid of each type and of its arrays:
# https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_TIMES = {
    "date": (1082, 1182),
    "time": (1083, 1183),
    "timestamp": (1114, 1115),
    "timestamptz": (1184, 1185),
    "timetz": (1266, 1270),
    "interval": (1186, 1187),
}
_JSON = {"json": (114, 199), "jsonb": (3802, 3807)}
_INFINITE = {"infinity", "-infinity"}
_END_OF_DAY = "24:"  # psycopg2 makes it the day's beginning

_Cast = Callable[[str | None, Any], Any]


def keep_times(connection: Any) -> None:
    """Make a connection return times that Python cannot represent as text: 24:00, infinity, before year 1."""
    _register(connection, _TIMES, _time_or_text)


def keep_json(connection: Any) -> None:
    """Make a connection return JSON as JsonText: parsed numbers would lose digits, if they can be parsed."""
    _register(connection, _JSON, lambda _oid: lambda text, _cursor: None if text is None else JsonText(text))


def _register(
    connection: Any, oids: Mapping[str, tuple[int, int]], make_cast: Callable[[int], _Cast]
) -> None:
    """Make a connection convert values of these types, and of their arrays."""
    from psycopg2.extensions import new_array_type, new_type, register_type

    for name, (oid, array) in oids.items():
        type_ = new_type((oid,), name, make_cast(oid))
        register_type(type_, connection)
        register_type(new_array_type((array,), f"{name}[]", type_), connection)


def _time_or_text(oid: int) -> _Cast:
    """Return a conversion to psycopg2's value, or to text where there is none."""
    from psycopg2.extensions import string_types

    psycopg2_cast = string_types[oid]

    def cast(text: str | None, cursor: Any) -> Any:
        try:
            is_text = text in _INFINITE or (text or "").startswith(_END_OF_DAY)
            return text if is_text else psycopg2_cast(text, cursor)
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
# In a read-only transaction functions can still read and write the server's files, end sessions, or run SQL
# that they get as text, and an administrator can read everybody's passwords. So a query may name nothing that
# is volatile or that not everybody may use.
_FORBIDDEN = """
    SELECT proname FROM pg_catalog.pg_proc AS found
    WHERE lower(proname) = ANY(%(words)s) AND proname <> ALL(%(harmless)s)
      AND prorettype NOT IN ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype)
      AND (provolatile = 'v' OR NOT has_function_privilege('public', found.oid, 'execute')
           OR proname ~ '^(crosstab|connectby|xpath_table)')
    UNION SELECT relname FROM pg_catalog.pg_class AS found
    WHERE lower(relname) = ANY(%(words)s) AND relnamespace = 'pg_catalog'::regnamespace
      AND NOT has_table_privilege('public', found.oid, 'select')
    LIMIT 1
"""
_READ_ALL_DATA_SINCE = 140_000


def read_only(connection: Any, sql: str, bounds: Bounds) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one statement in a transaction that only reads and ends in time; return column names and rows.

    Raises ConfigurationError, of it NoSuchTable.
    """
    import psycopg2

    with connection.cursor() as cursor:
        cursor.execute("BEGIN READ ONLY")
        try:
            return _read(cursor, sql, bounds)
        except psycopg2.errors.QueryCanceled:
            raise bounds.timeout_error() from None
        except psycopg2.errors.UndefinedTable as error:
            raise NoSuchTable(str(error.diag.message_primary)) from None
        except psycopg2.OperationalError:
            raise
        except psycopg2.Error as error:
            message = str(error.diag.message_primary or error).splitlines()[0]
            # The server's messages about statements that its cursor does not take.
            if "multi-query plan" in message:
                message = "Only one statement is allowed."
            elif re.fullmatch(r"cannot open .* as cursor", message):
                message = "Only statements that read are allowed: SELECT, WITH, VALUES, TABLE, SHOW, EXPLAIN."
            raise ConfigurationError(message) from None
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


def _read(cursor: Any, sql: str, bounds: Bounds) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Read by a cursor that the server opens, which takes only one statement, and only one that reads."""
    from psycopg2.sql import Literal

    _check_names(cursor, sql)
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
        fetched: list[tuple[Any, ...]] = cursor.fetchall()
        return fetched

    return columns, list(bounds.fetch(fetch))


def _check_names(cursor: Any, sql: str) -> None:
    if re.search(r"\bU&", sql, re.IGNORECASE):
        raise ConfigurationError("names and texts with Unicode escapes (U&) are not allowed here")
    words = sorted({word.lower() for word in re.findall(r"[^\W\d][\w$]*", sql)})
    cursor.execute(_FORBIDDEN, {"words": words, "harmless": _HARMLESS})
    forbidden = cursor.fetchone()
    if forbidden:
        raise ConfigurationError(
            f"{forbidden[0]} is not allowed here: a query reads the tables of the warehouse and nothing else"
        )
