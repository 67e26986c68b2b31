"""Appends deliveries to the log: those that arrive in one turn of the event loop go together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Producer, Record


@dataclass(slots=True, eq=False)
class _Entry:
    """A record to append, and who waits for its outcome.

    `acknowledged` may fail before the log has an outcome; `on_outcome` is called when it has.
    """

    record: Record
    acknowledged: "asyncio.Future[None]"
    on_outcome: Callable[[], None]

    def resolve(self, error: BaseException | None) -> None:
        """Pass on the log's outcome."""
        self.on_outcome()
        if self.acknowledged.done():
            return  # nobody waits any more
        if error is None:
            self.acknowledged.set_result(None)
        else:
            self.acknowledged.set_exception(LogUnavailable(str(error)))


class Appender:
    """Appends records for coroutines of one event loop, many of them with one append of a producer.

    Under load this saves most of what an append costs: a transaction or a request to a broker, a lock, and
    above all that the producer's thread wakes this one. A lone record does not wait for others.
    """

    def __init__(self, producer: Producer, timeout: float) -> None:
        """`timeout` is in how many seconds a record has to be durable."""
        self._producer, self._timeout = producer, timeout
        self._next: dict[str, list[_Entry]] = {}  # by topic, what the next appends have
        self._retries: set[asyncio.Task[None]] = set()

    def append(self, topic: str, record: Record, on_outcome: Callable[[], None]) -> "asyncio.Future[None]":
        """Append a record.

        The future resolves when the record is durable, and fails with LogUnavailable when that is not certain
        in time. `on_outcome` is called when the log has acknowledged or refused the record, however late.
        """
        loop = asyncio.get_running_loop()
        if not self._next:
            loop.call_soon(self._append_together, loop)
        entry = _Entry(record, loop.create_future(), on_outcome)
        self._next.setdefault(topic, []).append(entry)
        return entry.acknowledged

    def _append_together(self, loop: asyncio.AbstractEventLoop) -> None:
        appends, self._next = self._next, {}
        for topic, entries in appends.items():
            self._append(loop, topic, entries)

    def _append(self, loop: asyncio.AbstractEventLoop, topic: str, entries: Sequence[_Entry]) -> None:
        deadline = loop.call_later(self._timeout, _give_up, entries)

        def settle_in_loop(outcome: "Future[None]") -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._settle, topic, entries, deadline, outcome)

        future = self._producer.append(topic, [entry.record for entry in entries])
        future.add_done_callback(settle_in_loop)

    def _settle(
        self,
        topic: str,
        entries: Sequence[_Entry],
        deadline: asyncio.TimerHandle,
        outcome: "Future[None]",
    ) -> None:
        error = outcome.exception()
        if isinstance(error, LogRefused):
            retry = asyncio.get_running_loop().create_task(self._append_apart(topic, entries, deadline))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)
            return
        deadline.cancel()
        for entry in entries:
            entry.resolve(error)

    async def _append_apart(
        self, topic: str, entries: Sequence[_Entry], deadline: asyncio.TimerHandle
    ) -> None:
        """Append records one after the other, because it is not known which of them the log refuses.

        Those that it took before are there twice then, which changes nothing.
        """
        for entry in entries:
            future = self._producer.append(topic, [entry.record])
            with suppress(LogUnavailable):
                await asyncio.wrap_future(future)
            entry.resolve(future.exception())
        deadline.cancel()


def _give_up(entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if not entry.acknowledged.done():
            entry.acknowledged.set_exception(
                LogUnavailable("the log did not acknowledge within receiver.append_timeout")
            )
