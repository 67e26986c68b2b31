"""Waiting for this machine's spools: what is in them was acknowledged, and would look missing to a reconciliation."""

from datetime import datetime

from ingest.errors import LogUnavailable
from ingest.settings import Settings
from ingest.waits import STALLED_SECONDS, wait_while
from receivers.spool.folder import SpoolState, spool_states


def wait_for_spools(settings: Settings) -> None:
    """Wait until this machine's spools are empty. Raises LogUnavailable when none of them moves for a minute."""

    def filled() -> list[SpoolState]:
        return [state for state in spool_states(settings) if state.records]

    def pending() -> dict[str, datetime | None] | None:
        # The oldest record of each file: the number of records may grow while a spool is drained.
        return {state.file: state.oldest for state in filled()} or None

    def stalled(_: object) -> LogUnavailable:
        waiting = sum(state.records for state in filled())
        return LogUnavailable(
            f"{waiting} deliveries wait in the spool {settings.receiver.spool_dir}, and none was handed on for {STALLED_SECONDS:.0f} s; they would"
            " be counted as missed. Is `ingest up` or `ingest receive` running, and can it reach Kafka? Run this again when they are in the log"
        )

    wait_while(pending, stalled, "this machine's spooled deliveries are not in the log yet")
