"""The time of a simulation, and a `datetime` that tells it to the product."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from unittest.mock import patch

START = datetime(2026, 1, 1, tzinfo=UTC)
_MODULES = (
    "ingest.rest.adapter",
    "ingest.vendors.rest",
    "receivers.completeness.finding",
    "receivers.completeness.ledger",
    "receivers.life",
    "receivers.reconcile.checkpoint",
    "receivers.reconcile.run",
)


class Clock:
    """The true time, and how far the product's machines are ahead of it."""

    def __init__(self) -> None:
        self.now = START
        self.ahead = timedelta(0)

    @property
    def machine(self) -> datetime:
        """The time by the product's machines."""
        return self.now + self.ahead

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the product's modules take this clock's time for the present."""
        clock = self

        class Simulated(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return clock.machine.astimezone(tz)

        with ExitStack() as patches:
            for module in _MODULES:
                patches.enter_context(patch(f"{module}.datetime", Simulated))
            yield
