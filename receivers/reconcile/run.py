"""Runs over accounts: side by side, each alone with its account, each ending as a report."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from ingest.errors import ConfigurationError, IngestError, LogUnavailable, VendorUnavailable
from ingest.log import Producer
from ingest.rest import Patience
from ingest.settings import Settings
from ingest.vendors import AnyVendor
from ingest.vendors.rest import AnyRest, Window, load_rest
from receivers.reconcile.checkpoint import Checkpoint, Progress
from receivers.reconcile.compare import windows
from receivers.reconcile.outlets import Noting, Nowhere, Topic
from receivers.reconcile.proof import Log, Proof, Warehouse
from receivers.reconcile.repairs import Repairs
from receivers.reconcile.report import Counts, Report
from receivers.reconcile.sweep import Sweep

log = structlog.get_logger()

_SIDE_BY_SIDE = 8
_LOOK_SECONDS = 0.2
_WINDOW = timedelta(days=31)  # at most, so that memory does not grow with the span


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be compared: from `since` until `until`, or now (and, where a vendor is asked by start times, the future).

    Without `since`: `reconcile.lookback`, and farther back where runs failed or none ran: to where the last one got.
    """

    since: datetime | None = None
    until: datetime | None = None
    dry_run: bool = False


Follow = Callable[[str, Counts, str], None]


class Reconciler:
    """`follow` is told an account's counts, and what of the window is done, whenever they grew."""

    def __init__(self, settings: Settings, warehouse: Warehouse, producer: Producer | None, follow: Follow, stop: threading.Event) -> None:
        """Without a producer every run is a dry one."""
        self._stop = stop
        self._settings = settings
        self._warehouse = warehouse
        self._repairs = Repairs(settings, producer) if producer else None
        self._follow = follow
        self._folder = Path(settings.reconcile.state_dir)
        self._patience = Patience(failing=settings.reconcile.patience.total_seconds())

    def run(self, vendors: Sequence[AnyVendor], wanted: Wanted) -> list[Report]:
        """A report per account, failed ones too: one that fails does not stop the others. Empty when it was stopped."""
        pool = ThreadPoolExecutor(min(_SIDE_BY_SIDE, max(1, len(vendors))), thread_name_prefix="reconcile")
        try:
            running = [pool.submit(self._account, vendor, wanted) for vendor in vendors]
            while not self._stop.is_set() and wait(running, _LOOK_SECONDS).not_done:
                pass
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a request may wait minutes for its turn; to be cut off loses nothing
        if self._stop.is_set():
            return []
        reports = [future.result() for future in running]
        if not wanted.dry_run:
            self._record(reports)
        return reports

    def _record(self, reports: Sequence[Report]) -> None:
        """What was found is told whether it could be recorded or not."""
        if self._repairs is None:
            return
        try:
            self._repairs.append(self._settings.audit_topic, [report.event().to_record() for report in reports])
            self._repairs.wait(self._settings.audit_topic)
        except LogUnavailable as error:
            log.warning("reconcile.not_recorded", why=str(error))

    def _account(self, vendor: AnyVendor, wanted: Wanted) -> Report:
        now = datetime.now(UTC)
        report = Report(
            vendor.name, vendor.account.name, wanted.since or now - self._settings.reconcile.lookback, wanted.until or now, now, now
        )
        try:
            rest = load_rest(vendor.name)(vendor, self._folder, self._patience)
            checkpoint = Checkpoint(self._folder, vendor.account.name)
            with checkpoint.alone():
                self._compare(rest, checkpoint, wanted, report)
        except IngestError as error:
            report.failure = error
            log.warning("reconcile.failed", vendor=vendor.name, account=vendor.account.name, why=str(error))
        except Exception as error:  # our bug, or an answer nobody thought of: the other accounts go on
            report.failure = VendorUnavailable(
                f"{vendor.name} account {vendor.account.name}: an answer that is not understood: {type(error).__name__}"
            )
            log.exception("reconcile.crashed", vendor=vendor.name, account=vendor.account.name)
        report.finished_at = datetime.now(UTC)
        return report

    def _compare(self, rest: AnyRest, checkpoint: Checkpoint, wanted: Wanted, report: Report) -> None:
        try:
            self._sweep(rest, checkpoint, wanted, report)
        except IngestError:
            if not wanted.dry_run and (progress := checkpoint.read(report.since, wanted.until)):
                checkpoint.told(progress)  # the report of this failure has what it found
            raise
        if not wanted.dry_run:
            checkpoint.clear(report.since, wanted.until)
        if not wanted.dry_run and wanted.until is None:
            checkpoint.cover(report.since, report.started_at)

    def _sweep(self, rest: AnyRest, checkpoint: Checkpoint, wanted: Wanted, report: Report) -> None:
        if wanted.since is None:
            report.since = min(report.since, checkpoint.covered() or report.since)
        since = self._resumed(checkpoint, wanted, report)
        until = wanted.until or datetime.now(UTC)
        into_the_future = rest.swept_by == "starts_at" and wanted.until is None
        report.until = None if into_the_future else until
        log, lag = self._log_of(rest.vendor, wanted), self._settings.reconcile.lag
        noting = Noting(log, None if wanted.dry_run else checkpoint, report, wanted.until)
        sweep = Sweep(rest, self._warehouse, Proof(rest, self._warehouse, noting, lag, report.counts), lag, report.counts)
        before = report.counts.requests
        try:
            for window in windows(since, until, min(rest.longest, _WINDOW), open_ended=into_the_future):
                noting.begin(window.since)
                sweep.window(window, partial(self._tell, rest.account.name, report.counts, window))
                report.counts.requests = before + rest.requests
            sweep.finish()
        finally:
            report.counts.requests = before + rest.requests

    def _tell(self, account: str, counts: Counts, window: Window, doing: str) -> None:
        reach = f"{window.since:%Y-%m-%d} …{f' {window.until:%Y-%m-%d}' if window.until else ''}"
        self._follow(account, counts, doing or reach)

    def _resumed(self, checkpoint: Checkpoint, wanted: Wanted, report: Report) -> datetime:
        """From when on there is something left to do. What other runs found that were stopped is recorded now, or nobody would know."""
        if wanted.dry_run:
            return report.since
        for progress in checkpoint.stopped(report.since, wanted.until):
            self._record([_report_of(report, progress)])
        found = checkpoint.read(report.since, wanted.until)
        if found is None:
            return report.since
        report.counts, report.started_at = found.counts, found.started_at
        return found.done

    def _log_of(self, vendor: AnyVendor, wanted: Wanted) -> Log:
        if self._repairs is None or wanted.dry_run:
            return Nowhere()
        return Topic(self._repairs, self._settings.topic(vendor.name), self._settings.dead_letter_topic)


def _report_of(report: Report, progress: Progress) -> Report:
    """Of a run of the same account that was stopped."""
    stopped = LogUnavailable("the run was stopped; what it had found until then is repaired")
    counts = progress.counts
    return Report(report.vendor, report.account, progress.since, progress.until, progress.started_at, progress.written_at, counts, stopped)


def readable(settings: Settings, named: Iterable[str]) -> list[AnyVendor]:
    """The accounts named, or all whose settings have what their vendor's REST side needs. Raises ConfigurationError."""
    names = list(named)
    vendors = [vendor for vendor in settings.chosen(names) if names or vendor.account.can_reconcile()]
    for vendor in vendors:
        if not vendor.account.can_reconcile():
            raise ConfigurationError(f"account {vendor.account.name} cannot be reconciled: set its {vendor.account.reconcile_needs()}")
    if not vendors:
        raise ConfigurationError("no account has what its vendor's REST side needs: api_token, api_key and so on; see docs/settings.md")
    return vendors
