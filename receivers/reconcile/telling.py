"""How runs ended, on its way into the log: noted before, and forgotten only when it is there."""

from dataclasses import replace
from datetime import datetime

import structlog

from ingest.errors import IngestError, LogUnavailable
from ingest.vendors import AnyAccount
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.outlets import Outlet
from receivers.reconcile.progress import End, Progress
from receivers.reconcile.report import Report

log = structlog.get_logger()


class Telling:
    """Of one account, while no other process reconciles it. A process that dies on the way leaves what the next one tells the same."""

    def __init__(self, outlet: Outlet, checkpoint: Checkpoint, account: AnyAccount) -> None:
        self._outlet = outlet
        self._checkpoint = checkpoint
        self._account = account

    def left_over(self, since: datetime, until: datetime | None) -> None:
        """What earlier runs found and nobody was told of. Raises LogUnavailable; then it is still there."""
        for progress in self._checkpoint.untold(since, until):
            self.tell(progress, progress.end or _stopped(progress))

    def tell(self, progress: Progress, end: End) -> None:
        """Returns when the report is durable. Raises LogUnavailable; then it is kept for the next run."""
        kept = self._keep(replace(progress, end=end))
        self._outlet.tell(self._report(progress, end).event())
        if kept:
            self._checkpoint.settle(progress, end)
        else:
            self._checkpoint.clear(progress.since, progress.until)  # it must not be told again by who goes on

    def _keep(self, progress: Progress) -> bool:
        """A full disk is a reason to tell it all the more."""
        try:
            self._checkpoint.write(progress)
        except IngestError as error:
            log.warning("reconcile.not_noted", account=self._account.name, why=str(error))
            return False
        return True

    def _report(self, progress: Progress, end: End) -> Report:
        failure = None if end.error is None else LogUnavailable(end.error)
        vendor, account = self._account.vendor, self._account.name
        return Report(
            vendor,
            account,
            progress.since,
            end.reached,
            progress.started_at,
            end.finished_at,
            progress.counts,
            failure,
            unproven=end.unproven,
        )


def _stopped(progress: Progress) -> End:
    return End(
        progress.written_at,
        progress.until,
        "the run was stopped; what it had found until then is repaired",
        resumable=True,
    )
