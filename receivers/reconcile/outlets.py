"""Where what was found goes: a vendor's topic, with a note on disk of how much it was; or nowhere."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from ingest.dead_letter import DeadLetter, append_dead_letters
from ingest.errors import LogRefused
from ingest.event import Event
from ingest.log import APPEND_SECONDS, Producer, Record, append_records, wait_until_durable
from ingest.log.consumption import wait_until_consumed
from ingest.settings import Settings
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.progress import Progress
from receivers.reconcile.repairs import Log
from receivers.reconcile.report import Counts
from receivers.reconcile.waiting import wait_for_spools

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outlet:
    """The log's topics: a vendor's, the dead letters', and the audit's. Every call raises LogUnavailable."""

    settings: Settings
    producer: Producer
    topic: str

    def append(self, records: Sequence[Record]) -> None:
        """Returns when they are durable. One that the log refuses, because it is too large, is set aside and holds up no other."""
        refused = append_records(self.producer, self.topic, records, APPEND_SECONDS, "what was found")
        if refused:
            self.set_aside([_letter(record, refusal) for record, refusal in refused])

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """As dead letters."""
        append_dead_letters(self.producer, self.settings.dead_letter_topic, letters, APPEND_SECONDS)

    def tell(self, event: Event) -> None:
        """How a run ended. Returns when it is durable."""
        self._append(self.settings.audit_topic, [event.to_record()])

    def wait(self) -> bool:
        """Until all that was acknowledged is loaded, as far as it can be seen from here."""
        wait_for_spools(self.settings)
        wait_until_consumed(self.settings.build_log(), [self.topic])
        return True

    def _append(self, topic: str, records: Sequence[Record]) -> None:
        wait_until_durable(self.producer.append(topic, records), APPEND_SECONDS, "what was found")


def _letter(record: Record, refusal: LogRefused) -> DeadLetter:
    """Without a delivery's headers, as of every record of REST: the next run finds it again, and it is the same letter."""
    event = Event.from_record(record)
    log.warning(
        "reconcile.refused",
        source=event.source,
        subject=event.subject,
        bytes=len(event.data),
        why=str(refusal),
    )
    return DeadLetter(
        source=event.source,
        reason="log_refused",
        detail=str(refusal),
        happened_at=event.received_at,
        data=event.data,
        headers={},
    )


class Noting:
    """A log that has what was appended noted on disk: a run that is stopped must not take with it how much it found."""

    def __init__(self, log: Log, checkpoint: Checkpoint | None, progress: Progress, counts: Counts) -> None:
        """`counts` grows while the run does. Without a checkpoint nothing is noted."""
        self._log = log
        self._checkpoint = checkpoint
        self._counts = counts
        self.progress = progress

    def begin(self, done: datetime, unlisted: Collection[str], rows: int) -> None:
        """A window; everything before it is done."""
        self._before = replace(self._counts)
        self._note(
            replace(self.progress, done=done, unlisted=frozenset(unlisted), rows=rows, counts=self._before)
        )

    def append(self, records: Sequence[Record]) -> None:
        """What is in the log is loaded before the run goes on, so it counts as repaired. The window's other counts begin again."""
        self._log.append(records)
        now = self._counts
        counts = replace(
            self._before, missed=now.missed, repaired=now.missed, untold=now.untold, gone=now.gone
        )
        self._note(replace(self.progress, counts=counts))

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """As the log does."""
        self._log.set_aside(letters)

    def wait(self) -> bool:
        """As the log does."""
        return self._log.wait()

    def _note(self, progress: Progress) -> None:
        self.progress = replace(progress, written_at=datetime.now(UTC))
        if self._checkpoint:
            self._checkpoint.write(self.progress)


class Nowhere:
    """What a dry run appends to."""

    def append(self, records: Sequence[Record]) -> None:
        """Nothing is appended."""

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """Nor set aside."""

    def wait(self) -> bool:
        """Nothing is ever loaded."""
        return False
