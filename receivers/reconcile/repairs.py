"""The log's side of a reconciliation: append what was missed, and wait until a consumer has loaded it."""

import time
from collections.abc import Sequence

from ingest.errors import LogUnavailable
from ingest.log import Producer, Record
from ingest.opening import read_backlog
from ingest.settings import Settings

_APPEND_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_STALLED_SECONDS = 60.0


class Repairs:
    """Used from one thread per account."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self._settings = settings
        self._producer = producer

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """Returns when they are durable. Raises LogUnavailable."""
        try:
            self._producer.append(topic, records).result(timeout=_APPEND_SECONDS)
        except TimeoutError:
            raise LogUnavailable(f"the log did not take what was missed within {_APPEND_SECONDS:.0f} seconds") from None

    def wait(self, topic: str) -> None:
        """Until all that is in the topic now is loaded. Raises LogUnavailable when no consumer gets on with it."""
        targets = {entry.partition: entry.next for entry in read_backlog(self._settings) if entry.partition.topic == topic}
        left, moved_at = -1, time.monotonic()
        while left:
            committed = {entry.partition: entry.committed for entry in read_backlog(self._settings)}
            behind = sum(max(0, target - committed.get(partition, 0)) for partition, target in targets.items())
            if behind != left:
                left, moved_at = behind, time.monotonic()
            if left and time.monotonic() - moved_at > _STALLED_SECONDS:
                raise LogUnavailable(
                    f"{left} records of {topic} are in the log, and no consumer has loaded any for {_STALLED_SECONDS:.0f} s:"
                    " is `ingest up` or `ingest consume` running? They are loaded when it is"
                )
            if left:
                time.sleep(_LOOK_SECONDS)
