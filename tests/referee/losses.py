"""The product in memory when its log loses records, and what was kept away from it."""

import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from ingest.event import Cause, Event, build_loss_note
from ingest.log import Backlog, Partition, Record, Start, StoredRecord
from ingest.settings import Settings
from tests.referee.clock import START, Clock
from tests.referee.product import Product


@dataclass(frozen=True, slots=True)
class Miss:
    """A delivery that the product did not get, or lost, and what kept it away."""

    cause: Cause
    source: str
    at: datetime


class GapProduct(Product):
    """The product whose consumer notes what its log lost before that was loaded, as `consumers` does."""

    def __init__(self, settings: Settings, clock: Clock, chance: random.Random) -> None:
        super().__init__(settings, clock, chance)
        self.times: dict[str, list[float]] = defaultdict(list)  # by topic: when each record was appended
        self.loaded_at: dict[str, datetime] = defaultdict(lambda: START)
        self.load_times: dict[int, datetime] = {}
        self.misses: list[Miss] = []

    def consume(self) -> None:
        """Note what was deleted unread, and load the rest."""
        deleted = [topic for topic in self.log if self.read[topic] < self.first[topic]]
        self.lose(Cause.LOG_DELETED, {topic: (self.read[topic], self.first[topic]) for topic in deleted})
        super().consume()
        for topic in self.log:
            self.loaded_at[topic] = self._clock.machine
        self.load_times[self.warehouse.newest_load] = self._clock.machine

    def lose(self, cause: Cause, spans: Mapping[str, tuple[int, int]], since: datetime | None = None) -> None:
        """Note that the records of these offsets are lost, by topic. They were received since then."""
        for topic, (first, end) in spans.items():
            self.note_misses(cause, self.log[topic][first:end])
            if first < end:
                self.note_loss(cause, topic, since)

    def note_loss(self, cause: Cause, topic: str, since: datetime | None = None) -> None:
        """Append the consumer's notes that a topic lost records."""
        now = self._clock.machine
        for name, account in self.settings.accounts.items():
            if self.settings.topic(account.vendor) == topic:
                since = since or self.loaded_at[topic]
                note = build_loss_note(f"/{account.vendor}/{name}", now, topic, cause=cause, since=since)
                self.log[self.settings.audit_topic].append(note.to_record())

    def note_misses(self, cause: Cause, records: Sequence[Record]) -> None:
        """Remember that these deliveries were lost."""
        for event in map(Event.from_record, records):
            if not event.type.startswith("ingest."):
                self.misses.append(Miss(cause, event.source, event.received_at))

    # The log, as `Log` has it.
    def note_times(self) -> None:
        """Take the records of which nobody knows when they were appended for appended now."""
        for topic, records in self.log.items():
            del self.times[topic][len(records) :]
            missing = len(records) - len(self.times[topic])
            self.times[topic] += [self._clock.now.timestamp()] * missing

    def reader(self, since: Start, topics: Sequence[str]) -> Any:
        """Return a reader of one topic."""
        self.may_be_killed()
        self.note_times()
        (topic,) = topics
        times, records = self.times[topic], self.log[topic]
        first = self.first[topic]
        if isinstance(since, datetime):
            first = max(first, bisect_left(times, since.timestamp()))
        elif since:
            first = max(first, since.get(0, 0))
        stored = [
            StoredRecord(records[offset], Partition(topic), offset, times[offset])
            for offset in range(first, len(records))
        ]
        return SimpleNamespace(records=lambda: stored, close=lambda: None)

    def backlog(self) -> list[Backlog]:
        """Return how far each topic was read."""
        return [Backlog(Partition(topic), len(self.log[topic]), self.read[topic]) for topic in self.log]
