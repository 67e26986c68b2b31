"""Waiting for what was appended to be durable."""

from concurrent.futures import Future

import pytest

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import wait_until_durable


def test_what_is_durable_is_waited_for_no_longer() -> None:
    future: Future[None] = Future()
    future.set_result(None)
    wait_until_durable(future, 0, "it")


def test_a_log_that_needs_too_long_did_not_take_it() -> None:
    with pytest.raises(LogUnavailable, match="did not take the letters within 0 seconds"):
        wait_until_durable(Future(), 0.01, "the letters")


def test_what_the_log_says_itself_is_left_as_it_is() -> None:
    future: Future[None] = Future()
    future.set_exception(LogRefused("too large"))
    with pytest.raises(LogRefused, match="too large"):
        wait_until_durable(future, 0, "it")
