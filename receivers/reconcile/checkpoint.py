"""How far the runs of one account came, on disk: one that was stopped goes on, nothing between two is left out, one runs at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from ingest.errors import ConfigurationError, LogUnavailable, PayloadError
from ingest.event import digest
from ingest.instant import format_instant, parse_instant
from receivers.reconcile.report import Counts

# Longer ago, too much may have changed behind what was done already.
_RESUMED_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Progress:
    """A run that was asked for `since` and `until` (None: until now) has compared everything before `done`."""

    since: datetime
    until: datetime | None
    done: datetime
    started_at: datetime
    written_at: datetime
    counts: Counts


class Checkpoint:
    """One account's files, in a folder that is made when it is missing. Names with two dots are nobody else's there."""

    def __init__(self, folder: Path, account: str) -> None:
        """Raises ConfigurationError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"reconcile.state_dir {folder} cannot be made: {error.strerror}") from None
        self._folder = folder
        self._account = account
        self._covered = folder / f"{account}.reconciled.until"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises LogUnavailable, which passes, when another process reconciles the account."""
        lock = FileLock(self._folder / f"{self._account}.reconcile.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LogUnavailable(f"another process is reconciling account {self._account}; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def read(self, since: datetime, until: datetime | None) -> Progress | None:
        """Of a run that was asked for the same and was stopped, not long ago; None when there is none."""
        found = _read(self._file(since, until))
        return found if found and datetime.now(UTC) - found.written_at < _RESUMED_WITHIN else None

    def write(self, progress: Progress) -> None:
        """Of a run that is not at its end."""
        raw = {
            "since": format_instant(progress.since),
            "until": progress.until and format_instant(progress.until),
            "done": format_instant(progress.done),
            "started_at": format_instant(progress.started_at),
            "written_at": format_instant(progress.written_at),
            "counts": asdict(progress.counts),
        }
        self._put(self._file(progress.since, progress.until), orjson.dumps(raw))

    def clear(self, since: datetime, until: datetime | None) -> None:
        """There is nothing to go on with."""
        self._file(since, until).unlink(missing_ok=True)

    def stopped(self, since: datetime, until: datetime | None) -> list[Progress]:
        """Runs that were asked for something else, stopped, and found something that nobody was told of. Old ones are forgotten."""
        files = set(self._folder.glob(f"{self._account}.*.reconcile")) - {self._file(since, until)}
        found = [progress for file in sorted(files) if (progress := _read(file))]
        for progress in found:
            self.told(progress)
        return [progress for progress in found if progress.counts != Counts()]

    def told(self, progress: Progress) -> None:
        """What a stopped run found is recorded by the caller; going on, it counts anew. What is too old to go on is forgotten."""
        if datetime.now(UTC) - progress.written_at < _RESUMED_WITHIN:
            self.write(replace(progress, counts=Counts()))
        else:
            self.clear(progress.since, progress.until)

    def covered(self) -> datetime | None:
        """Until when runs that came to their end have compared everything, one joining the other; None before the first."""
        try:
            return parse_instant(self._covered.read_text())
        except (FileNotFoundError, PayloadError, ValueError):
            return None

    def cover(self, since: datetime, until: datetime) -> None:
        """A run came to its end; one that leaves a hole after those before it does not count."""
        before = self.covered()
        if before is None or since <= before < until:
            self._put(self._covered, format_instant(until).encode())

    def _file(self, since: datetime, until: datetime | None) -> Path:
        asked = digest(format_instant(since), format_instant(until) if until else "")
        return self._folder / f"{self._account}.{asked[:16]}.reconcile"

    def _put(self, file: Path, content: bytes) -> None:
        """Whole or not at all."""
        fresh = file.with_name(f"{file.name}.new")
        fresh.write_bytes(content)
        fresh.replace(file)


def _read(file: Path) -> Progress | None:
    """What cannot be read cannot be resumed; starting over costs requests, no more."""
    try:
        raw = orjson.loads(file.read_bytes())
        since, done, started_at, written_at = (parse_instant(raw[name]) for name in ("since", "done", "started_at", "written_at"))
        return Progress(since, raw["until"] and parse_instant(raw["until"]), done, started_at, written_at, Counts(**raw["counts"]))
    except (FileNotFoundError, PayloadError, ValueError, KeyError, TypeError):
        return None
