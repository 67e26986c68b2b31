"""The reading side of the warehouse: results of queries, their values, and their bounds.

The modules beside this one read the destination and its tables, also while a consumer writes to them.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import chain, count
from sys import getsizeof
from typing import Any, TypeVar

import orjson

from ingest.errors import ConfigurationError, PayloadError, UnreadableValue
from ingest.threads import run_in_thread
from ingest.times import parse_instant

Result = TypeVar("Result")

# The version of a row of `bookings`: the vendor's version, which begins with a digit, and the time of the
# event.
_VERSION_PATTERNS = [f"{digit}%/____-__-__T%Z" for digit in range(10)]
_VERSION = re.compile(
    "|".join(pattern.replace("_", ".").replace("%", ".*") for pattern in _VERSION_PATTERNS), re.DOTALL
)
HAS_VERSION = " OR ".join(f"version LIKE '{pattern}'" for pattern in _VERSION_PATTERNS)
"""The condition of rows with a version, in SQL that every destination has."""

# A query with more rows and no limit is refused: an export that is cut off silently would lack rows.
MOST_ROWS = 100_000
_MOST_BYTES = 512 * 1024 * 1024
_ROWS_PER_FETCH = 200
# How long to wait for a cancelled query.
_GRACE_SECONDS = 1.0


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


def in_utc(value: Any, naive_zone: tzinfo | None = None) -> Any:
    """Return an instant in UTC, and any other value as it is. `naive_zone` is that of times without one."""
    if not isinstance(value, datetime):
        return value
    return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=naive_zone)


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return names of columns with repetitions numbered (id, id_2), so that none hides another one."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        distinct.append(next(new for new in chain([name], numbered) if new not in distinct))
    return distinct


@dataclass(frozen=True, slots=True)
class Bounds:
    """The time a query may take, and after how many rows its result ends.

    Without a number of `rows`, a result of more than MOST_ROWS is refused.
    """

    seconds: float
    rows: int | None = None

    def timeout_error(self) -> ConfigurationError:
        """Return the error of a query that took too long."""
        return ConfigurationError(
            f"the query took longer than {self.seconds:g} s: ask for less, or give it more time with"
            " `ingest query --timeout`"
        )

    def fetch(self, fetch_many: Callable[[int], Sequence[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Raises ConfigurationError when they are too many or too large."""
        most, size, number = self.rows if self.rows is not None else MOST_ROWS + 1, 0, 0
        while number < most and (rows := fetch_many(min(_ROWS_PER_FETCH, most - number))):
            number += len(rows)
            size += sum(map(_memory_of, rows))
            if self.rows is None and number > MOST_ROWS:
                raise ConfigurationError(
                    f"the answer has more than {MOST_ROWS} rows: ask for fewer, or say how many you want with"
                    " `ingest query --limit`"
                )
            if size > _MOST_BYTES:
                raise ConfigurationError(
                    f"the answer is larger than {_MOST_BYTES // 1024**2} MiB: ask for fewer columns or rows"
                )
            yield from rows


def _memory_of(value: Any) -> int:
    """Return about how many bytes of memory a value takes, with everything in it."""
    match value:
        case dict():
            return getsizeof(value) + sum(map(_memory_of, value.items()))
        case list() | tuple():
            return getsizeof(value) + sum(map(_memory_of, value))
        case _:
            return getsizeof(value)


class RunningQuery:
    """A query in a thread of its own, so that Ctrl-C works while a library or a server does not react."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._cancel: Callable[[], object] = lambda: None

    def start(self, cancel: Callable[[], object]) -> None:
        """Start the query's time. `cancel` may be called from another thread."""
        self._cancel = cancel
        self._started.set()

    def result(self, query: Callable[["RunningQuery"], Result], bounds: Bounds) -> Result:
        """Run `query`, which has to call `start`, and return its result.

        Raises what it raises, and ConfigurationError when its time is over.
        """

        def run() -> Result:
            try:
                return query(self)
            finally:
                self._started.set()

        future = run_in_thread(run, "query")
        try:
            self._started.wait()
            if not wait([future], bounds.seconds).done:
                self._cancel_and_wait(future)
                raise bounds.timeout_error()
            return future.result()
        except KeyboardInterrupt:
            self._cancel_and_wait(future)
            raise

    def _cancel_and_wait(self, future: "Future[Any]") -> None:
        self._cancel()
        wait([future], _GRACE_SECONDS)
