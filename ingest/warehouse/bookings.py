"""What the warehouse has of an account's bookings, for reconciliation to compare with what the vendor has."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from ingest.booking import COLUMNS, Answer, Booking, BookingStatus, Stored
from ingest.errors import NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.instant import parse_stored_instant
from ingest.settings import Settings
from ingest.warehouse.lock import READER_SECONDS, reading_turn
from ingest.warehouse.query import Answer as QueryAnswer
from ingest.warehouse.query import query
from ingest.warehouse.values import is_instant, is_version, parsed_json

if TYPE_CHECKING:
    import duckdb

log = structlog.get_logger()

_PART = 1000
_IDS = 5000
_POLL = 0.1
_COLUMNS = [*COLUMNS, "loaded_at"]
_DUCKDB_MEMORY = "200MB"
_NOTHING = QueryAnswer((), ())


class StoredBookings:
    """The rows of `bookings`; none where nothing was loaded yet. Raises WarehouseUnavailable.

    Every call is a turn of its own at the warehouse, so that a consumer loads in between.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.warehouse.duckdb_file
        self._all_present = False

    def by(
        self, column: Literal["booking_id", "group_id"], vendor: str, account: str, keys: Sequence[str]
    ) -> dict[str, list[Stored]]:
        """Those with one of these values in the column, by that value; gone ones too. A value that none has is left out."""
        found: dict[str, list[Stored]] = {}
        for some in (keys[at : at + _PART] for at in range(0, len(keys), _PART)):
            for stored in self._select(
                f"{column} IN {self._marks(len(some))}", [vendor, account, *self._given(some)]
            ):
                found.setdefault(getattr(stored.booking, column), []).append(stored)
        return found

    def within(
        self,
        column: Literal["updated_at", "starts_at"],
        vendor: str,
        account: str,
        since: datetime,
        until: datetime | None,
    ) -> Iterator[list[tuple[str, datetime]]]:
        """Booking ids and `loaded_at` of those with an instant in [since, until) in the column, some thousands at a time; gone ones are left out."""
        before, end = (f" AND {column} < %s", [until]) if until else ("", [])
        place = [""]
        while place:
            where = f"gone_at IS NULL AND {column} >= %s{before} AND booking_id > %s ORDER BY booking_id LIMIT {_IDS}"
            rows = self._ask(["booking_id", "loaded_at"], where, [vendor, account, since, *end, *place]).rows
            if rows:
                yield [(row[0], parse_stored_instant(row[1])) for row in rows]
            place = [rows[-1][0]] if len(rows) == _IDS else []

    def newest(self, vendor: str, account: str, most: int, *, by_webhook: bool) -> list[Stored]:
        """The bookings loaded last that are neither cancelled nor gone; `by_webhook`: whose row no reconciliation made."""
        via = " AND last_via <> 'reconcile'" if by_webhook else ""
        return self._select(
            f"gone_at IS NULL AND status <> 'cancelled'{via} ORDER BY loaded_at DESC LIMIT {most:d}",
            [vendor, account],
        )

    def _marks(self, number: int) -> str:
        """DuckDB takes a list as one value, which is quicker by far than a thousand."""
        return "(SELECT unnest(%s))" if self._file else f"({', '.join(['%s'] * number)})"

    def _given(self, keys: Sequence[str]) -> Sequence[Any]:
        return [list(keys)] if self._file else keys

    def _select(self, condition: str, parameters: Sequence[Any]) -> list[Stored]:
        columns = self._present()
        if not columns:
            return []
        rows = (
            dict(zip(columns, row, strict=True)) for row in self._ask(columns, condition, parameters).rows
        )
        return [stored for row in rows if (stored := _stored_or_none(row))]

    def _present(self) -> Sequence[str]:
        """Return our columns that the table has: a consumer of a newer version adds those that are new when it starts."""
        if not self._all_present:
            there = {column.lower() for column in self._ask(["*"], "1 = 0", ["", ""]).columns}
            self._all_present = there.issuperset(_COLUMNS)
            return [column for column in _COLUMNS if column in there]
        return _COLUMNS

    def _ask(self, columns: Sequence[str], condition: str, parameters: Sequence[Any]) -> QueryAnswer:
        """No rows, and no columns either, where there is no table."""
        where = f"WHERE vendor = %s AND account = %s AND {condition}"
        if self._file:
            return self._ask_duckdb(columns, where, parameters)
        try:
            return query(self._settings, f"SELECT {', '.join(columns)} FROM bookings {where}", parameters)  # noqa: S608 - our own names
        except (NothingLoaded, NoSuchTable):
            return _NOTHING

    def _ask_duckdb(self, columns: Sequence[str], where: str, parameters: Sequence[Any]) -> QueryAnswer:
        """Another program that has the file open knows nothing of turns, so it is waited for as a loader is."""
        import duckdb

        path, dataset = self._file, self._settings.warehouse.dataset
        if path is None or not path.exists():
            return _NOTHING
        sql = f"""SELECT {", ".join(map(_bare, columns))} FROM warehouse."{dataset}".bookings {where}"""  # noqa: S608 - our own names
        free = Retrying(
            retry=retry_if_exception_type(duckdb.IOException),
            stop=stop_after_delay(READER_SECONDS),
            wait=wait_fixed(_POLL),
            reraise=True,
        )
        try:
            return free(self._ask_file, path, sql.replace("%s", "?"), parameters)
        except duckdb.CatalogException:
            return _NOTHING
        except duckdb.IOException as error:
            raise WarehouseUnavailable(
                f"{path} is held by another program: {str(error).splitlines()[0]}"
            ) from None

    def _ask_file(self, path: Path, sql: str, parameters: Sequence[Any]) -> QueryAnswer:
        """The file is attached for one query: starting DuckDB takes forty times as long."""
        with reading_turn(self._settings.warehouse):
            self._reader.execute(
                f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS warehouse (READ_ONLY)"
            )
            try:
                cursor = self._reader.execute(sql, parameters)
                return QueryAnswer([column[0] for column in cursor.description or ()], cursor.fetchall())
            finally:
                self._reader.execute("DETACH warehouse")

    @cached_property
    def _reader(self) -> "duckdb.DuckDBPyConnection":
        import duckdb

        return duckdb.connect(config={"memory_limit": _DUCKDB_MEMORY})


def _bare(column: str) -> str:
    """DuckDB makes an instant with a time zone of pytz, which costs more than all the rest of a row."""
    return f"{column} AT TIME ZONE 'UTC'" if is_instant(column) else column


def _stored_or_none(row: Mapping[str, Any]) -> Stored | None:
    """A row that somebody else wrote and that cannot be read counts as missing, so that it is repaired."""
    try:
        return _stored(row)
    except (ValueError, TypeError, AttributeError) as error:
        log.warning("stored.unreadable", booking_id=row["booking_id"], why=f"{type(error).__name__}: {error}")
        return None


def _stored(row: Mapping[str, Any]) -> Stored:
    told: dict[str, Any] = {
        name: parse_stored_instant(value) if value is not None and is_instant(name) else value
        for name, value in row.items()
    }
    loaded_at = told.pop("loaded_at")
    row_version = told["version"]
    if not is_version(row_version):
        raise ValueError("its version is none")
    told |= {"status": BookingStatus(told["status"]), "version": row_version.rpartition("/")[0]}
    told |= {name: tuple(parsed_json(told.get(name)) or ()) for name in ("staff", "guests")}
    told["answers"] = tuple(Answer(**answer) for answer in parsed_json(told.get("answers")) or ())
    told |= {
        "tracking": parsed_json(told.get("tracking")),
        "column_versions": _versions_or_none(told.get("column_versions")),
    }
    return Stored(Booking(**told), loaded_at, row_version)


def _versions_or_none(value: Any) -> dict[str, str] | None:
    """None also for what somebody wrote by hand: a marked row takes it along, and the consumer would refuse that."""
    versions = parsed_json(value)
    return (
        versions
        if isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())
        else None
    )
