"""Bounds of a user's query in time, rows and memory, and a thread in which it can be cancelled."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, TypeVar

from ingest.errors import ConfigurationError

Result = TypeVar("Result")

# A query with more rows and no limit is refused: an export that is cut off silently would lack rows.
MOST_ROWS = 100_000
_MOST_BYTES = 512 * 1024 * 1024
_ROWS_PER_FETCH = 200
# How long to wait for a cancelled query.
_GRACE_SECONDS = 1.0


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
            " --timeout"
        )

    def fetch(self, fetch_many: Callable[[int], Sequence[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Raises ConfigurationError when they are too many or too large."""
        most, size, number = self.rows if self.rows is not None else MOST_ROWS + 1, 0, 0
        while number < most and (rows := fetch_many(min(_ROWS_PER_FETCH, most - number))):
            number += len(rows)
            size += sum(map(_memory_of, rows))
            if self.rows is None and number > MOST_ROWS:
                raise ConfigurationError(
                    f"the answer has more than {MOST_ROWS} rows: ask for fewer, or say with --limit how many"
                    " you want"
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
        future: Future[Result] = Future()
        threading.Thread(target=self._run, args=(query, future), name="query", daemon=True).start()
        try:
            self._started.wait()
            if not wait([future], bounds.seconds).done:
                self._cancel_and_wait(future)
                raise bounds.timeout_error()
            return future.result()
        except KeyboardInterrupt:
            self._cancel_and_wait(future)
            raise

    def _run(self, query: Callable[["RunningQuery"], Result], future: "Future[Result]") -> None:
        try:
            future.set_result(query(self))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(error)
        finally:
            self._started.set()

    def _cancel_and_wait(self, future: "Future[Any]") -> None:
        self._cancel()
        wait([future], _GRACE_SECONDS)
