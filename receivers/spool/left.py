"""What waits in spools from when the log was Kafka, handed on to an embedded one, which has no spool of its own."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import structlog

from ingest.errors import LogUnavailable
from ingest.settings import Settings
from ingest.telemetry import SPOOL_OLDEST_SECONDS, SPOOL_RECORDS
from receivers.spool.file import SpoolFile
from receivers.spool.folder import spool_states
from receivers.spool.owner import require_own_spool

log = structlog.get_logger()


def hand_on(settings: Settings) -> None:
    """To be done before a newer delivery is taken: nothing overtakes an older record of its booking.

    Raises ConfigurationError where the spool is another receiver's, and LogUnavailable where it cannot all be done, above all while another receiver has one of the files; what was handed on stays so.
    """
    folder = settings.receiver.spool_dir
    try:
        require_own_spool(settings)
        if files := [state.file for state in spool_states(settings) if state.records]:
            log.info("spool.draining", folder=folder, files=len(files), why="the log is no longer Kafka")
            _empty(files, settings)
            log.info("spool.empty")
    except LogUnavailable as error:
        raise LogUnavailable(
            f"records that were accepted while the log was Kafka wait in {folder}, are to be in the log before any newer one, and cannot"
            f" be handed on: {error}. Mend that, or move the file away to do without what it holds"
        ) from error


def _empty(files: Sequence[str], settings: Settings) -> None:
    topics, limit = settings.topics(), settings.receiver.spool_limit
    with ExitStack() as opened:
        spools = [opened.enter_context(closing(SpoolFile(Path(file), topics, limit))) for file in files]
        producer = opened.enter_context(closing(settings.build_log().producer()))
        _tell(spools)
        for spool in spools:
            while spool.drain(producer):
                _tell(spools)
            while spool.shrink():
                pass


def _tell(spools: Sequence[SpoolFile]) -> None:
    oldest = [at for at in (spool.oldest() for spool in spools) if at is not None]
    SPOOL_RECORDS.set(sum(spool.waiting() for spool in spools))
    SPOOL_OLDEST_SECONDS.set(time.time() - min(oldest) if oldest else 0.0)
