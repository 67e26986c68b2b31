"""Bounds of a question that somebody asks the warehouse: in time, in rows and in memory. It can be stopped at any moment."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, TypeVar

from ingest.errors import ConfigurationError

Result = TypeVar("Result")

# Without a limit of its own a question that has more rows is refused: cut off silently, an export would not be whole.
MOST_ROWS = 100_000
_MOST_BYTES = 512 * 1024 * 1024
_FETCH_ROWS = 200
# How long a question that is stopped may take to end. Then nobody waits for it any more.
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`rows`: the answer ends there; None to refuse one of more than MOST_ROWS."""

    seconds: float
    rows: int | None = None

    def too_long(self) -> ConfigurationError:
        """Return what is raised where the time is over."""
        return ConfigurationError(f"the query took longer than {self.seconds:g} s: ask for less, or give it more time with --timeout")

    def fetch(self, fetch_many: Callable[[int], Sequence[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
        """The rows. Raises ConfigurationError where they are too many or too large."""
        most, size, number = self.rows if self.rows is not None else MOST_ROWS + 1, 0, 0
        while number < most and (rows := fetch_many(min(_FETCH_ROWS, most - number))):
            number += len(rows)
            size += sum(map(getsizeof, (value for row in rows for value in row)))
            if self.rows is None and number > MOST_ROWS:
                raise ConfigurationError(f"the answer has more than {MOST_ROWS} rows: ask for fewer, or say with --limit how many you want")
            if size > _MOST_BYTES:
                raise ConfigurationError(f"the answer is larger than {_MOST_BYTES // 1024**2} MiB: ask for fewer columns or rows")
            yield from rows


class Question:
    """What whoever waits for an answer knows of the thread that asks: when it begins, and how it is stopped."""

    def __init__(self) -> None:
        self._began = threading.Event()
        self._stop: Callable[[], object] = lambda: None

    def begin(self, stop: Callable[[], object]) -> None:
        """Its time begins. `stop` may be called from another thread."""
        self._stop = stop
        self._began.set()

    def answer(self, ask: Callable[["Question"], Result], bounds: Bounds) -> Result:
        """Ask in a thread, so that neither a library nor a server that hears nothing keeps Ctrl-C waiting. Raises ConfigurationError after the time."""
        future: Future[Result] = Future()
        threading.Thread(target=self._run, args=(ask, future), name="query", daemon=True).start()
        try:
            self._began.wait()
            if not wait([future], bounds.seconds).done:
                self._end(future)
                raise bounds.too_long()
            return future.result()
        except KeyboardInterrupt:
            self._end(future)
            raise

    def _run(self, ask: Callable[["Question"], Result], future: "Future[Result]") -> None:
        try:
            future.set_result(ask(self))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(error)
        finally:
            self._began.set()

    def _end(self, future: "Future[Any]") -> None:
        self._stop()
        wait([future], _GRACE_SECONDS)
