"""The appender, over logs and callers that fail in ways which no interface promises."""

import asyncio
import math
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


class _SlowLog(ControlledLog):
    """A log that has no outcome of an append until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.state = "silent"
        self.appends: list[list[bytes]] = []

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        self.appends.append([record.value for record in records])
        return super().append(topic, records)


async def _come_one_after_the_other(appender: Appender, topic: str = "topic") -> list[_Caller]:
    callers = [_Caller(b"%d" % number) for number in range(10)]
    for caller in callers:
        caller.append(appender, topic)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return callers


@pytest.mark.parametrize("is_polled", [True, False])
def test_with_patience_what_comes_while_an_append_is_under_way_waits_for_its_outcome_and_goes_together(
    is_polled: bool,
) -> None:
    class Log(_SlowLog):
        def poll(self) -> None:
            if is_polled and have_come:
                self.take_silenced()

    have_come: list[_Caller] = []
    log = Log()

    async def run() -> None:
        have_come.extend(await _come_one_after_the_other(Appender(log, _TIMEOUT, patience=math.inf)))
        async with asyncio.timeout(_TIMEOUT / 2):
            while not is_polled and log.order() != [caller.record.value for caller in have_come]:
                await asyncio.to_thread(log.take_silenced)
            for caller in have_come:
                await caller.has_outcome.wait()

    asyncio.run(run())
    assert log.appends == [[b"0"], [b"%d" % number for number in range(1, 10)]]
    assert all(caller.answers == [None] for caller in have_come)


def test_without_patience_no_record_waits_for_the_append_before_it() -> None:
    log = _SlowLog()

    async def run() -> None:
        await _come_one_after_the_other(Appender(log, _TIMEOUT))

    asyncio.run(run())
    assert log.appends == [[b"%d" % number] for number in range(10)]


@pytest.mark.parametrize("patience", [0.0, 0.005])
def test_when_patience_ends_records_go_before_the_append_under_way_has_an_outcome(patience: float) -> None:
    class Log(_SlowLog):
        def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
            if records[-1].value == b"9":
                has_last.set()
            return super().append(topic, records)

    log, has_last = Log(), asyncio.Event()

    async def run() -> None:
        await _come_one_after_the_other(Appender(log, _TIMEOUT, patience))
        async with asyncio.timeout(_TIMEOUT / 2):
            await has_last.wait()

    asyncio.run(run())
    assert [*chain.from_iterable(log.appends)] == [b"%d" % number for number in range(10)]
    assert log.taken == []


def test_a_topic_does_not_wait_for_the_appends_of_another() -> None:
    log = _SlowLog()

    async def run() -> None:
        appender = Appender(log, _TIMEOUT, patience=math.inf)
        await _come_one_after_the_other(appender, "busy")
        log.state = "open"
        other = _Caller(b"other")
        other.append(appender, "other")
        async with asyncio.timeout(_TIMEOUT / 2):
            await other.has_outcome.wait()

    asyncio.run(run())
    assert log.appends == [[b"0"], [b"other"]]


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
