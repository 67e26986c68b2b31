"""The bookings of an account as the warehouse has them, for reconciliation to compare with the vendor's."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import structlog

from ingest.booking import COLUMNS, Answer, Booking, BookingStatus, StoredBooking
from ingest.destinations import DUCKDB, Destination
from ingest.errors import NothingLoaded
from ingest.settings import Settings
from ingest.times import parse_stored_instant
from ingest.warehouse import EMPTY_RESULT, QueryResult, is_instant, is_version, parsed_json
from ingest.warehouse.duckdb_file import DuckDBFile
from ingest.warehouse.query import query_or_empty

log = structlog.get_logger()

_KEYS_PER_QUERY = 1000
_IDS_PER_PAGE = 5000
_COLUMNS = [*COLUMNS, "loaded_at"]


class BookingsTable:
    """The table `bookings`, without rows where nothing was loaded yet.

    Every call raises WarehouseUnavailable. Each query is a turn of its own at the warehouse, so that a
    consumer can load in between.
    """

    def __init__(self, settings: Settings) -> None:
        file = settings.warehouse.duckdb_file
        self._settings = settings
        self._duckdb = DuckDBFile(file, settings.warehouse) if file else None
        # The columns of ours that the table has. A consumer adds those that are new when it starts, so they
        # are read again until all are there.
        self._columns: list[str] = []

    def by(
        self, column: Literal["booking_id", "group_id"], vendor: str, account: str, keys: Sequence[str]
    ) -> dict[str, list[StoredBooking]]:
        """Return the bookings with one of these keys in the column, by key, including gone ones."""
        bookings: dict[str, list[StoredBooking]] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some_keys = keys[start : start + _KEYS_PER_QUERY]
            # DuckDB takes a list as one value, which is quicker by far than a thousand.
            marks = "SELECT unnest(%s)" if self._duckdb else ", ".join(["%s"] * len(some_keys))
            parameters = [list(some_keys)] if self._duckdb else some_keys
            for stored in self._select(f"{column} IN ({marks})", [vendor, account, *parameters]):
                bookings.setdefault(getattr(stored.booking, column), []).append(stored)
        return bookings

    def within(
        self,
        column: Literal["updated_at", "starts_at"],
        vendor: str,
        account: str,
        since: datetime,
        until: datetime | None,
    ) -> Iterator[list[tuple[str, datetime]]]:
        """Yield pages of booking ids with their `loaded_at`.

        The bookings have an instant in [since, until) in the column. Gone bookings are left out.
        """
        before, end = (f" AND {column} < %s", [until]) if until else ("", [])
        condition = (
            f"gone_at IS NULL AND {column} >= %s{before} AND booking_id > %s"
            f" ORDER BY booking_id LIMIT {_IDS_PER_PAGE}"
        )
        last_id = ""
        while True:
            parameters = [vendor, account, since, *end, last_id]
            rows = self._query(["booking_id", "loaded_at"], condition, parameters).rows
            if rows:
                yield [(row[0], parse_stored_instant(row[1])) for row in rows]
            if len(rows) < _IDS_PER_PAGE:
                return
            last_id = rows[-1][0]

    def newest(self, vendor: str, account: str, most: int, *, by_webhook: bool) -> list[StoredBooking]:
        """Return the bookings loaded last that are neither cancelled nor gone.

        `by_webhook` leaves out those whose row was made by a reconciliation.
        """
        via = " AND last_via <> 'reconcile'" if by_webhook else ""
        return self._select(
            f"gone_at IS NULL AND status <> 'cancelled'{via} ORDER BY loaded_at DESC LIMIT {most:d}",
            [vendor, account],
        )

    def _select(self, condition: str, parameters: Sequence[Any]) -> list[StoredBooking]:
        columns = self._columns
        if columns != _COLUMNS:
            existing = {column.lower() for column in self._query(["*"], "1 = 0", ["", ""]).columns}
            self._columns = columns = [column for column in _COLUMNS if column in existing]
        if not columns:
            return []
        bookings: list[StoredBooking] = []
        for row in QueryResult(columns, self._query(columns, condition, parameters).rows).dicts():
            try:
                bookings.append(stored_booking(row, self._settings.warehouse.kind))
            except (ValueError, TypeError, AttributeError) as error:
                # A row that somebody else wrote and that cannot be read counts as missing, and is repaired.
                why = f"{type(error).__name__}: {error}"
                log.warning("stored.unreadable", booking_id=row["booking_id"], why=why)
        return bookings

    def _query(self, columns: Sequence[str], condition: str, parameters: Sequence[Any]) -> QueryResult:
        where = f"vendor = %s AND account = %s AND {condition}"
        if not self._duckdb:
            sql = f"SELECT {', '.join(columns)} FROM bookings WHERE {where}"  # noqa: S608 - our own names
            return query_or_empty(self._settings, sql, parameters)
        # DuckDB makes an instant with a time zone of pytz, which costs more than all the rest of a row.
        naive = (f"{name} AT TIME ZONE 'UTC'" if is_instant(name) else name for name in columns)
        sql = f"SELECT {', '.join(naive)} FROM bookings WHERE {where}"  # noqa: S608 - our own names
        try:
            return self._duckdb.query_plain(sql.replace("%s", "?"), parameters)
        except NothingLoaded:
            return EMPTY_RESULT


def stored_booking(row: Mapping[str, Any], destination: Destination = DUCKDB) -> StoredBooking:
    """Return the booking of a row. Raises ValueError, TypeError or AttributeError when it is not readable."""
    columns: dict[str, Any] = {
        name: parse_stored_instant(value) if value is not None and is_instant(name) else value
        for name, value in row.items()
    }
    loaded_at, row_version = columns.pop("loaded_at"), columns["version"]
    if not is_version(row_version):
        raise ValueError("its version is none")
    column_versions = parsed_json(columns.get("column_versions"))
    # A row that is marked as gone takes them along, and the consumer would refuse what was written by hand.
    is_readable = isinstance(column_versions, dict) and all(
        isinstance(text, str) for text in column_versions.values()
    )
    columns |= {
        "status": BookingStatus(columns["status"]),
        "version": row_version.rpartition("/")[0],
        "answers": tuple(Answer(**answer) for answer in parsed_json(columns.get("answers")) or ()),
        "tracking": parsed_json(columns.get("tracking")),
        "column_versions": column_versions if is_readable else None,
    }
    columns |= {name: tuple(parsed_json(columns.get(name)) or ()) for name in ("staff", "guests")}
    return StoredBooking(Booking(**columns), loaded_at, row_version, destination)
