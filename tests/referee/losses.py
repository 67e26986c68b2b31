"""The product in memory when its log loses records, and what was kept away from it."""

import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, SupportsIndex

from consumers.positions import _APPENDING
from ingest.event import Cause, Event, build_loss_note
from ingest.log import Backlog, Partition, Record, Start, StoredRecord
from ingest.settings import Settings
from tests.referee.clock import Clock
from tests.referee.product import Product


@dataclass(frozen=True, slots=True)
class Miss:
    """A delivery that the product did not get, or lost, and what kept it away.

    One that is no `news` told of nothing that the warehouse did not have by then: a webhook that was sent
    twice, or one so late that a comparison had found the change. That one stayed away, nobody can notice.
    """

    cause: Cause
    source: str
    at: datetime
    news: bool = True


class TimedRecords(list[Record]):
    """The records of a topic, and the Unix times at which they were appended, by the log's clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.times: list[float] = []

    def append(self, record: Record) -> None:
        super().append(record)
        self.times.append(self._clock.now.timestamp())

    def extend(self, records: Iterable[Record]) -> None:
        for record in records:
            self.append(record)

    def __delitem__(self, key: SupportsIndex | slice) -> None:
        super().__delitem__(key)
        del self.times[key]


class GapProduct(Product):
    """The product whose consumer notes what its log lost before that was loaded, as `consumers` does."""

    def __init__(self, settings: Settings, clock: Clock, chance: random.Random) -> None:
        super().__init__(settings, clock, chance)
        self.records: dict[str, TimedRecords] = defaultdict(lambda: TimedRecords(clock))
        self.log = self.records  # type: ignore[assignment]
        self.misses: list[Miss] = []

    def consume(self) -> None:
        """Note what was deleted unread, and load the rest."""
        if not self.consumer_runs:
            return
        deleted = [topic for topic in self.log if self.read[topic] < self.first[topic]]
        self.lose(Cause.LOG_DELETED, {topic: (self.read[topic], self.first[topic]) for topic in deleted})
        super().consume()

    def lose(self, cause: Cause, spans: Mapping[str, tuple[int, int]]) -> None:
        """Note that the records of these offsets are lost, by topic."""
        for topic, (first, end) in spans.items():
            self.note_misses(cause, self.log[topic][first:end])
            if first < end:
                self.note_loss(cause, topic, first)

    def note_loss(self, cause: Cause, topic: str, first: int) -> None:
        """Append the consumer's notes that a topic lost records from an offset on."""
        since: datetime | None = None
        if first:
            since = datetime.fromtimestamp(int(self.records[topic].times[first - 1]), UTC) - _APPENDING
        for name, account in self.settings.accounts.items():
            if self.settings.topic(account.vendor) == topic:
                note = build_loss_note(
                    f"/{account.vendor}/{name}", self._clock.machine, topic, cause=cause, since=since
                )
                self.log[self.settings.audit_topic].append(note.to_record())

    def note_misses(self, cause: Cause, records: Sequence[Record]) -> None:
        """Remember that these deliveries were lost."""
        for event in map(Event.from_record, records):
            if not event.type.startswith("ingest."):
                self.misses.append(Miss(cause, event.source, event.received_at))

    # The log, as `Log` has it.
    def reader(self, since: Start, topics: Sequence[str]) -> Any:
        """Return a reader of one topic."""
        self.may_be_killed()
        (topic,) = topics
        records, times = self.records[topic], self.records[topic].times
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

    # The warehouse, as `ingest.warehouse.deliveries` reads it.
    def last_deliveries(self) -> dict[tuple[str, str], datetime]:
        """Return when each account's newest webhook came."""
        return self.warehouse.contents.newest_deliveries

    def deliveries_around(
        self, account: tuple[str, str], before: datetime, after: datetime
    ) -> tuple[datetime | None, datetime | None]:
        """Return when the last webhook came until `before`, and the first one since `after`."""
        received = self.warehouse.contents.deliveries[account].values()
        return (
            max((at for at in received if at <= before), default=None),
            min((at for at in received if at >= after), default=None),
        )

    def hourly_deliveries(self, since: datetime, account: tuple[str, str]) -> dict[datetime, int]:
        """Return how many webhooks came in each hour since then."""
        counts: dict[datetime, int] = defaultdict(int)
        for received_at in self.warehouse.contents.deliveries[account].values():
            if received_at >= since:
                counts[received_at.replace(minute=0, second=0, microsecond=0)] += 1
        return counts

    def missed_changes(
        self, loaded_since: datetime, changed_since: datetime
    ) -> dict[tuple[str, str], list[datetime]]:
        """Return when changes happened that webhooks missed and reconciliation has loaded, newest first."""
        changes: dict[tuple[str, str], list[datetime]] = defaultdict(list)
        for name, account in self.settings.accounts.items():
            for row in self.warehouse.within(name, "loaded_at", loaded_since):
                is_missed = row["last_via"] == "reconcile" and row["status"] != "pending"
                if is_missed and not row["gone_at"] and row["updated_at"] >= changed_since:
                    changes[account.vendor, name].append(row["updated_at"])
        return {key: sorted(of_account, reverse=True) for key, of_account in changes.items()}
