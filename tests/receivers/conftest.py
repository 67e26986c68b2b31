"""A receiver to test: its application in this process, or processes of its own."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import pytest

from tests.receivers.in_process import InProcess
from tests.receivers.requests import SECRET
from tests.receivers.running import Receiver


class Start(Protocol):
    """Starts receivers with settings of the test, and stops them when the test ends."""

    def __call__(self, command: Sequence[str] = (), /, **settings: str) -> Receiver: ...


@pytest.fixture(params=["whole requests", "requests in parts"])
def receiver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    """Return an application with a small limit for bodies and short time limits.

    It has two ways to answer a delivery, which have to be the same for whoever sends it.
    """
    accounts = {"sales": {"vendor": "calendly", "webhook_secrets": [SECRET, "the-secret-before"]}}
    limits = {"body_limit": 4096, "body_timeout": "100ms", "append_timeout": "2s", "in_flight_limit": 8192}
    with closing(InProcess(tmp_path, accounts, receiver=limits)) as running:
        running.requests_arrive_whole = request.param == "whole requests"
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as started:

        def start_receiver(command: Sequence[str] = (), /, **settings: str) -> Receiver:
            return started.enter_context(closing(Receiver(tmp_path, command, **settings)))

        yield start_receiver
