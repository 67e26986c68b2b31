"""Records of many coroutines in one append: who is told what, whatever the log and the callers do."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from ingest.errors import LogUnavailable
from ingest.log import Record
from receivers.appender import Appender
from tests.receivers.controlled_log import ControlledLog

GOOD, OTHER = Record("key", b"good"), Record("other", b"other")


async def outcomes(appender: Appender, *records: tuple[str, Record]) -> list[LogUnavailable | None]:
    """Append records in one turn of the loop, and return what each caller is told."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[LogUnavailable | None]] = []
    for topic, record in records:
        futures.append(loop.create_future())
        appender.append(topic, record, futures[-1].set_result, lambda: None)
    return await asyncio.gather(*futures)


def test_records_of_one_turn_go_together_and_each_topic_apart() -> None:
    appends: list[tuple[str, Sequence[Record]]] = []

    class Log(ControlledLog):
        def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
            appends.append((topic, records))
            return super().append(topic, records)

    result = asyncio.run(outcomes(Appender(Log(), 5), ("a", GOOD), ("b", OTHER), ("a", OTHER)))
    assert result == [None, None, None]
    assert appends == [("a", [GOOD, OTHER]), ("b", [OTHER])]


def test_a_record_that_the_log_refuses_fails_alone_and_the_order_of_the_others_stays() -> None:
    log = ControlledLog()
    refused = Record("key", log.refused)
    result = asyncio.run(outcomes(Appender(log, 5), ("a", GOOD), ("a", refused), ("a", OTHER)))
    assert [type(outcome) for outcome in result] == [type(None), LogUnavailable, type(None)]
    assert log.order() == [b"good", b"other"]


def test_a_log_that_is_silent_is_given_up_and_its_late_outcome_is_passed_on() -> None:
    log, resolved = ControlledLog(), list[str]()
    log.state = "silent"

    async def scenario() -> None:
        answered: asyncio.Future[LogUnavailable | None] = asyncio.get_running_loop().create_future()
        Appender(log, 0.01).append("a", GOOD, answered.set_result, lambda: resolved.append("late"))
        assert isinstance(await answered, LogUnavailable)
        assert resolved == []
        log.take_silenced()
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert resolved == ["late"]


@pytest.mark.parametrize("state", ["open", "failing"])
def test_a_bug_in_one_answer_keeps_nobody_else_from_theirs(state: str) -> None:
    log = ControlledLog()
    log.state = state  # type: ignore[assignment]  # one of its words
    reported = list[object]()

    def crash(_: LogUnavailable | None) -> None:
        raise ZeroDivisionError

    async def scenario() -> list[LogUnavailable | None]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        appender = Appender(log, 5)
        appender.append("a", GOOD, crash, lambda: None)
        return await outcomes(appender, ("a", OTHER))

    (outcome,) = asyncio.run(scenario())
    assert (outcome is None) == (state == "open")
    assert len(reported) == 1


def test_a_bug_in_the_log_is_an_error_for_its_topic_alone() -> None:
    class Log(ControlledLog):
        def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
            if topic == "a":
                raise ZeroDivisionError
            return super().append(topic, records)

    first, second = asyncio.run(outcomes(Appender(Log(), 5), ("a", GOOD), ("b", OTHER)))
    assert isinstance(first, LogUnavailable)
    assert second is None
