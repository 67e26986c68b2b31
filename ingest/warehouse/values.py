"""Values and results as a destination returns them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from typing import Any

import orjson

from ingest.errors import PayloadError, UnreadableValue
from ingest.instant import parse_instant

# The version of a row of `bookings`: the vendor's version, which begins with a digit, and the time of the
# event.
_VERSION_PATTERNS = [f"{digit}%/____-__-__T%Z" for digit in range(10)]
_VERSION = re.compile(
    "|".join(pattern.replace("_", ".").replace("%", ".*") for pattern in _VERSION_PATTERNS), re.DOTALL
)
HAS_VERSION = " OR ".join(f"version LIKE '{pattern}'" for pattern in _VERSION_PATTERNS)
"""The condition of rows with a version, in SQL that every destination has."""


class JsonText(str):
    """The text of a JSON value, exactly as the destination has it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The columns of a query, each name once, and its rows. Instants are in UTC."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


EMPTY_RESULT = QueryResult((), ())


def parsed_json(value: Any) -> Any:
    """Return the value of a JSON column, which some destinations return parsed, and others as text."""
    return orjson.loads(str(value)) if isinstance(value, str) else value  # orjson takes no subclass


@contextmanager
def readable_values() -> Iterator[None]:
    """Raise UnreadableValue where Python cannot make a value of what the destination returned."""
    try:
        yield
    except (ArithmeticError, ValueError, RecursionError) as error:
        raise UnreadableValue(
            f"a value of the answer cannot be read ({type(error).__name__}: {error});"
            " cast its column to text: select starts_at::text …"
        ) from error


def is_version(value: Any) -> bool:
    """Return whether a value can be the version of a row of `bookings`."""
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        return False
    try:
        parse_instant(value.rpartition("/")[2])
    except PayloadError:
        return False
    return True


def is_instant(column: str) -> bool:
    """Return whether a column of `bookings` holds instants."""
    return column.endswith("_at")


def in_utc(value: Any) -> Any:
    """Return an instant in UTC, and any other value as it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return names of columns with repetitions numbered (id, id_2), so that none hides another one."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        distinct.append(next(new for new in chain([name], numbered) if new not in distinct))
    return distinct
