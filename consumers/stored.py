"""What the warehouse has of an account's bookings, for reconciliation to compare with what the vendor has."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from consumers.locks import READER_SECONDS, reading_turn
from consumers.query import query
from ingest.booking import COLUMNS, Answer, Booking, BookingStatus, Stored
from ingest.errors import NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.instant import as_utc
from ingest.settings import Settings

if TYPE_CHECKING:
    import duckdb

_PART = 1000
_IDS = 5000
_POLL = 0.1
_COLUMNS = [*COLUMNS, "loaded_at"]
_DUCKDB_MEMORY = "200MB"


class StoredBookings:
    """The rows of `bookings`; none where nothing was loaded yet. Raises WarehouseUnavailable.

    Every call is a turn of its own at the warehouse, so that a consumer loads in between.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.warehouse.duckdb_file

    def by(self, column: Literal["booking_id", "group_id"], vendor: str, account: str, keys: Sequence[str]) -> dict[str, list[Stored]]:
        """Those with one of these values in the column, by that value; gone ones too. A value that none has is left out."""
        found: dict[str, list[Stored]] = {}
        for some in (keys[at : at + _PART] for at in range(0, len(keys), _PART)):
            for stored in self._select(f"{column} IN {self._marks(len(some))}", [vendor, account, *self._given(some)]):
                found.setdefault(getattr(stored.booking, column), []).append(stored)
        return found

    def within(
        self, column: Literal["updated_at", "starts_at"], vendor: str, account: str, since: datetime, until: datetime | None
    ) -> Iterator[list[tuple[str, datetime]]]:
        """Booking ids and `loaded_at` of those with an instant in [since, until) in the column, some thousands at a time; gone ones are left out."""
        before, end = (f" AND {column} < %s", [until]) if until else ("", [])
        place = [""]
        while place:
            where = f"gone_at IS NULL AND {column} >= %s{before} AND booking_id > %s ORDER BY booking_id LIMIT {_IDS}"
            rows = self._ask(["booking_id", "loaded_at"], where, [vendor, account, since, *end, *place])
            if rows:
                yield [(row[0], as_utc(row[1])) for row in rows]
            place = [rows[-1][0]] if len(rows) == _IDS else []

    def _marks(self, number: int) -> str:
        """DuckDB takes a list as one value, which is quicker by far than a thousand."""
        return "(SELECT unnest(%s))" if self._file else f"({', '.join(['%s'] * number)})"

    def _given(self, keys: Sequence[str]) -> Sequence[Any]:
        return [list(keys)] if self._file else keys

    def _select(self, condition: str, parameters: Sequence[Any]) -> list[Stored]:
        return [_stored(row) for row in self._ask(_COLUMNS, condition, parameters)]

    def _ask(self, columns: Sequence[str], condition: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        where = f"WHERE vendor = %s AND account = %s AND {condition}"
        if self._file:
            return self._ask_duckdb(columns, where, parameters)
        try:
            return query(self._settings, f"SELECT {', '.join(columns)} FROM bookings {where}", parameters).rows  # noqa: S608 - our own names
        except (NothingLoaded, NoSuchTable):
            return []

    def _ask_duckdb(self, columns: Sequence[str], where: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Another program that has the file open knows nothing of turns, so it is waited for as a loader is."""
        import duckdb

        path, dataset = self._file, self._settings.warehouse.dataset
        if path is None or not path.exists():
            return []
        sql = f"""SELECT {", ".join(map(_bare, columns))} FROM warehouse."{dataset}".bookings {where}"""  # noqa: S608 - our own names
        free = Retrying(
            retry=retry_if_exception_type(duckdb.IOException), stop=stop_after_delay(READER_SECONDS), wait=wait_fixed(_POLL), reraise=True
        )
        try:
            return free(self._ask_file, path, sql.replace("%s", "?"), parameters)
        except duckdb.CatalogException:
            return []
        except duckdb.IOException as error:
            raise WarehouseUnavailable(f"{path} is held by another program: {str(error).splitlines()[0]}") from None

    def _ask_file(self, path: Path, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The file is attached for one query: starting DuckDB takes forty times as long."""
        with reading_turn(self._settings.warehouse):
            self._reader.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS warehouse (READ_ONLY)")
            try:
                return self._reader.execute(sql, parameters).fetchall()
            finally:
                self._reader.execute("DETACH warehouse")

    @cached_property
    def _reader(self) -> "duckdb.DuckDBPyConnection":
        import duckdb

        return duckdb.connect(config={"memory_limit": _DUCKDB_MEMORY})


def _bare(column: str) -> str:
    """DuckDB makes an instant with a time zone of pytz, which costs more than all the rest of a row."""
    return f"{column} AT TIME ZONE 'UTC'" if column.endswith("_at") else column


def _stored(row: Sequence[Any]) -> Stored:
    told: dict[str, Any] = {
        name: as_utc(value) if isinstance(value, datetime) else value for name, value in zip(_COLUMNS, row, strict=True)
    }
    loaded_at = told.pop("loaded_at")
    told |= {"status": BookingStatus(told["status"]), "version": told["version"].rpartition("/")[0]}
    told |= {name: tuple(_parsed(told[name]) or ()) for name in ("staff", "guests")}
    told["answers"] = tuple(Answer(**answer) for answer in _parsed(told["answers"]) or ())
    told["tracking"] = _parsed(told["tracking"])
    return Stored(Booking(**told), loaded_at)


def _parsed(value: Any) -> Any:
    """JSON as some destinations give it back, parsed, and others as text."""
    return orjson.loads(value) if isinstance(value, str) else value
