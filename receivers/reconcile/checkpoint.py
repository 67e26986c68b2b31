"""How far the runs of one account came, on disk: one that was stopped goes on, nothing between two is left out, one runs at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import structlog

from ingest.clock import LOOKBACK_IN_DOUBT, is_future, is_recent
from ingest.errors import ConfigurationError, LogUnavailable, PayloadError
from ingest.event import digest
from ingest.instant import format_instant, parse_instant
from ingest.locks import exclusive
from ingest.private_file import replace_private
from receivers.reconcile.progress import End, Progress, read, written
from receivers.reconcile.report import Counts

log = structlog.get_logger()

# Longer ago, too much may have changed behind what was done already.
_RESUMED_WITHIN = timedelta(days=1)
# How much later than that a run may begin which looked back in doubt, because it took a while.
_ABOUT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A REST credential by its fingerprint, its owner as the vendor names it, whether it read this account's bookings, and its first use."""

    fingerprint: str
    since: datetime
    owner: str | None = None
    proven: bool = False


class Checkpoint:
    """One account's files, in a folder that is made when it is missing. Names with two dots are nobody else's there.

    A dry run makes no folder, because it writes nothing.

    Every call raises LogUnavailable when they cannot be read or written.
    """

    def __init__(self, folder: Path, account: str, *, dry_run: bool = False) -> None:
        """Raises ConfigurationError."""
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
        self._covered = folder / f"{account}.reconciled.until"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises LogUnavailable, which passes, when another process reconciles the account."""

        def busy(holder: str) -> LogUnavailable:
            return LogUnavailable(
                f"another process is reconciling account {self._account}{holder}; wait for it, or stop it"
            )

        with self._usable():
            lock = exclusive(self._folder / f"{self._account}.reconcile.lock", 0, busy)
        with lock:
            yield

    def read(self, since: datetime, until: datetime | None) -> Progress | None:
        """Of a run that was asked for the same and was stopped, not long ago; None when there is none."""
        found = self._read(self._file(since, until))
        return found if found and not _too_old(found) else None

    def write(self, progress: Progress) -> None:
        """Of a run that goes on, or whose end is not told yet."""
        self._put(self._file(progress.since, progress.until), written(progress))

    def clear(self, since: datetime, until: datetime | None) -> None:
        """There is nothing to go on with."""
        with self._usable():
            self._file(since, until).unlink(missing_ok=True)

    def untold(self, since: datetime, until: datetime | None) -> list[Progress]:
        """Ends that are not in the log yet, and what runs found that were stopped, and will not go on as the one that is asked for now.

        Those that found nothing and are too old to go on are forgotten.
        """
        found = [
            progress
            for file in sorted(self._folder.glob(f"{self._account}.*.reconcile"))
            if (progress := self._read(file))
        ]
        left = [
            progress
            for progress in found
            if progress.end or _too_old(progress) or (progress.since, progress.until) != (since, until)
        ]
        told = [progress for progress in left if progress.end or progress.counts != Counts()]
        for progress in left:
            if progress not in told and _too_old(progress):
                self.clear(progress.since, progress.until)
        return told

    def settle(self, progress: Progress, end: End) -> None:
        """Its report is in the log: what it compared is covered, and what it found is not told again. Going on, it counts anew."""
        if end.covers:
            self.cover(progress.since, end.covers)
        if end.resumable and not _too_old(progress):
            self.write(replace(progress, counts=Counts(), end=None))
        else:
            self.clear(progress.since, progress.until)

    def covered(self, now: datetime | None = None) -> datetime | None:
        """Until when runs that came to their end have compared everything, one joining the other; None before the first.

        A mark of the future is of a clock that was ahead, nobody knows how far: what was compared then may have ended long before.
        """
        now, until = now or datetime.now(UTC), self._mark()
        if until is None or not is_future(until, now):
            return until
        log.warning(
            "reconcile.mark_of_the_future",
            account=self._account,
            until=format_instant(until),
            looked_back_days=LOOKBACK_IN_DOUBT.days,
        )
        return now - LOOKBACK_IN_DOUBT

    def cover(self, since: datetime, until: datetime) -> None:
        """A run came to its end; one that leaves a hole after those before it does not count."""
        before = self._mark()
        if before is None:
            joins = True
        elif is_future(before, until):
            joins = since <= until - LOOKBACK_IN_DOUBT + _ABOUT
        else:
            joins = since <= before < until
        if joins:
            self._put(self._covered, format_instant(until).encode())

    def _mark(self) -> datetime | None:
        try:
            with self._usable():
                return parse_instant(self._covered.read_text() if self._covered.exists() else "")
        except (PayloadError, ValueError):
            return None

    def key(self) -> KnownKey | None:
        """Return the REST credential that runs used last; None before the first, and when the file cannot be understood."""
        try:
            with self._usable():
                raw = orjson.loads(self.key_file.read_bytes()) if self.key_file.exists() else {}
            return KnownKey(**raw | {"since": parse_instant(raw["since"])})
        except (PayloadError, ValueError, KeyError, TypeError):
            return None

    def note_key(self, key: KnownKey) -> None:
        """Keep it for the runs that follow; a dry run keeps nothing."""
        if not self._dry_run and key != self.key():
            self._put(self.key_file, orjson.dumps(asdict(key) | {"since": format_instant(key.since)}))

    def _file(self, since: datetime, until: datetime | None) -> Path:
        asked = digest(format_instant(since), format_instant(until) if until else "")
        return self._folder / f"{self._account}.{asked[:16]}.reconcile"

    def _read(self, file: Path) -> Progress | None:
        with self._usable():
            return read(file.read_bytes()) if file.exists() else None

    def _put(self, file: Path, content: bytes) -> None:
        """Whole or not at all, and for good: what the log has been told depends on it."""
        with self._usable():
            replace_private(file, content)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """A full disk is none of the vendor's business."""
        try:
            yield
        except OSError as error:
            raise LogUnavailable(
                f"reconcile.state_dir {self._folder} cannot be used: {error.strerror or error}"
            ) from None


def _too_old(progress: Progress) -> bool:
    return not is_recent(progress.written_at, datetime.now(UTC), _RESUMED_WITHIN)
