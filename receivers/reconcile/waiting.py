"""What has to be loaded before the warehouse is asked: what waits in this machine's spools, and then in the log."""

import time
from collections.abc import Callable
from typing import TypeVar

from ingest.errors import LogUnavailable
from ingest.settings import Settings
from ingest.waits import Wait
from receivers.spool.folder import spool_states

T = TypeVar("T")

_LOOK_SECONDS = 0.1
_STALLED_SECONDS = 60.0


def wait_for_spools(settings: Settings) -> None:
    """Until this machine's are empty: what waits there was acknowledged, and would look missing. Raises LogUnavailable, as below."""

    def look() -> dict[str, object]:
        """How many wait says little: more may come than are handed on."""
        return {state.file: state.oldest for state in spool_states(settings) if state.records}

    def stalled(_: object) -> str:
        waiting = sum(state.records for state in spool_states(settings))
        return (
            f"{waiting} deliveries wait in the spool {settings.receiver.spool_dir}, and none was handed on for {_STALLED_SECONDS:.0f} s; they would"
            " be counted as missed. Is `ingest up` or `ingest receive` running, and can it reach Kafka? Run this again when they are in the log"
        )

    _wait(look, stalled, "this machine's spooled deliveries are not in the log yet")


def wait_for_consumer(settings: Settings, topic: str) -> None:
    """Until all that is in the topic now is loaded. Raises LogUnavailable when no consumer gets on with it."""
    targets = {
        entry.partition: entry.next
        for entry in settings.build_log().backlog()
        if entry.partition.topic == topic
    }

    def look() -> int:
        committed = {entry.partition: entry.committed for entry in settings.build_log().backlog()}
        return sum(max(0, target - committed.get(partition, 0)) for partition, target in targets.items())

    def stalled(left: int) -> str:
        return (
            f"{left} records of {topic} are in the log, and no consumer has loaded any for {_STALLED_SECONDS:.0f} s:"
            " is `ingest up` or `ingest consume` running? They are loaded when it is"
        )

    _wait(
        look, stalled, f"a consumer (`ingest up`, `ingest consume`) has to load what is in the log of {topic}"
    )


def _wait(look: Callable[[], T], stalled: Callable[[T], str], reason: str) -> None:
    """Until there is nothing left; not for ever while it stays the same."""
    before, moved_at = None, time.monotonic()
    wait = Wait(f"{reason}; gives up when nothing moves for {_STALLED_SECONDS:.0f} s")
    while left := look():
        wait.look()
        if left != before:
            before, moved_at = left, time.monotonic()
        if time.monotonic() - moved_at > _STALLED_SECONDS:
            raise LogUnavailable(stalled(left))
        time.sleep(_LOOK_SECONDS)
