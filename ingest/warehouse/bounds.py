"""Bounds of a query that somebody wrote: in time, in rows and in memory. It can be cancelled at any moment."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, TypeVar

from ingest.errors import ConfigurationError

Result = TypeVar("Result")

# A query that has more rows and no limit of its own is refused: cut off silently, an export would not be whole.
MOST_ROWS = 100_000
_MOST_BYTES = 512 * 1024 * 1024
_FETCH_ROWS = 200
# How long a cancelled query is waited for.
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a query may take. `rows`: the answer ends there; None to refuse one of more than MOST_ROWS."""

    seconds: float
    rows: int | None = None

    def too_long(self) -> ConfigurationError:
        """Make the error of a query whose time is over."""
        return ConfigurationError(
            f"the query took longer than {self.seconds:g} s: ask for less, or give it more time with --timeout"
        )

    def fetch(self, fetch_many: Callable[[int], Sequence[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows. Raises ConfigurationError where they are too many or too large."""
        most, size, number = self.rows if self.rows is not None else MOST_ROWS + 1, 0, 0
        while number < most and (rows := fetch_many(min(_FETCH_ROWS, most - number))):
            number += len(rows)
            size += sum(map(getsizeof, (value for row in rows for value in row)))
            if self.rows is None and number > MOST_ROWS:
                raise ConfigurationError(
                    f"the answer has more than {MOST_ROWS} rows: ask for fewer, or say with --limit how many you want"
                )
            if size > _MOST_BYTES:
                raise ConfigurationError(
                    f"the answer is larger than {_MOST_BYTES // 1024**2} MiB: ask for fewer columns or rows"
                )
            yield from rows


class RunningQuery:
    """A query in a thread of its own: neither a library nor a server that hears nothing keeps Ctrl-C waiting."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._cancel: Callable[[], object] = lambda: None

    def start(self, cancel: Callable[[], object]) -> None:
        """Note that its time begins now. `cancel` may be called from another thread."""
        self._cancel = cancel
        self._started.set()

    def result(self, query: Callable[["RunningQuery"], Result], bounds: Bounds) -> Result:
        """Run `query`, which calls `start`, and return what it returns. Raises what it raises, and ConfigurationError after the time."""
        future: Future[Result] = Future()
        threading.Thread(target=self._run, args=(query, future), name="query", daemon=True).start()
        try:
            self._started.wait()
            if not wait([future], bounds.seconds).done:
                self._give_up(future)
                raise bounds.too_long()
            return future.result()
        except KeyboardInterrupt:
            self._give_up(future)
            raise

    def _run(self, query: Callable[["RunningQuery"], Result], future: "Future[Result]") -> None:
        try:
            future.set_result(query(self))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(error)
        finally:
            self._started.set()

    def _give_up(self, future: "Future[Any]") -> None:
        self._cancel()
        wait([future], _GRACE_SECONDS)
