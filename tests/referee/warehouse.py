"""A warehouse in memory, with backups, as the product's own tables would answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from consumers.booking_rows import Row
from ingest.booking import COLUMNS, StoredBooking
from ingest.warehouse.bookings import stored_booking
from ingest.warehouse.completeness import HOUR, HourVerdict, Verdict, hour_of

Key = tuple[str, str, str]
Account = tuple[str, str]
"""A vendor and an account."""
Statement = tuple[str, str]
"""A table of statements, and the id of a row in it."""

_COLUMNS = [*COLUMNS, "loaded_at"]
_CACHED_ROWS = 20_000
_INDEXED_INSTANTS = ("updated_at", "starts_at", "loaded_at")


@dataclass(slots=True)
class Contents:
    """The rows, and the loads with what had been read of each topic. Rows are replaced and never changed.

    `deliveries` are when webhooks were received, by the ids of their events.
    """

    bookings: dict[str, dict[Key, Row]] = field(default_factory=lambda: defaultdict(dict))
    statements: dict[Statement, Row] = field(default_factory=dict)
    verdicts: dict[Account, dict[datetime, HourVerdict]] = field(default_factory=lambda: defaultdict(dict))
    deliveries: dict[Account, dict[str, datetime]] = field(default_factory=lambda: defaultdict(dict))
    newest_deliveries: dict[Account, datetime] = field(default_factory=dict)
    loads: dict[int, Mapping[str, int]] = field(default_factory=dict)

    def copy(self) -> "Contents":
        """Return a backup."""
        bookings = defaultdict(dict, {name: dict(rows) for name, rows in self.bookings.items()})
        verdicts = defaultdict(dict, {name: dict(hours) for name, hours in self.verdicts.items()})
        deliveries = defaultdict(dict, {name: dict(of) for name, of in self.deliveries.items()})
        return Contents(
            bookings,
            dict(self.statements),
            verdicts,
            deliveries,
            dict(self.newest_deliveries),
            dict(self.loads),
        )


class Warehouse:
    """The tables `bookings` and those of statements. `contents` may be replaced by a backup."""

    def __init__(self) -> None:
        self.contents = Contents()
        self._last_load = 0
        # The keys of the rows that ever had a value, so that few rows are read. Some have another one now.
        self._index: dict[tuple[str, str], dict[Any, dict[Key, None]]] = defaultdict(dict)
        self._cache: dict[int, tuple[Row, StoredBooking]] = {}

    def load(self, tables: Mapping[str, Sequence[Row]], read: Mapping[str, int]) -> None:
        """Load rows, and note how far each topic was read."""
        contents = self.contents
        for row in tables.get("bookings", ()):
            self._put_booking(row)
        for table in ("completeness", "gaps", "freshness"):
            for row in tables.get(table, ()):
                contents.statements[table, row["id"]] = row
        for row in tables.get("booking_events", ()):
            if row["signed_by"]:
                account, received_at = (row["vendor"], row["account"]), row["received_at"]
                contents.deliveries[account].setdefault(row["id"], received_at)
                newest = contents.newest_deliveries.get(account, received_at)
                contents.newest_deliveries[account] = max(newest, received_at)
        for row in tables.get("completeness", ()):
            contents.verdicts[row["vendor"], row["account"]][row["hour"]] = _verdict(row)
        self._last_load += 1
        contents.loads[self._last_load] = dict(read)

    @property
    def newest_load(self) -> int:
        """The newest load; 0 before the first."""
        return next(reversed(self.contents.loads), 0)

    def of_group(self, account: str, group: str) -> list[Row]:
        """Return an account's bookings with a `group_id`."""
        keys = self._index[account, "group_id"].get(group, ())
        return [row for row in self._rows(account, keys) if row["group_id"] == group]

    def within(
        self, account: str, column: str, since: datetime, until: datetime | None = None
    ) -> Iterator[Row]:
        """Yield an account's bookings with an instant in [since, until) in a column."""
        first, last = since.date(), until.date() if until else date.max
        keys: dict[Key, None] = {}
        for day, of_day in self._index[account, column].items():
            if first <= day <= last:
                keys |= of_day
        for row in self._rows(account, keys):
            if row[column] and since <= row[column] and (until is None or row[column] < until):
                yield row

    def verdicts(
        self, vendor: str, account: str, since: datetime | None, until: datetime | None
    ) -> dict[datetime, HourVerdict]:
        """Return the verdicts on the hours that begin in [since, until), in their order."""
        hours = self.contents.verdicts[vendor, account]
        if not hours:
            return {}
        first, last = (since and hour_of(since)) or min(hours), until or max(hours) + HOUR
        found, hour = {}, first
        while hour < last:
            if hour in hours and (since is None or hour >= since):
                found[hour] = hours[hour]
            hour += HOUR
        return found

    def stored(self, row: Row) -> StoredBooking:
        """Return the booking of a row."""
        known = self._cache.get(id(row))
        if known and known[0] is row:
            return known[1]
        if len(self._cache) > _CACHED_ROWS:
            self._cache.clear()
        stored = stored_booking({name: row[name] for name in _COLUMNS})
        self._cache[id(row)] = row, stored
        return stored

    def _put_booking(self, row: Row) -> None:
        account, key = row["account"], (row["vendor"], row["account"], row["booking_id"])
        self.contents.bookings[account][key] = row
        self._index[account, "group_id"].setdefault(row["group_id"], {})[key] = None
        for column in _INDEXED_INSTANTS:
            if row[column]:
                self._index[account, column].setdefault(row[column].date(), {})[key] = None

    def _rows(self, account: str, keys: Iterable[Key]) -> Iterator[Row]:
        rows = self.contents.bookings[account]
        return (rows[key] for key in keys if key in rows)


def _verdict(row: Row) -> HourVerdict:
    names = HourVerdict.__dataclass_fields__
    columns = {name: row[name] for name in names if name != "verdict"}
    return HourVerdict(**columns, verdict=Verdict(row["verdict"]))
