"""Appends deliveries to the log, many of them together under load."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import PolledProducer, Record

_POLL_SECONDS = 0.001  # between two looks for outcomes

Outcome = LogUnavailable | None
"""None when a record is durable; the error when that is not certain."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A record to append, and who is told of its outcome.

    `on_answer` is called once: with the log's outcome, or when that does not come in time. `on_outcome` is
    called with the log's outcome, however late.
    """

    record: Record
    on_answer: Callable[[Outcome], None]
    on_outcome: Callable[[], None]
    is_answered: bool = False

    def answer(self, outcome: Outcome) -> None:
        """Answer whoever waits, unless that was done."""
        if not self.is_answered:
            self.is_answered = True
            self.on_answer(outcome)


class Appender:
    """Appends records for an event loop, many of them with one append of a producer.

    Those of one turn of the loop go together. Under load this saves most of what an append costs: a
    transaction or requests to a broker, a lock, and that a thread of the producer wakes this one. No record
    waits for others: while the log writes one append, the next is under way.
    """

    def __init__(self, producer: PolledProducer, timeout: float) -> None:
        """`timeout` is in how many seconds a record has to be durable."""
        self._producer, self._timeout = producer, timeout
        self._next: dict[str, list[_Entry]] = {}  # by topic, what the next appends have
        self._undone = 0  # appends without an outcome
        self._is_polling = False
        self._retries: set[asyncio.Task[None]] = set()

    def append(
        self,
        topic: str,
        record: Record,
        on_answer: Callable[[Outcome], None],
        on_outcome: Callable[[], None],
    ) -> None:
        """Append a record.

        Calls `on_answer` in the loop when the record is durable, and with an error when that is not certain
        in time; `on_outcome` when the log has acknowledged or refused the record, however late.
        """
        if not self._next:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._continue, loop)
        self._next.setdefault(topic, []).append(_Entry(record, on_answer, on_outcome))

    def _continue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask for outcomes, and append what has come. Repeats itself while an append is under way."""
        try:
            self._producer.poll()
        except Exception as bug:  # noqa: BLE001  or nothing would be appended any more
            _log_bug(bug)
        appends, self._next = self._next, {}
        for topic, entries in appends.items():
            self._append(loop, topic, entries)
        if self._undone and not self._is_polling:
            self._is_polling = True
            loop.call_later(_POLL_SECONDS, self._poll, loop)

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_polling = False
        self._continue(loop)

    def _append(self, loop: asyncio.AbstractEventLoop, topic: str, entries: Sequence[_Entry]) -> None:
        self._undone += 1
        deadline = loop.call_later(self._timeout, _give_up, entries)
        thread_of_loop = threading.get_ident()

        def settle_in_loop(outcome: "Future[None]") -> None:
            if threading.get_ident() == thread_of_loop:
                self._settle(topic, entries, deadline, outcome)
                return
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._settle, topic, entries, deadline, outcome)

        self._append_to_log(topic, entries).add_done_callback(settle_in_loop)

    def _append_to_log(self, topic: str, entries: Iterable[_Entry]) -> "Future[None]":
        """Append records. Raises nothing: a bug of the log is the outcome of these records alone."""
        try:
            return self._producer.append(topic, [entry.record for entry in entries])
        except Exception as error:  # noqa: BLE001
            failed: Future[None] = Future()
            failed.set_exception(LogUnavailable(f"the log failed: {error!r}"))
            return failed

    def _settle(
        self,
        topic: str,
        entries: Sequence[_Entry],
        deadline: asyncio.TimerHandle,
        outcome: "Future[None]",
    ) -> None:
        error = outcome.exception()
        if isinstance(error, LogRefused) and len(entries) > 1:
            retry = asyncio.get_running_loop().create_task(self._append_apart(topic, entries, deadline))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)
            return
        self._end(deadline)
        _resolve(entries, error)

    async def _append_apart(
        self, topic: str, entries: Sequence[_Entry], deadline: asyncio.TimerHandle
    ) -> None:
        """Append records one after the other, because it is not known which of them the log refuses.

        Those that it took before are there twice then, which changes nothing.
        """
        for entry in entries:
            future = self._append_to_log(topic, [entry])
            await asyncio.wait([asyncio.wrap_future(future)])
            _resolve([entry], future.exception())
        self._end(deadline)

    def _end(self, deadline: asyncio.TimerHandle) -> None:
        deadline.cancel()
        self._undone -= 1


def _resolve(entries: Iterable[_Entry], error: BaseException | None) -> None:
    for entry in entries:
        try:
            entry.on_outcome()
            entry.answer(None if error is None else LogUnavailable(str(error)))
        except Exception as bug:  # noqa: BLE001  which must not keep the others from their answers
            _log_bug(bug)


def _give_up(entries: Iterable[_Entry]) -> None:
    for entry in entries:
        try:
            entry.answer(LogUnavailable("the log did not acknowledge within receiver.append_timeout"))
        except Exception as bug:  # noqa: BLE001  as above
            _log_bug(bug)


def _log_bug(error: Exception) -> None:
    context = {"message": "A caller of the appender failed.", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
