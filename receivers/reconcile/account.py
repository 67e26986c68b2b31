"""One account's run: what earlier ones left untold, windows and what none of them had, and a report that is in the log at its end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path

import structlog

from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW
from ingest.clock_file import read_clock_ahead
from ingest.duration import describe_skew
from ingest.errors import ConfigurationError, IngestError, VendorUnavailable
from ingest.rest import Patience
from ingest.settings import Settings
from ingest.telemetry import CLOCK_SKEW_SECONDS
from ingest.vendors import AnyAccount
from ingest.vendors.rest import AnyRest, Window, load_rest
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.compare import windows
from receivers.reconcile.outlets import Noting, Nowhere, Outlet
from receivers.reconcile.ownership import Ownership
from receivers.reconcile.progress import End, Progress
from receivers.reconcile.repairs import Proof, Warehouse
from receivers.reconcile.report import Counts, Report
from receivers.reconcile.sweep import Sweep
from receivers.reconcile.telling import Telling

log = structlog.get_logger()

_WINDOW = timedelta(days=31)  # at most, so that memory does not grow with the span

Follow = Callable[[str, Counts, str], None]


@dataclass(frozen=True, slots=True)
class Around:
    """What the runs of all accounts share."""

    settings: Settings
    warehouse: Warehouse
    follow: Follow
    patience: Patience


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be compared: from `since` until `until`, or now (and, where a vendor is asked by start times, the future).

    Without `since`: `reconcile.lookback`, and farther back where runs failed or none ran: to where the last one got.
    `confirm_key`: a person says that the credentials are those of the accounts, and that what their vendors no longer have is gone.
    """

    since: datetime | None = None
    until: datetime | None = None
    dry_run: bool = False
    confirm_key: bool = False


class AccountRun:
    """Without an outlet it is a dry one, which writes nothing. Used once."""

    def __init__(
        self,
        around: Around,
        account: AnyAccount,
        outlet: Outlet | None,
        wanted: Wanted,
    ) -> None:
        now = datetime.now(UTC)
        self._around = around
        self._account = account
        self._outlet = outlet
        self._since = wanted.since
        self._until = wanted.until
        self._confirm_key = wanted.confirm_key
        self._ahead = timedelta(0)
        start = wanted.since or now - around.settings.reconcile.lookback
        self._report = Report(account.vendor, account.name, start, wanted.until or now, now, now)

    def run(self) -> Report:
        """Whatever went wrong is in the report; and the report in the log, or `unrecorded`."""
        with self._failing():
            folder = Path(self._around.settings.reconcile.state_dir)
            self._begin(read_clock_ahead(folder) or timedelta(0))
            is_dry = self._outlet is None
            checkpoint = Checkpoint(folder, self._report.account, dry_run=is_dry)
            with nullcontext() if is_dry else checkpoint.alone():  # a lock would be a file
                self._alone(checkpoint)
                return self._report
        self._tell_unnoted()  # before anything was found
        return self._report

    def _begin(self, ahead: timedelta) -> None:
        """Begin, or begin again, by the vendor's time: this machine's clock is `ahead` of it, or behind where that is negative."""
        self._ahead = ahead if abs(ahead) > CLOCK_SKEW else timedelta(0)
        now = self._now()
        since, until = self._since or now - self._around.settings.reconcile.lookback, self._until or now
        self._report = Report(self._report.vendor, self._report.account, since, until, now, now)

    def _note_clock(self) -> timedelta | None:
        """Note how far this machine's clock is ahead by the vendor's answers, and return it; None where none has told."""
        if (ahead := self._rest.clock_ahead) is None:
            return None
        report = self._report
        report.clock_ahead = ahead
        CLOCK_SKEW_SECONDS.labels(report.vendor, report.account).set(ahead.total_seconds())
        if abs(ahead) > CLOCK_SKEW:
            why = f"this machine's clock is {describe_skew(ahead)} that of {self._rest.base_url}, which counts for this run: {CLOCK_REMEDY}"
            log.warning("reconcile.clock_wrong", account=report.account, why=why)
        return ahead

    @cached_property
    def _rest(self) -> AnyRest:
        """Raises ConfigurationError."""
        return load_rest(self._account.vendor)(
            self._account, Path(self._around.settings.reconcile.state_dir), self._around.patience
        )

    def _now(self) -> datetime:
        return datetime.now(UTC) - self._ahead

    def _alone(self, checkpoint: Checkpoint) -> None:
        noting = self._compared(checkpoint)
        if self._went_by_wrong_clock():
            if self._outlet:
                checkpoint.clear(
                    self._report.since, self._until
                )  # windows of another time are nothing to go on with
            self._begin(self._rest.clock_ahead or timedelta(0))
            noting = self._compared(checkpoint)
            self._went_by_wrong_clock()
        if self._outlet:
            self._tell(Telling(self._outlet, checkpoint, self._account), noting.progress)

    def _went_by_wrong_clock(self) -> bool:
        """Whether the vendor's answers show that the windows were of another time: those would leave out what was missed."""
        with suppress(ConfigurationError):  # then nothing was asked, and the report says why
            ahead = self._note_clock()
            return ahead is not None and abs(ahead - self._ahead) > CLOCK_SKEW
        return False

    def _compared(self, checkpoint: Checkpoint) -> Noting:
        if self._since is None:
            self._report.since = min(
                self._report.since, checkpoint.covered(self._now()) or self._report.since
            )
        if self._outlet is None:
            noting = Noting(Nowhere(), None, self._fresh(), self._report.counts)
        else:
            Telling(self._outlet, checkpoint, self._account).left_over(self._report.since, self._until)
            noting = self._resumed(self._outlet, checkpoint)
        self._compare(noting, checkpoint)
        return noting

    def _fresh(self) -> Progress:
        report = self._report
        return Progress(
            report.since, self._until, report.since, report.started_at, report.started_at, Counts()
        )

    def _resumed(self, outlet: Outlet, checkpoint: Checkpoint) -> Noting:
        """Going on where a run was stopped that was asked for the same."""
        report, found = self._report, checkpoint.read(self._report.since, self._until)
        if found:
            report.counts, report.started_at = replace(found.counts), found.started_at
        return Noting(outlet, checkpoint, found or self._fresh(), report.counts)

    def _compare(self, noting: Noting, checkpoint: Checkpoint) -> None:
        with self._failing():
            self._sweep(noting, checkpoint)
        self._report.finished_at = self._now()

    def _sweep(self, noting: Noting, checkpoint: Checkpoint) -> None:
        report, around, found = self._report, self._around, noting.progress
        rest = self._rest
        until = self._until or self._now()
        into_the_future = rest.swept_by == "starts_at" and self._until is None
        report.until = None if into_the_future else until
        lag, before = around.settings.reconcile.lag, report.counts.requests
        ownership = Ownership(rest, around.warehouse, checkpoint, is_confirmed=self._confirm_key)
        sweep = Sweep(
            rest, around.warehouse, Proof(rest, around.warehouse, noting, lag, report.counts), ownership
        )
        sweep.unlisted, sweep.rows = set(found.unlisted), found.rows
        try:
            noting.wait()  # what is in the log tells whose key it is
            ownership.check()
            for window in windows(found.done, until, min(rest.longest, _WINDOW), open_ended=into_the_future):
                noting.begin(window.since, sweep.unlisted, sweep.rows)
                sweep.window(window, partial(self._follow, window))
                report.counts.requests = before + rest.requests
            sweep.finish()
            report.unproven = ownership.unproven()
        finally:
            report.counts.requests = before + rest.requests

    def _follow(self, window: Window, doing: str) -> None:
        reach = f"{window.since:%Y-%m-%d} …{f' {window.until:%Y-%m-%d}' if window.until else ''}"
        self._around.follow(self._report.account, self._report.counts, doing or reach)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """No other account than this one: they go on."""
        try:
            yield
        except IngestError as error:
            self._report.failure = error
            log.warning(
                "reconcile.failed", vendor=self._report.vendor, account=self._report.account, why=str(error)
            )
        except Exception as error:  # our bug, or an answer nobody thought of
            told = f"{self._report.vendor} account {self._report.account}: an answer that is not understood: {type(error).__name__}"
            self._report.failure = VendorUnavailable(told)
            log.exception("reconcile.crashed", vendor=self._report.vendor, account=self._report.account)

    def _tell(self, telling: Telling, progress: Progress) -> None:
        report = self._report
        progress = replace(progress, counts=replace(report.counts), written_at=report.finished_at)
        with self._unless_unrecorded():
            telling.tell(progress, self._end())

    def _end(self) -> End:
        """What was compared with a wrong key, say, is nothing to go on from. What changed too lately to be blamed is the next run's."""
        report = self._report
        if report.failure is not None:
            resumable = not isinstance(report.failure, ConfigurationError)
            return End(report.finished_at, report.until, str(report.failure), resumable)
        covers = None if self._until else report.started_at - self._around.settings.reconcile.lag
        return End(report.finished_at, report.until, None, covers=covers, unproven=report.unproven)

    def _tell_unnoted(self) -> None:
        """The account's notes cannot be used, or must be kept as they are."""
        self._report.finished_at = self._now()
        if self._outlet:
            with self._unless_unrecorded():
                self._outlet.tell(self._report.event())

    @contextmanager
    def _unless_unrecorded(self) -> Iterator[None]:
        report = self._report
        try:
            yield
        except IngestError as error:
            report.unrecorded = error
            log.warning(
                "reconcile.not_recorded", vendor=report.vendor, account=report.account, why=str(error)
            )
