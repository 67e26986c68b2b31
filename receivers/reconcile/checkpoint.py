"""The checkpoint of an account on disk: how far its runs came, so that one that was stopped is resumed."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from ingest.clock import LOOKBACK_IN_DOUBT, is_future, is_recent
from ingest.errors import ConfigurationError, LogUnavailable, PayloadError
from ingest.event import digest
from ingest.files import replace_private
from ingest.locks import exclusive
from ingest.times import format_instant, parse_instant
from receivers.completeness.census import Census
from receivers.reconcile.report import Counts

log = structlog.get_logger()
T = TypeVar("T")

# After a longer time, too much may have changed in the windows that were done already.
_RESUMED_WITHIN = timedelta(days=1)
# How much less than LOOKBACK_IN_DOUBT a run may reach back that began so far back, because it took a while.
_RUN_TIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, and what happens to its progress once its report is in the log.

    `reached` and `unproven` are the report's. A `resumable` run can go on where it failed. One that is
    complete has compared everything before `covers`.
    """

    finished_at: AwareDatetime
    reached: AwareDatetime | None
    error: str | None
    resumable: bool = False
    covers: AwareDatetime | None = None
    unproven: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run came that was asked for `since` and `until`, which is None for now.

    Everything before `done` is compared. Of the `rows` that the warehouse has there, the vendor listed all
    but those of `unlisted`. A run with an `end` is over, and its report may not be in the log yet.
    """

    since: AwareDatetime
    until: AwareDatetime | None
    done: AwareDatetime
    started_at: AwareDatetime
    written_at: AwareDatetime
    counts: Counts
    unlisted: frozenset[str] = frozenset()
    rows: int = 0
    end: End | None = None


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A REST credential that runs have used, by its fingerprint.

    `since` is its first use, `owner` what the vendor calls its owner. A `proven` one has read this account's
    bookings.
    """

    fingerprint: str
    since: AwareDatetime
    owner: str | None = None
    proven: bool = False


_PROGRESS = TypeAdapter(Progress)
_KEY = TypeAdapter(KnownKey)


class Checkpoint:
    """The files of one account, in a folder that is made when it is missing. A dry run writes nothing.

    Names with two dots belong to no other file there. Every call raises LogUnavailable when a file cannot
    be read or written.
    """

    def __init__(self, folder: Path, account: str, *, dry_run: bool = False) -> None:
        """Raise ConfigurationError when the folder cannot be made."""
        try:
            if not dry_run:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"reconcile.state_dir {folder} cannot be made: {error.strerror}"
            ) from None
        self._folder = folder
        self._account = account
        self._dry_run = dry_run
        self.key_file = folder / f"{account}.reconciled.key"
        self._covered_file = folder / f"{account}.reconciled.until"
        self._asked_file = folder / f"{account}.reconciled.since"

    @contextmanager
    def lock(self, patience: float = 0.0) -> Iterator[None]:
        """Keep other processes from reconciling the account.

        Raises LogUnavailable when one still does after `patience` seconds.
        """
        purpose = f"another process is reconciling account {self._account}"

        def busy(holder: str) -> LogUnavailable:
            return LogUnavailable(f"{purpose}{holder}; wait for it, or stop it")

        with self._usable():
            lock = exclusive(
                self._folder / f"{self._account}.reconcile.lock", patience, busy, purpose=purpose
            )
        with lock:
            yield

    def start(self, since: datetime, until: datetime | None, now: datetime) -> "ProgressRecorder":
        """Resume a run that was asked for the same and was stopped, or begin anew. A dry run begins anew."""
        resumed = None if self._dry_run else self.read(since, until)
        return ProgressRecorder(self, resumed or Progress(since, until, since, now, now, Counts()))

    def read(self, since: datetime, until: datetime | None) -> Progress | None:
        """Return the progress of a run that was asked for the same and was stopped within the last day."""
        progress = _load(_PROGRESS, self._content(self._progress_file(since, until)))
        return progress if progress and not _is_too_old(progress) else None

    def write(self, progress: Progress) -> None:
        """Store the progress of a run that goes on, or whose report is not in the log yet."""
        if not self._dry_run:
            self._replace(self._progress_file(progress.since, progress.until), _PROGRESS.dump_json(progress))

    def clear(self, since: datetime, until: datetime | None) -> None:
        """Forget the progress of a run that will not be resumed."""
        if not self._dry_run:
            with self._usable():
                self._progress_file(since, until).unlink(missing_ok=True)

    def unpublished(self, since: datetime, until: datetime | None) -> list[Progress]:
        """Return the runs whose report has yet to be put into the log.

        These are the runs that ended, and those that were stopped with results and will not be resumed by
        the run that is asked for now. Runs that are too old to resume and found nothing are forgotten.
        """
        unpublished = []
        for file in sorted(self._folder.glob(f"{self._account}.*.reconcile")):
            progress = _load(_PROGRESS, self._content(file))
            if progress is None:
                continue
            is_resumed = (progress.since, progress.until) == (since, until) and not _is_too_old(progress)
            if progress.end or (progress.counts != Counts() and not is_resumed):
                unpublished.append(progress)
            elif _is_too_old(progress):
                self.clear(progress.since, progress.until)
        return unpublished

    def settle(self, progress: Progress, end: End) -> None:
        """Store what follows from a run whose report is in the log by now.

        A complete run extends the time that is covered. A run that can be resumed counts from zero then.
        """
        if end.covers:
            self.cover(progress.since, end.covers)
        if end.resumable and not _is_too_old(progress):
            self.write(replace(progress, counts=Counts(), end=None))
        else:
            self.clear(progress.since, progress.until)

    def covered(self, now: datetime | None = None) -> datetime | None:
        """Return until when complete runs have compared everything without a gap; None before the first.

        A stored time of the future is of a clock that was ahead, nobody knows how far: what was compared
        then may have ended LOOKBACK_IN_DOUBT before now.
        """
        now, covered = now or datetime.now(UTC), self._covered_until()
        if covered is None or not is_future(covered, now):
            return covered
        log.warning(
            "reconcile.mark_of_the_future",
            account=self._account,
            until=format_instant(covered),
            looked_back_days=LOOKBACK_IN_DOUBT.days,
        )
        return now - LOOKBACK_IN_DOUBT

    def cover(self, since: datetime, until: datetime) -> None:
        """Extend the time that is covered by a complete run, unless it leaves a gap after the ones before."""
        before = self._covered_until()
        if before is None:
            joins = True
        elif is_future(before, until):
            joins = since <= until - LOOKBACK_IN_DOUBT + _RUN_TIME
        else:
            joins = since <= before < until
        if joins:
            self._replace(self._covered_file, format_instant(until).encode())

    def note_first_run(self, since: datetime) -> None:
        """Store where an account's first run began that failed, so that the next ones begin there too."""
        if self._covered_until() is None:
            self.cover(since, since)

    def asked_since(self) -> datetime | None:
        """Return the first hour of which a run has left a verdict; None before the first."""
        return self._instant(self._asked_file)

    def note_asked(self, since: datetime) -> None:
        """Store that a run leaves verdicts from an hour on: a restored log and warehouse may lack them."""
        earliest = self.asked_since()
        if not self._dry_run and (earliest is None or since < earliest):
            self._replace(self._asked_file, format_instant(since).encode())

    def key(self) -> KnownKey | None:
        """Return the REST credential that runs used last; None where the file is missing or unreadable."""
        return _load(_KEY, self._content(self.key_file))

    def write_key(self, key: KnownKey) -> None:
        """Store the REST credential that runs use now."""
        if not self._dry_run and key != self.key():
            self._replace(self.key_file, _KEY.dump_json(key))

    def _covered_until(self) -> datetime | None:
        return self._instant(self._covered_file)

    def _instant(self, file: Path) -> datetime | None:
        """Return the time in a file; None where there is none."""
        try:
            return parse_instant(self._content(file).decode())
        except (PayloadError, ValueError):
            return None

    def _progress_file(self, since: datetime, until: datetime | None) -> Path:
        name = digest(format_instant(since), format_instant(until) if until else "")
        return self._folder / f"{self._account}.{name[:16]}.reconcile"

    def _content(self, file: Path) -> bytes:
        """Return what is in a file, nothing where there is none."""
        with self._usable():
            return file.read_bytes() if file.exists() else b""

    def _replace(self, file: Path, content: bytes) -> None:
        """Replace a file durably and atomically: what is in the log already depends on it."""
        with self._usable():
            replace_private(file, content)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Turn an error of the disk into one that names the folder."""
        try:
            yield
        except OSError as error:
            raise LogUnavailable(
                f"reconcile.state_dir {self._folder} cannot be used: {error.strerror or error}"
            ) from None


class ProgressRecorder:
    """The progress of a run that goes on, stored so that a run that is stopped does not lose what it found.

    `counts` grow while the run goes on, and are stored only in parts that a resumed run does not count again.
    `census` is not stored: what a resumed run does not list again, it cannot prove.
    """

    def __init__(self, checkpoint: Checkpoint, progress: Progress) -> None:
        self._checkpoint = checkpoint
        self.progress = progress
        self.counts = replace(progress.counts)
        self.census = Census(progress.done)

    def begin_window(self, start: datetime, unlisted: Collection[str], rows: int) -> None:
        """Store that everything before `start` is compared."""
        self._record(
            replace(
                self.progress,
                done=start,
                unlisted=frozenset(unlisted),
                rows=rows,
                counts=replace(self.counts),
            )
        )

    def note_appended(self) -> None:
        """Store that all that was missed until now is in the log.

        It counts as repaired, because it is loaded before the run goes on. The other counts of the window
        begin anew when the run is resumed.
        """
        counts = replace(
            self.progress.counts,
            missed=self.counts.missed,
            repaired=self.counts.missed,
            untold=self.counts.untold,
            gone=self.counts.gone,
        )
        self._record(replace(self.progress, counts=counts))

    def _record(self, progress: Progress) -> None:
        self.progress = replace(progress, written_at=datetime.now(UTC))
        self._checkpoint.write(self.progress)


def _load(adapter: TypeAdapter[T], content: bytes) -> T | None:
    """Return what was stored, None where it cannot be read: to begin anew costs requests, no more."""
    try:
        return adapter.validate_json(content, strict=True)
    except ValidationError:
        return None


def _is_too_old(progress: Progress) -> bool:
    return not is_recent(progress.written_at, datetime.now(UTC), _RESUMED_WITHIN)
