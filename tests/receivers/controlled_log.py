"""A log that takes, fails or ignores records as a test wants."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Record


class ControlledLog:
    """A log that remembers what it took.

    It ignores everything while `silent`, and always refuses the value `refused`.
    """

    def __init__(self) -> None:
        self.state: Literal["open", "failing", "silent"] = "open"
        self.taken: list[Record] = []
        self.refused = b"too large"
        self._silenced: list[tuple[Sequence[Record], Future[None]]] = []

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":  # noqa: ARG002 - as every log has it
        future: Future[None] = Future()
        if self.state == "silent":
            self._silenced.append((records, future))
        elif self.state == "failing":
            future.set_exception(LogUnavailable("no broker accepts a connection"))
        elif any(record.value == self.refused for record in records):
            future.set_exception(LogRefused("the record is too large"))
        else:
            self.taken += records
            future.set_result(None)
        return future

    def poll(self) -> None:
        """Do nothing: it has no outcome to tell later, except by `take_silenced`."""

    def take_silenced(self) -> None:
        """Take what came while it was silent."""
        silenced, self._silenced = self._silenced, []
        for records, future in silenced:
            self.taken += records
            future.set_result(None)

    def close(self) -> None:
        silenced, self._silenced = self._silenced, []
        for _, future in silenced:
            future.set_exception(LogUnavailable("closed"))

    def order(self) -> list[bytes]:
        """Return the values that it took, first occurrences only."""
        return list(dict.fromkeys(record.value for record in self.taken))
