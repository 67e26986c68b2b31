"""How far the runs of one account came, on disk: one that was stopped goes on, nothing between two is left out, one runs at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from ingest.errors import ConfigurationError, LogUnavailable, PayloadError
from ingest.instant import format_instant, parse_instant
from receivers.reconcile.report import Counts


@dataclass(frozen=True, slots=True)
class Progress:
    """A run that was asked for `since` and `until` (None: until now) has compared everything before `done`."""

    since: datetime
    until: datetime | None
    done: datetime
    started_at: datetime
    counts: Counts


class Checkpoint:
    """One account's file, in a folder that is made when it is missing."""

    def __init__(self, folder: Path, account: str) -> None:
        """Raises ConfigurationError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"reconcile.state_dir {folder} cannot be made: {error.strerror}") from None
        self._file = folder / f"{account}.json"
        self._covered = folder / f"{account}.covered"
        self._account = account

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises LogUnavailable, which passes, when another process reconciles the account."""
        lock = FileLock(self._file.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LogUnavailable(f"another process is reconciling account {self._account}; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def read(self, since: datetime, until: datetime | None) -> Progress | None:
        """Of a run that was asked for the same and was stopped; None when there is none."""
        try:
            raw = orjson.loads(self._file.read_bytes())
            asked = (parse_instant(raw["since"]), raw["until"] and parse_instant(raw["until"]))
            found = Progress(*asked, parse_instant(raw["done"]), parse_instant(raw["started_at"]), Counts(**raw["counts"]))
        except (FileNotFoundError, PayloadError, ValueError, KeyError, TypeError):
            return None  # what cannot be read cannot be resumed; starting over costs requests, no more
        return found if asked == (since, until) else None

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

    def write(self, progress: Progress) -> None:
        """Of a run that is not at its end."""
        raw = {
            "since": format_instant(progress.since),
            "until": progress.until and format_instant(progress.until),
            "done": format_instant(progress.done),
            "started_at": format_instant(progress.started_at),
            "counts": asdict(progress.counts),
        }
        self._put(self._file, orjson.dumps(raw))

    def clear(self) -> None:
        """There is nothing to go on with."""
        self._file.unlink(missing_ok=True)

    def _put(self, file: Path, content: bytes) -> None:
        """Whole or not at all."""
        fresh = file.with_name(f"{file.name}.new")
        fresh.write_bytes(content)
        fresh.replace(file)
