"""The product in memory: a log, a consumer by the consumer's own pure parts, and a warehouse with backups."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumers.batch import Chunk, Topics, plan_load, read_batch
from consumers.booking_rows import Row
from consumers.statements import evidence_loads, statement_ids, valid_statements
from ingest.booking import COLUMNS, StoredBooking
from ingest.errors import LogUnavailable
from ingest.log import Partition, Record, StoredRecord
from ingest.settings import Settings
from ingest.vendors import BookingMapper
from ingest.warehouse.bookings import stored_booking
from ingest.warehouse.completeness import HourVerdict, Verdict
from tests.referee.clock import Clock

Key = tuple[str, str, str]

_COLUMNS = [*COLUMNS, "loaded_at"]
_CACHED_ROWS = 20_000


class Killed(BaseException):
    """The process was killed here."""


@dataclass(slots=True)
class Contents:
    """What is in a warehouse, and what had been read of the log by each of its loads."""

    bookings: dict[str, dict[Key, Row]] = field(default_factory=lambda: defaultdict(dict))
    statements: dict[tuple[str, str], Row] = field(default_factory=dict)
    loads: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def copy(self) -> "Contents":
        """Return a backup. Rows are replaced and never changed, so they need no copies."""
        bookings = defaultdict(dict, {name: dict(rows) for name, rows in self.bookings.items()})
        return Contents(bookings, dict(self.statements), dict(self.loads))


class Product:
    """Log, consumer and warehouse. `kill` is called wherever a process may be killed."""

    def __init__(self, settings: Settings, clock: Clock, chance: random.Random) -> None:
        self.settings, self._clock, self._random = settings, clock, chance
        self._topics = Topics(settings.dead_letter_topic, settings.audit_topic)
        self._mapper = BookingMapper(settings.build_accounts())
        self._cache: dict[int, tuple[Row, StoredBooking]] = {}
        self._loads = 0
        self.log: dict[str, list[Record]] = defaultdict(list)
        self.first: dict[str, int] = defaultdict(int)  # the first record that retention has left
        self.read: dict[str, int] = defaultdict(int)
        self.contents = Contents()
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
        """Read the topics in any order, and load what is new."""
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
        contents = self.contents
        stated = {
            (table, row_id): contents.statements[table, row_id]["stated_at"]
            for table, ids in statement_ids(items).items()
            for row_id in ids
            if (table, row_id) in contents.statements
        }
        present = evidence_loads(items) & contents.loads.keys()
        chunk = Chunk(valid_statements(items, stated, present))
        rows = {key: row for key in chunk.messages if (row := contents.bookings[key[1]].get(key)) is not None}
        plan = plan_load(chunk, rows, now)
        for row in plan.rows.get("bookings", ()):
            contents.bookings[row["account"]][row["vendor"], row["account"], row["booking_id"]] = row
        for table in ("completeness", "gaps", "freshness"):
            for row in plan.rows.get(table, ()):
                contents.statements[table, row["id"]] = row
        self.read[topic] = end
        self._loads += 1
        contents.loads[f"{self._loads:012d}"] = dict(self.read)

    def restore(self, backup: Contents) -> None:
        """Put a backup into the warehouse's place; the consumer reads again what it lacks."""
        self.contents = backup.copy()
        newest = max(backup.loads, default=None)
        self.read = defaultdict(int, backup.loads[newest] if newest else {})

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
        rows = self.contents.bookings[account]
        found: dict[str, list[StoredBooking]] = {}
        if column == "booking_id":
            for key in keys:
                if row := rows.get((vendor, account, key)):
                    found[key] = [self._stored(row)]
            return found
        wanted = set(keys)
        for row in rows.values():
            if row[column] in wanted:
                found.setdefault(row[column], []).append(self._stored(row))
        return found

    def within(
        self, column: str, vendor: str, account: str, since: datetime, until: datetime | None
    ) -> Iterator[list[tuple[str, datetime]]]:
        """Yield booking ids with their `loaded_at`."""
        self.may_be_killed()
        yield [
            (row["booking_id"], row["loaded_at"])
            for row in self.contents.bookings[account].values()
            if row["vendor"] == vendor
            and row["gone_at"] is None
            and row[column]
            and since <= row[column]
            and (until is None or row[column] < until)
        ]

    def newest(self, vendor: str, account: str, most: int, *, by_webhook: bool) -> list[StoredBooking]:
        """Return the bookings loaded last that are neither cancelled nor gone."""
        rows = [
            row
            for row in self.contents.bookings[account].values()
            if row["vendor"] == vendor
            and row["gone_at"] is None
            and row["status"] != "cancelled"
            and not (by_webhook and row["last_via"] == "reconcile")
        ]
        rows.sort(key=lambda row: row["loaded_at"], reverse=True)
        return [self._stored(row) for row in rows[:most]]

    def verdicts(
        self, vendor: str, account: str, since: datetime | None = None, until: datetime | None = None
    ) -> dict[datetime, HourVerdict]:
        """Return the stored verdicts by hour."""
        names = HourVerdict.__dataclass_fields__
        stored = {
            row["hour"]: HourVerdict(
                **{name: row[name] for name in names if name != "verdict"}, verdict=Verdict(row["verdict"])
            )
            for (table, _), row in self.contents.statements.items()
            if table == "completeness"
            and (row["vendor"], row["account"]) == (vendor, account)
            and (since is None or row["hour"] >= since)
            and (until is None or row["hour"] < until)
        }
        return dict(sorted(stored.items()))

    def newest_load(self) -> str | None:
        """Return the newest load."""
        self.may_be_killed()
        return max(self.contents.loads, default=None)

    def has_load(self, load: str) -> bool:
        """Return whether the warehouse has a load."""
        return load in self.contents.loads

    def loaded_versions(self, vendor: str, account: str, since: datetime) -> list[tuple[str, datetime]]:
        """Return the versions of bookings that webhooks have changed since then."""
        return [
            (row["version"], row["loaded_at"])
            for row in self.contents.bookings[account].values()
            if row["vendor"] == vendor and row["loaded_at"] >= since and row["last_via"] != "reconcile"
        ]

    def webhook_times(self, *_: Any) -> Iterator[datetime]:
        """Yield nothing: no verdict depends on it."""
        return iter(())

    def _stored(self, row: Row) -> StoredBooking:
        known = self._cache.get(id(row))
        if known and known[0] is row:
            return known[1]
        if len(self._cache) > _CACHED_ROWS:
            self._cache.clear()
        stored = stored_booking({name: row[name] for name in _COLUMNS})
        self._cache[id(row)] = row, stored
        return stored
