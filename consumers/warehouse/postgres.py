"""What psycopg2 makes of PostgreSQL's values: never an error, and JSON as the text it is."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ingest.warehouse_values import JsonText

# The oid of each type and of its arrays: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_TIMES = {"date": (1082, 1182), "time": (1083, 1183), "timestamp": (1114, 1115), "timestamptz": (1184, 1185), "timetz": (1266, 1270)}
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
