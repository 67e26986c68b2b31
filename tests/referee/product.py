"""The product in memory: a log, a consumer by the consumer's own pure parts, and a warehouse."""

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from consumers.batch import Chunk, Topics, plan_load, read_batch
from consumers.statements import evidence_loads, statement_ids, valid_statements
from ingest.booking import StoredBooking
from ingest.errors import LogUnavailable
from ingest.log import Partition, Record, StoredRecord
from ingest.settings import Settings
from ingest.vendors import BookingMapper
from ingest.warehouse.completeness import COMPLETE, HourVerdict, Verdict, complete_until
from tests.referee.clock import Clock
from tests.referee.warehouse import Contents, Warehouse


class Killed(BaseException):
    """The process was killed here."""


class Product:
    """Log, consumer and warehouse. `kill` is called wherever a process may be killed."""

    def __init__(self, settings: Settings, clock: Clock, chance: random.Random) -> None:
        self.settings, self._clock, self._random = settings, clock, chance
        self._topics = Topics(settings.dead_letter_topic, settings.audit_topic)
        self._mapper = BookingMapper(settings.build_accounts())
        self.log: dict[str, list[Record]] = defaultdict(list)
        self.first: dict[str, int] = defaultdict(int)  # the first record that retention has left
        self.read: dict[str, int] = defaultdict(int)
        self.warehouse = Warehouse()
        self.consumer_runs = True
        self.spool: list[Record] = []
        self.kills_in = 0  # how many more places are passed until the process is killed; 0 is never

    def may_be_killed(self) -> None:
        """Raise Killed where it is time."""
        if self.kills_in:
            self.kills_in -= 1
            if not self.kills_in:
                raise Killed

    # The log, as `Producer` has it.
    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Append records; a kill leaves the first of them."""
        future: Future[None] = Future()
        self.may_be_killed()
        for record in records:
            self.log[topic].append(record)
        self.may_be_killed()
        future.set_result(None)
        return future

    def wait_until_loaded(self) -> None:
        """Load all that is in the log. Raises LogUnavailable while no consumer runs, or the spool is full."""
        self.may_be_killed()
        if self.spool:
            raise LogUnavailable("deliveries wait in the spool")
        if not self.consumer_runs:
            raise LogUnavailable("no consumer has loaded anything")
        self.consume()

    def consume(self) -> None:
        """Read the topics in any order, and load what is new, where the consumer runs."""
        if not self.consumer_runs:
            return
        topics = list(self.log)
        self._random.shuffle(topics)
        for topic in topics:
            self.read[topic] = max(self.read[topic], self.first[topic])
            if self.read[topic] < len(self.log[topic]):
                self._load(topic)

    def _load(self, topic: str) -> None:
        start, end = self.read[topic], len(self.log[topic])
        records = [
            StoredRecord(record, Partition(topic), offset)
            for offset, record in enumerate(self.log[topic][start:end], start)
        ]
        now = self._clock.machine
        items = read_batch(records, self._topics, self._mapper, now).items
        contents = self.warehouse.contents
        stated = {
            (table, row_id): contents.statements[table, row_id]["stated_at"]
            for table, ids in statement_ids(items).items()
            for row_id in ids
            if (table, row_id) in contents.statements
        }
        present = {load for load in evidence_loads(items) if self.has_load(load)}
        chunk = Chunk(valid_statements(items, stated, present))
        bookings = contents.bookings
        rows = {key: row for key in chunk.messages if (row := bookings[key[1]].get(key)) is not None}
        self.read[topic] = end
        self.warehouse.load(plan_load(chunk, rows, now).rows, self.read)

    def restore(self, backup: Contents) -> None:
        """Put a backup into the warehouse's place; the consumer reads again what it lacks."""
        self.warehouse.contents = backup.copy()
        self.read = defaultdict(int, backup.loads.get(self.warehouse.newest_load, {}))

    def restore_log(self, lengths: Mapping[str, int]) -> None:
        """Cut the log to what a backup had; the consumer goes on from there."""
        for topic in self.log:
            del self.log[topic][lengths.get(topic, 0) :]
            self.read[topic] = min(self.read[topic], len(self.log[topic]))

    # The warehouse, as `BookingsTable` and `CompletenessTable` have it.
    def by(
        self, column: str, vendor: str, account: str, keys: Sequence[str]
    ) -> dict[str, list[StoredBooking]]:
        """Return the bookings with one of these keys in the column, by key."""
        self.may_be_killed()
        found: dict[str, list[StoredBooking]] = {}
        for key in keys:
            if column == "booking_id":
                row = self.warehouse.contents.bookings[account].get((vendor, account, key))
                rows = [row] if row else []
            else:
                rows = self.warehouse.of_group(account, key)
            if rows:
                found[key] = [self.warehouse.stored(row) for row in rows]
        return found

    def within(
        self, column: str, vendor: str, account: str, since: datetime, until: datetime | None
    ) -> Iterator[list[tuple[str, datetime]]]:
        """Yield booking ids with their `loaded_at`."""
        self.may_be_killed()
        yield [
            (row["booking_id"], row["loaded_at"])
            for row in self.warehouse.within(account, column, since, until)
            if row["vendor"] == vendor and row["gone_at"] is None
        ]

    def newest(self, vendor: str, account: str, most: int, *, by_webhook: bool) -> list[StoredBooking]:
        """Return the bookings loaded last that are neither cancelled nor gone."""
        rows = [
            row
            for row in self.warehouse.contents.bookings[account].values()
            if row["vendor"] == vendor
            and row["gone_at"] is None
            and row["status"] != "cancelled"
            and not (by_webhook and row["last_via"] == "reconcile")
        ]
        rows.sort(key=lambda row: row["loaded_at"], reverse=True)
        return [self.warehouse.stored(row) for row in rows[:most]]

    def verdicts(
        self, vendor: str, account: str, since: datetime | None = None, until: datetime | None = None
    ) -> dict[datetime, HourVerdict]:
        """Return the stored verdicts by hour."""
        return self.warehouse.verdicts(vendor, account, since, until)

    def complete_until(
        self, vendor: str, account: str, accepted: Collection[Verdict] = COMPLETE
    ) -> datetime | None:
        """Return the end of the hours with accepted verdicts that follow each other from the first one on."""
        return complete_until(self.verdicts(vendor, account).values(), accepted)

    def first_stored(self, vendor: str, account: str) -> datetime | None:
        """Return the first hour that has a verdict."""
        return min(self.warehouse.contents.verdicts[vendor, account], default=None)

    def newest_load(self) -> str | None:
        """Return the newest load."""
        self.may_be_killed()
        newest = self.warehouse.newest_load
        return str(newest) if newest else None

    def has_load(self, load: str) -> bool:
        """Return whether the warehouse has a load."""
        return int(load) in self.warehouse.contents.loads

    def loaded_versions(self, vendor: str, account: str, since: datetime) -> list[tuple[str, datetime]]:
        """Return the versions of bookings that webhooks have changed since then."""
        return [
            (row["version"], row["loaded_at"])
            for row in self.warehouse.within(account, "loaded_at", since)
            if row["vendor"] == vendor and row["last_via"] != "reconcile"
        ]

    def webhook_times(self, *_: Any) -> Iterator[datetime]:
        """Yield nothing: no verdict depends on it."""
        return iter(())
