"""The appender, over logs and callers that fail in ways which no interface promises."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import chain

import pytest

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Record
from receivers.appender import Appender, Outcome
from tests.receivers.controlled_log import ControlledLog

_TIMEOUT = 30.0


class _Bug(Exception):
    """A bug of a log, or of a caller."""


class _Caller:
    """A caller of the appender, and what it was told."""

    def __init__(self, value: bytes = b"value") -> None:
        self.record = Record("key", value)
        self.answers: list[Outcome] = []
        self.outcomes = 0
        self.has_answer, self.has_outcome = asyncio.Event(), asyncio.Event()

    def append(self, appender: Appender, topic: str = "topic") -> None:
        appender.append(topic, self.record, self.on_answer, self.on_outcome)

    def on_answer(self, outcome: Outcome) -> None:
        self.answers.append(outcome)
        self.has_answer.set()

    def on_outcome(self) -> None:
        self.outcomes += 1
        self.has_outcome.set()


class _BuggyCaller(_Caller):
    def on_answer(self, outcome: Outcome) -> None:
        super().on_answer(outcome)
        raise _Bug


def _raise(_: str, __: Sequence[Record]) -> "Future[None]":
    raise _Bug("a bug of the log")


def _fail(_: str, __: Sequence[Record]) -> "Future[None]":
    future: Future[None] = Future()
    future.set_exception(_Bug("a bug of the log"))
    return future


class _BuggyLog(ControlledLog):
    """A log that fails appends to a topic, those of several records by refusing them where `refuses`."""

    def __init__(
        self, append: Callable[[str, Sequence[Record]], "Future[None]"], *, refuses: bool = False
    ) -> None:
        super().__init__()
        self._append, self._refuses = append, refuses

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        if topic != "buggy":
            return super().append(topic, records)
        if self._refuses and len(records) > 1:
            future: Future[None] = Future()
            future.set_exception(LogRefused("one of them is too large"))
            return future
        return self._append(topic, records)


def _run(appender_log: ControlledLog, topics: dict[str, list[_Caller]]) -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        appender = Appender(appender_log, _TIMEOUT)
        for topic, callers in topics.items():
            for caller in callers:
                caller.append(appender, topic)
        async with asyncio.timeout(_TIMEOUT / 2):
            for caller in chain.from_iterable(topics.values()):
                await caller.has_outcome.wait()

    asyncio.run(run())


def test_a_caller_that_fails_keeps_no_other_from_its_answer() -> None:
    buggy, other = _BuggyCaller(), _Caller()
    _run(ControlledLog(), {"topic": [buggy, other]})
    assert (buggy.outcomes, other.outcomes, other.answers) == (1, 1, [None])


@pytest.mark.parametrize("append", [_raise, _fail])
@pytest.mark.parametrize("refuses", [False, True])
def test_a_bug_of_the_log_is_an_outcome_of_its_append_alone(
    append: Callable[[str, Sequence[Record]], "Future[None]"], refuses: bool
) -> None:
    failed, other = [_Caller(), _Caller()], _Caller()
    _run(_BuggyLog(append, refuses=refuses), {"buggy": failed, "topic": [other]})
    assert [caller.outcomes for caller in failed] == [1, 1]
    assert all(isinstance(caller.answers[0], LogUnavailable) for caller in failed)
    assert other.answers == [None]


def test_a_log_that_cannot_be_asked_for_outcomes_is_appended_to() -> None:
    class Log(ControlledLog):
        def poll(self) -> None:
            raise _Bug("a bug of the log")

    caller = _Caller()
    _run(Log(), {"topic": [caller]})
    assert caller.answers == [None]


def test_the_log_is_asked_for_each_of_the_records_that_it_refused_together() -> None:
    good, refused, last = _Caller(), _Caller(b"too large"), _Caller()
    _run(ControlledLog(), {"topic": [good, refused, last]})
    assert good.answers == last.answers == [None]
    assert isinstance(refused.answers[0], LogUnavailable)


def test_a_lone_record_that_is_refused_is_not_appended_again() -> None:
    appends = 0

    class Log(ControlledLog):
        def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
            nonlocal appends
            appends += 1
            return super().append(topic, records)

    refused = _Caller(b"too large")
    _run(Log(), {"topic": [refused]})
    assert isinstance(refused.answers[0], LogUnavailable)
    assert appends == 1


def test_what_comes_while_an_append_is_under_way_does_not_wait_for_it_and_goes_in_order() -> None:
    appends: list[list[bytes]] = []

    class SlowLog(ControlledLog):
        """A log that has the outcome of each append when it is polled."""

        def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
            appends.append([record.value for record in records])
            self.state = "silent"
            return super().append(topic, records)

        def poll(self) -> None:
            if len(callers) == 10:  # all have come
                self.take_silenced()

    callers: list[_Caller] = []

    async def run() -> None:
        appender = Appender(SlowLog(), _TIMEOUT)
        for number in range(10):
            caller = _Caller(b"%d" % number)
            caller.append(appender)
            callers.append(caller)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        async with asyncio.timeout(_TIMEOUT / 2):
            for caller in callers:
                await caller.has_outcome.wait()

    asyncio.run(run())
    assert appends == [[b"%d" % number] for number in range(10)]
    assert all(caller.answers == [None] for caller in callers)


def test_records_of_one_turn_go_together_and_each_topic_apart() -> None:
    appends: list[tuple[str, Sequence[Record]]] = []

    class Log(ControlledLog):
        def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
            appends.append((topic, records))
            return super().append(topic, records)

    first, second, third = _Caller(b"1"), _Caller(b"2"), _Caller(b"3")
    _run(Log(), {"a": [first, second], "b": [third]})
    assert appends == [("a", [first.record, second.record]), ("b", [third.record])]


def test_a_log_that_is_silent_is_given_up_and_its_late_outcome_is_passed_on() -> None:
    log, caller = ControlledLog(), _Caller()
    log.state = "silent"

    async def run() -> None:
        caller.append(Appender(log, 0.01))
        async with asyncio.timeout(_TIMEOUT):
            await caller.has_answer.wait()
            assert caller.outcomes == 0
            log.take_silenced()
            await caller.has_outcome.wait()

    asyncio.run(run())
    assert [type(answer) for answer in caller.answers] == [LogUnavailable]
