"""Appends deliveries to the log, many of them together under load."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class _Topic:
    """The records of a topic that the next append has, when the first of them came, and appends under way."""

    entries: list[_Entry] = field(default_factory=list)
    since: float = 0.0
    under_way: int = 0

    def add(self, entry: _Entry, now: float) -> None:
        """Add a record that came now."""
        if not self.entries:
            self.since = now
        self.entries.append(entry)

    def take(self, now: float, patience: float) -> list[_Entry]:
        """Return the records to append now; none where they wait for an append under way."""
        if self.under_way and now - self.since < patience:
            return []
        taken, self.entries = self.entries, []
        return taken


class Appender:
    """Appends records for an event loop, many of them with one append of a producer.

    Those of one turn of the loop go together, and with patience also those that come while an append of their
    topic is under way. The more comes, the more go together, and where little comes, nothing waits. Under
    load this saves most of what an append costs: requests to brokers, a lock, and that a thread of the
    producer wakes this one.
    """

    def __init__(self, producer: PolledProducer, timeout: float, patience: float = 0.0) -> None:
        """Append by this producer.

        `timeout` is in how many seconds a record has to be durable. `patience` is for how many a record may
        wait for the append before it; none where the log itself puts together what waits.
        """
        self._producer, self._timeout, self._patience = producer, timeout, patience
        self._topics: defaultdict[str, _Topic] = defaultdict(_Topic)
        self._will_continue = self._is_polling = False
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
        loop = asyncio.get_running_loop()
        self._continue_soon(loop)
        self._topics[topic].add(_Entry(record, on_answer, on_outcome), loop.time())

    def _continue_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Continue at the end of this turn of the loop."""
        if not self._will_continue:
            self._will_continue = True
            loop.call_soon(self._continue, loop)

    def _continue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask for outcomes, and append what has come. Repeats itself while an append is under way."""
        self._will_continue = False
        try:
            self._producer.poll()
        except Exception as bug:  # noqa: BLE001  or nothing would be appended any more
            _log_bug(bug)
        is_busy, now = False, loop.time()
        for name, topic in [*self._topics.items()]:
            if entries := topic.take(now, self._patience):
                self._append(loop, name, entries)
            is_busy |= topic.under_way > 0
        if is_busy and not self._is_polling:
            self._is_polling = True
            loop.call_later(_POLL_SECONDS, self._poll, loop)

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_polling = False
        self._continue(loop)

    def _append(self, loop: asyncio.AbstractEventLoop, topic: str, entries: Sequence[_Entry]) -> None:
        self._topics[topic].under_way += 1
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
        self._end(topic, deadline)
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
        self._end(topic, deadline)

    def _end(self, topic: str, deadline: asyncio.TimerHandle) -> None:
        deadline.cancel()
        ended = self._topics[topic]
        ended.under_way -= 1
        if ended.entries:
            self._continue_soon(asyncio.get_running_loop())


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
