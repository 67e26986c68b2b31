"""Where what was found goes: a vendor's topic, with a note on disk of how much it was; or nowhere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ingest.dead_letter import DeadLetter
from ingest.log import Record
from receivers.reconcile.checkpoint import Checkpoint, Progress
from receivers.reconcile.proof import Log
from receivers.reconcile.repairs import Repairs
from receivers.reconcile.report import Counts, Report


@dataclass(frozen=True, slots=True)
class Topic:
    """A vendor's topic and the dead letters'."""

    repairs: Repairs
    topic: str
    dead_letters: str

    def append(self, records: Sequence[Record]) -> None:
        """Returns when they are durable."""
        self.repairs.append(self.topic, records)

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """As dead letters."""
        self.repairs.append(self.dead_letters, [letter.to_record() for letter in letters])

    def wait(self) -> bool:
        """Until all of the topic is loaded."""
        self.repairs.wait(self.topic)
        return True


class Noting:
    """A log that has what was appended noted on disk: a run that is stopped must not take with it how much it found."""

    def __init__(self, log: Log, checkpoint: Checkpoint | None, report: Report, until: datetime | None) -> None:
        """`until` is what was asked for. Without a checkpoint nothing is noted."""
        self._log = log
        self._checkpoint = checkpoint
        self._report = report
        self._until = until

    def begin(self, done: datetime) -> None:
        """A window; everything before it is done."""
        self._done, self._before = done, replace(self._report.counts)
        self._note(self._before)

    def append(self, records: Sequence[Record]) -> None:
        """What is in the log is loaded before the run goes on, so it counts as repaired. The window's other counts begin again."""
        self._log.append(records)
        now = self._report.counts
        self._note(replace(self._before, missed=now.missed, repaired=now.missed, untold=now.untold, gone=now.gone))

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """As the log does."""
        self._log.set_aside(letters)

    def wait(self) -> bool:
        """As the log does."""
        return self._log.wait()

    def _note(self, counts: Counts) -> None:
        if self._checkpoint:
            report = self._report
            self._checkpoint.write(Progress(report.since, self._until, self._done, report.started_at, datetime.now(UTC), counts))


class Nowhere:
    """What a dry run appends to."""

    def append(self, records: Sequence[Record]) -> None:
        """Nothing is appended."""

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """Nor set aside."""

    def wait(self) -> bool:
        """Nothing is ever loaded."""
        return False
