"""Reconciliation: accounts side by side, each in a run of its own that ends as a report in the log."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import median_low

import structlog

from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW, read_clock_ahead, write_clock_ahead
from ingest.errors import ConfigurationError, IngestError, LogUnavailable, VendorUnavailable
from ingest.log import APPEND_SECONDS, Producer, wait_until_durable
from ingest.log.backend import wait_until_consumed
from ingest.rest import RetryBudget
from ingest.settings import NO_CREDENTIALS, Settings
from ingest.telemetry import CLOCK_SKEW_SECONDS, COMPLETE_UNTIL, PROVEN_UNTIL
from ingest.times import describe_skew
from ingest.vendors import AnyAccount
from ingest.vendors.rest import AnyRest, Window
from ingest.warehouse.bookings import BookingsTable
from ingest.warehouse.completeness import COMPLETE, PROVEN, CompletenessTable, first_hour
from receivers.completeness.freshness import measure_freshness
from receivers.completeness.ledger import Ledger
from receivers.completeness.proof import OpenLetters, Proof, no_letters
from receivers.reconcile.checkpoint import Checkpoint, End, Progress, ProgressRecorder
from receivers.reconcile.compare import cut_windows
from receivers.reconcile.ownership import Ownership
from receivers.reconcile.repairs import Repairs
from receivers.reconcile.report import Counts, Report
from receivers.reconcile.sweep import Sweep

log = structlog.get_logger()

Follow = Callable[[str, Counts, str], None]  # called with the account, its counts, and what is being done

_ACCOUNTS_AT_ONCE = 8
_TURN_SECONDS = 600.0  # a run that `ingest up` began may take as long
_POLL_SECONDS = 0.2
_LONGEST_WINDOW = timedelta(days=31)  # so that memory does not grow with the span


class Reconciler:
    """Compares accounts with their vendors, and repairs what is missing. Without a producer runs are dry."""

    def __init__(
        self,
        settings: Settings,
        warehouse: BookingsTable,
        producer: Producer | None,
        follow: Follow,
        stop: threading.Event,
    ) -> None:
        """Call `follow` whenever an account's counts grew. `stop` ends a run early.

        The attribute `open_letters` tells of the dead letters that keep an hour from being complete,
        `patience` for how many seconds an account waits while another process reconciles it.
        """
        self._settings = settings
        self._warehouse = warehouse
        self._producer = producer
        self._follow = follow
        self._stop = stop
        self.open_letters: OpenLetters = no_letters
        self.patience = _TURN_SECONDS

    @property
    def producer(self) -> Producer | None:
        """What appends to the log; None in a dry run."""
        return self._producer

    def run(
        self,
        accounts: Sequence[AnyAccount],
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        confirm_key: bool = False,
    ) -> list[Report]:
        """Reconcile accounts, and return a report of each, also of those that failed.

        Without `since` a run begins `reconcile.lookback` ago, or earlier, where the last complete run ended.
        Without `until` it ends now, or never, where the vendor lists bookings by when they start.
        `confirm_key`: a person says that the credentials are those of the accounts, and that what their
        vendors no longer have is gone. When `stop` is set, accounts that are still compared have no report.
        """
        runs = [
            AccountRun(
                self._settings,
                self._warehouse,
                self._producer,
                self._follow,
                account,
                since,
                until,
                confirm_key=confirm_key,
                open_letters=self.open_letters,
                patience=self.patience,
            )
            for account in accounts
        ]
        workers = min(_ACCOUNTS_AT_ONCE, max(1, len(accounts)))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="reconcile")
        try:
            futures = [pool.submit(run.run) for run in runs]
            while not self._stop.is_set() and wait(futures, _POLL_SECONDS).not_done:
                pass
        finally:
            # A request may wait minutes for its turn, and nothing is lost when it is cut off.
            pool.shutdown(wait=False, cancel_futures=True)
        for future in futures:
            if future.done() and not future.cancelled():
                future.result()
        reports = [run.report for run in runs if run.has_reported]
        if self._producer:
            self._finish(reports)
        return reports

    def _finish(self, reports: Sequence[Report]) -> None:
        """Store what the vendors' clocks showed, and wait until the reports are loaded."""
        measured = [report.clock_ahead for report in reports if report.clock_ahead is not None]
        if measured:
            write_clock_ahead(Path(self._settings.reconcile.state_dir), median_low(measured))
        if self._stop.is_set() or all(report.unrecorded for report in reports):
            return
        try:
            settings = self._settings
            wait_until_consumed(settings.build_log(), settings.linger, [settings.audit_topic])
            for report in reports:
                for gauge, accepted in ((COMPLETE_UNTIL, COMPLETE), (PROVEN_UNTIL, PROVEN)):
                    until = CompletenessTable(settings).complete_until(
                        report.vendor, report.account, accepted
                    )
                    gauge.labels(report.vendor, report.account).set(until.timestamp() if until else 0)
        except IngestError as error:  # they are in the log, and are loaded whenever a consumer runs
            log.warning("reconcile.not_loaded", why=str(error))


@contextmanager
def open_reconciler(
    settings: Settings,
    follow: Follow,
    open_letters: OpenLetters,
    *,
    dry_run: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[Reconciler]:
    """Open a reconciler that repairs through the log, or, for a dry run, one that only compares.

    `open_letters` tells of the dead letters that keep an hour from being complete.
    """
    with nullcontext() if dry_run else closing(settings.build_log().producer()) as producer:
        reconciler = Reconciler(
            settings, BookingsTable(settings), producer, follow, stop or threading.Event()
        )
        reconciler.open_letters = open_letters
        yield reconciler


def choose_accounts(settings: Settings, names: Iterable[str]) -> list[AnyAccount]:
    """Return the named accounts, or all whose settings suffice to reconcile them.

    Raises ConfigurationError when a named one's do not, or there is none.
    """
    names = list(names)
    accounts = [
        account for account in settings.choose_accounts(names) if names or account.settings.can_reconcile()
    ]
    for account in accounts:
        if not account.settings.can_reconcile():
            needed = account.settings.reconcile_needs()
            remedy = f"set {needed}" if needed else account.settings.without_rest()
            raise ConfigurationError(f"account {account.name} cannot be reconciled: {remedy}")
    if not accounts:
        raise ConfigurationError(NO_CREDENTIALS)
    return accounts


@dataclass
class AccountRun:
    """A run over one account, by the arguments of `Reconciler.run`. Used once.

    `has_reported` is true from when the report is in the log, or says why it is not; then only the verdicts
    on the hours and their freshness are left to do.
    """

    settings: Settings
    warehouse: BookingsTable
    producer: Producer | None
    follow: Follow
    account: AnyAccount
    since: datetime | None
    until: datetime | None
    confirm_key: bool
    open_letters: OpenLetters = no_letters
    patience: float = 0.0
    report: Report = field(init=False)
    has_reported: bool = False
    _clock_ahead: timedelta = field(init=False)

    def __post_init__(self) -> None:
        self._state_dir = Path(self.settings.reconcile.state_dir)
        self._begin(timedelta(0))

    def run(self) -> Report:
        """Compare and repair the account, and return the report, which tells of any failure."""
        with self._reporting_failure():
            self._begin(read_clock_ahead(self._state_dir) or timedelta(0))
            checkpoint = Checkpoint(self._state_dir, self.account.name, dry_run=self.producer is None)
            # A lock would be a file, which a dry run does not write.
            with checkpoint.lock(self.patience) if self.producer else nullcontext():
                self._run_locked(checkpoint)
                return self.report
        # The checkpoint cannot be used, or another process has it.
        self.report.finished_at = self._now()
        with self._noting_unrecorded():
            self._append(self.report)
        self.has_reported = True
        return self.report

    def _begin(self, clock_ahead: timedelta) -> None:
        """Begin by the vendor's time, of which this machine's clock is ahead, or behind if it is negative."""
        self._clock_ahead = clock_ahead if abs(clock_ahead) > CLOCK_SKEW else timedelta(0)
        now = self._now()
        since = self.since or now - self.settings.reconcile.lookback
        self.report = Report(self.account.vendor, self.account.name, since, self.until or now, now, now)

    def _now(self) -> datetime:
        return datetime.now(UTC) - self._clock_ahead

    @cached_property
    def _rest(self) -> AnyRest:
        """The vendor's REST side. Raises ConfigurationError."""
        budget = RetryBudget(failing=self.settings.reconcile.patience.total_seconds())
        rest = self.account.rest(self._state_dir, budget)
        rest.assume_clock_ahead(read_clock_ahead(self._state_dir))
        return rest

    def _run_locked(self, checkpoint: Checkpoint) -> None:
        """Compare, once more if the clock was wrong, and record the report and what it proves."""
        proof = self._begin_proof(checkpoint)
        recorder = self._compare(checkpoint)
        clock_ahead = self._measure_clock()
        if abs(clock_ahead - self._clock_ahead) > CLOCK_SKEW:
            # The windows were those of another time, and would leave out what was missed.
            checkpoint.clear(self.report.since, self.until)
            self._begin(clock_ahead)
            recorder = self._compare(checkpoint)
            self._measure_clock()
        with self._noting_unrecorded():
            counts, end = replace(self.report.counts), self._end()
            progress = replace(recorder.progress, counts=counts, written_at=end.finished_at)
            self._record(checkpoint, progress, end)
            if self.producer and self.since is None and self.report.failure:
                checkpoint.note_first_run(self.report.since)
        self.has_reported = True
        if proof:
            self._state_proof(proof, recorder, checkpoint)
        if self.producer:
            try:
                measure_freshness(
                    self.settings, self.account, self.producer, self.report.since, self.report.finished_at
                )
            except IngestError as error:
                log.warning("reconcile.not_measured", source=self.account.source, why=str(error))

    def _begin_proof(self, checkpoint: Checkpoint) -> Proof | None:
        """Return the proof that this run may become; None in a dry run, or where nothing can be proven."""
        if not self.producer:
            return None
        try:
            table = CompletenessTable(self.settings)
            ledger = Ledger(self.settings, table, self.account, self.producer)
            covered = None if self.since else checkpoint.covered(self._now())
            since = min(self.report.since, covered or self.report.since)
            return Proof(ledger, table, self.account, self.open_letters, since)
        except IngestError as error:
            log.warning("reconcile.not_proven", source=self.account.source, why=str(error))
            return None

    def _state_proof(self, proof: Proof, recorder: ProgressRecorder, checkpoint: Checkpoint) -> None:
        """State the verdicts on the hours. Where that fails, they stay as they were until the next run."""
        try:
            self._note_asked(checkpoint, first_hour(recorder.census.since))
            proof.state(self._rest, recorder.census, self.report, self.settings.reconcile.lag)
        except IngestError as error:
            log.warning("reconcile.not_proven", source=self.account.source, why=str(error))

    def _note_asked(self, checkpoint: Checkpoint, since: datetime) -> None:
        """Note from when on this run leaves verdicts; earlier releases have left some without a note.

        Raises WarehouseUnavailable, LogUnavailable.
        """
        if checkpoint.asked_since() is None:
            table = CompletenessTable(self.settings)
            since = min(since, table.first_stored(self.account.vendor, self.account.name) or since)
        checkpoint.note_asked(since)

    def _compare(self, checkpoint: Checkpoint) -> ProgressRecorder:
        """Compare everything that is asked for; a failure is in the report."""
        report = self.report
        if self.since is None:
            report.since = min(report.since, checkpoint.covered(self._now()) or report.since)
        if self.producer:
            for progress in checkpoint.unpublished(report.since, self.until):
                stopped = "the run was stopped; what it had found until then is repaired"
                end = End(progress.written_at, progress.until, stopped, resumable=True)
                self._record(checkpoint, progress, progress.end or end)
        recorder = checkpoint.start(report.since, self.until, report.started_at)
        report.counts, report.started_at = recorder.counts, recorder.progress.started_at
        with self._reporting_failure():
            self._sweep(checkpoint, recorder)
        report.finished_at = self._now()
        return recorder

    def _sweep(self, checkpoint: Checkpoint, recorder: ProgressRecorder) -> None:
        def follow(window: Window, doing: str) -> None:
            span = f"{window.since:%Y-%m-%d} …{f' {window.until:%Y-%m-%d}' if window.until else ''}"
            self.follow(self.account.name, report.counts, doing or span)

        rest, report = self._rest, self.report
        open_ended = rest.window_column == "starts_at" and self.until is None
        until = self.until or self._now()
        report.until = None if open_ended else until
        ownership = Ownership(rest, self.warehouse, checkpoint, is_confirmed=self.confirm_key)
        repairs = Repairs(self.settings, self.producer, rest, self.warehouse, recorder)
        longest = min(rest.longest_window, _LONGEST_WINDOW)
        windows = cut_windows(recorder.progress.done, until, longest, open_ended=open_ended)
        Sweep(rest, self.warehouse, repairs, ownership, recorder).run(windows, follow)
        report.unproven = ownership.unproven()

    def _measure_clock(self) -> timedelta:
        """Return how far this machine's clock is ahead by the vendor's answers, and put it into the report.

        It is as far ahead as the run took it to be where no answer told.
        """
        try:
            clock_ahead = self._rest.clock_ahead
        except ConfigurationError:  # then nothing was asked, and the report says why
            clock_ahead = None
        if clock_ahead is None:
            return self._clock_ahead
        self.report.clock_ahead = clock_ahead
        CLOCK_SKEW_SECONDS.labels(self.account.vendor, self.account.name).set(clock_ahead.total_seconds())
        if abs(clock_ahead) > CLOCK_SKEW:
            why = (
                f"this machine's clock is {describe_skew(clock_ahead)} that of {self._rest.base_url},"
                f" which counts for this run: {CLOCK_REMEDY}"
            )
            log.warning("reconcile.clock_wrong", account=self.account.name, why=why)
        return clock_ahead

    def _end(self) -> End:
        """Return how the run ended."""
        report = self.report
        if report.failure is not None:
            # What was compared with a wrong key, for example, is nothing to resume from.
            resumable = not isinstance(report.failure, ConfigurationError)
            return End(report.finished_at, report.until, str(report.failure), resumable)
        # The next run looks at what changed too recently to be missed by this one.
        covers = None if self.until else report.started_at - self.settings.reconcile.lag
        return End(report.finished_at, report.until, None, covers=covers, unproven=report.unproven)

    def _record(self, checkpoint: Checkpoint, progress: Progress, end: End) -> None:
        """Append a run's report to the log; its progress is kept until it is there, and settled then.

        A process that dies meanwhile leaves what the next one appends once more, with the same id.
        Raises LogUnavailable; then the next run appends the report.
        """
        if self.producer is None:
            return
        try:
            checkpoint.write(replace(progress, end=end))
            is_kept = True
        except IngestError as error:  # a full disk is one more reason to append the report
            log.warning("reconcile.not_noted", account=self.account.name, why=str(error))
            is_kept = False
        self._append(
            Report(
                self.account.vendor,
                self.account.name,
                progress.since,
                end.reached,
                progress.started_at,
                end.finished_at,
                progress.counts,
                failure=None if end.error is None else LogUnavailable(end.error),
                unproven=end.unproven,
            )
        )
        if is_kept:
            checkpoint.settle(progress, end)
        else:
            checkpoint.clear(progress.since, progress.until)  # who resumes it must not report the same again

    def _append(self, report: Report) -> None:
        """Append a report to the log, and return when it is durable. Raises LogUnavailable."""
        if self.producer:
            records = [report.event().to_record()]
            appended = self.producer.append(self.settings.audit_topic, records)
            wait_until_durable(appended, APPEND_SECONDS, "what was found")

    @contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        """Put a failure into the report, so that the other accounts go on."""
        vendor, account = self.account.vendor, self.account.name
        try:
            yield
        except IngestError as error:
            self.report.failure = error
            log.warning("reconcile.failed", vendor=vendor, account=account, why=str(error))
        except Exception as error:  # our bug, or an answer that nobody thought of
            self.report.failure = VendorUnavailable(
                f"{vendor} account {account}: the answer cannot be understood: {type(error).__name__}"
            )
            log.exception("reconcile.crashed", vendor=vendor, account=account)

    @contextmanager
    def _noting_unrecorded(self) -> Iterator[None]:
        """Note in the report that it is not in the log."""
        try:
            yield
        except IngestError as error:
            self.report.unrecorded = error
            log.warning(
                "reconcile.not_recorded",
                vendor=self.account.vendor,
                account=self.account.name,
                why=str(error),
            )
