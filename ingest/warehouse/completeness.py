"""The verdicts on the hours of an account, as the table `completeness` has them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from ingest.destinations import FILESYSTEM
from ingest.settings import Settings
from ingest.times import format_instant, parse_stored_instant
from ingest.warehouse import QueryResult
from ingest.warehouse.query import query_or_empty

HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class Verdict(StrEnum):
    """What is known about an hour.

    `COMPLETE`: every booking that the vendor listed for the hour is held at that version or a newer one.
    `INCOMPLETE`: something is missing, and `reason` says what.
    `OPEN`: the vendor was not asked, or too early to be sure.
    `UNPROVABLE`: the vendor cannot be asked for a part of it, which `reason` names; the rest is complete.
    """

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    OPEN = "open"
    UNPROVABLE = "unprovable"


@dataclass(frozen=True, slots=True)
class HourVerdict:
    """The verdict on the bookings of one account that changed last within `hour`, an instant with no minutes.

    The vendor has `listed` bookings there. The warehouse has `held` of them at that version or a newer one,
    and lacks `missing`. `repaired` were missing once, and were loaded by a reconciliation. `unread` dead
    letters wait. `webhooks` arrived about changes in the hour. The listing began at `proven_at` at the
    earliest, and `digest` is that of the listed bookings. `evidence_load` is the newest load that the
    warehouse had when it was compared.
    """

    vendor: str
    account: str
    hour: datetime
    verdict: Verdict
    stated_at: datetime
    reason: str | None = None
    webhooks: int = 0
    listed: int = 0
    held: int = 0
    missing: int = 0
    repaired: int = 0
    unread: int = 0
    proven_at: datetime | None = None
    run_id: str | None = None
    digest: str | None = None
    evidence_load: str | None = None

    @property
    def id(self) -> str:
        """The id of the row."""
        return f"{self.vendor}/{self.account}/{self.hour:%Y-%m-%dT%H}"

    def columns(self) -> dict[str, Any]:
        """Return the columns of the row with values that JSON has, without `loaded_at`."""
        values = ((name, getattr(self, name)) for name in _COLUMNS)
        return {"id": self.id} | {
            name: format_instant(value) if isinstance(value, datetime) else value for name, value in values
        }


_COLUMNS = [field.name for field in fields(HourVerdict)]


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of the hour, in UTC, that an instant is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def first_hour(since: datetime) -> datetime:
    """Return the first hour that begins at an instant or later."""
    hour = hour_of(since)
    return hour if hour == since else hour + HOUR


def hours_between(since: datetime, until: datetime) -> Iterable[datetime]:
    """Yield the hours that lie in [since, until) from beginning to end."""
    hour = first_hour(since)
    while hour + HOUR <= until:
        yield hour
        hour += HOUR


COMPLETE = frozenset({Verdict.COMPLETE})
PROVEN = frozenset({Verdict.COMPLETE, Verdict.UNPROVABLE})
"""The verdicts on hours for which the vendor need not be asked again."""


def complete_until(
    verdicts: Iterable[HourVerdict], accepted: Collection[Verdict] = COMPLETE
) -> datetime | None:
    """Return the end of the hours with accepted verdicts that follow each other from the first one on.

    The verdicts are one account's in the order of hours. None where the first one is another.
    """
    until: datetime | None = None
    for verdict in verdicts:
        if verdict.verdict not in accepted or (until and verdict.hour != until):
            break
        until = verdict.hour + HOUR
    return until


def loads_table(settings: Settings) -> str:
    """Return the name of the table that has a row of each load."""
    warehouse = settings.warehouse
    if warehouse.kind is not FILESYSTEM:
        return "_dlt_loads"
    # Some of Iceberg's catalogs want names that begin with a letter.
    return "ingest_loads" if warehouse.table_format == "iceberg" else "_ingest_loads"


class CompletenessTable:
    """The table `completeness`, and what else the warehouse says about hours.

    Without rows where nothing was loaded yet. Every call raises WarehouseUnavailable.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loads = loads_table(settings)

    def verdicts(
        self, vendor: str, account: str, since: datetime | None = None, until: datetime | None = None
    ) -> dict[datetime, HourVerdict]:
        """Return the verdicts on an account's hours that begin in [since, until), by hour, in their order.

        Hours without a row were never asked for: they are open.
        """
        where, parameters = "vendor = %s AND account = %s", [vendor, account]
        bounds: list[datetime] = []
        if since:
            where, bounds = f"{where} AND hour >= %s", [*bounds, since]
        if until:
            where, bounds = f"{where} AND hour < %s", [*bounds, until]
        sql = f"SELECT {', '.join(_COLUMNS)} FROM completeness WHERE {where} ORDER BY hour"  # noqa: S608 - our own names
        verdicts = map(_stored, self._query(sql, [*parameters, *bounds]).dicts())
        return {verdict.hour: verdict for verdict in verdicts}

    def complete_until(
        self, vendor: str, account: str, accepted: Collection[Verdict] = COMPLETE
    ) -> datetime | None:
        """Return the end of the hours with accepted verdicts that follow each other from the first one on.

        None where the first one is another. Years of rows are read only if hours in between have none.
        """
        words = ", ".join(f"'{verdict.value}'" for verdict in sorted(accepted))
        sql = (
            f"SELECT min(hour), max(hour), min(CASE WHEN verdict NOT IN ({words}) THEN hour END)"  # noqa: S608 - our own words
            " FROM completeness WHERE vendor = %s AND account = %s"
        )
        rows = self._query(sql, [vendor, account]).rows
        if not rows or rows[0][0] is None:
            return None
        first, last, unproven = (parse_stored_instant(hour) if hour else None for hour in rows[0])
        end = unproven or (last and last + HOUR)
        if first is None or end is None or end == first:
            return None
        sql = "SELECT count(*) FROM completeness WHERE vendor = %s AND account = %s AND hour < %s"
        [(count,)] = self._query(sql, [vendor, account, end]).rows
        if count == (end - first) // HOUR:
            return end
        return complete_until(self.verdicts(vendor, account).values(), accepted)

    def first_stored(self, vendor: str, account: str) -> datetime | None:
        """Return the first hour that has a verdict; None where none has."""
        sql = "SELECT min(hour) FROM completeness WHERE vendor = %s AND account = %s"
        rows = self._query(sql, [vendor, account]).rows
        return parse_stored_instant(rows[0][0]) if rows and rows[0][0] else None

    def newest_load(self) -> str | None:
        """Return the id of the newest load; None where nothing was loaded."""
        sql = f"SELECT max(load_id) FROM {self._loads} WHERE status = 0"  # noqa: S608 - our own names
        rows = self._query(sql, []).rows
        return rows[0][0] if rows else None

    def has_load(self, load: str) -> bool:
        """Return whether the warehouse has a load."""
        sql = f"SELECT load_id FROM {self._loads} WHERE load_id = %s AND status = 0"  # noqa: S608 - our own names
        return bool(self._query(sql, [load]).rows)

    def loaded_versions(self, vendor: str, account: str, since: datetime) -> list[tuple[str, datetime]]:
        """Return the versions of bookings that webhooks have changed since then, with their `loaded_at`."""
        sql = (
            "SELECT version, loaded_at FROM bookings"
            " WHERE vendor = %s AND account = %s AND loaded_at >= %s AND last_via <> 'reconcile'"
        )
        rows = self._query(sql, [vendor, account, since]).rows
        return [(version or "", parse_stored_instant(loaded_at)) for version, loaded_at in rows]

    def webhook_times(
        self, vendor: str, account: str, since: datetime, until: datetime
    ) -> Iterator[datetime]:
        """Yield when each event happened, in [since, until), of which a webhook told; a day at a time."""
        sql = (
            "SELECT time FROM booking_events"
            " WHERE vendor = %s AND account = %s AND signed_by IS NOT NULL AND time >= %s AND time < %s"
        )
        while since < until:
            end = min(until, since + _DAY)
            for (happened_at,) in self._query(sql, [vendor, account, since, end]).rows:
                yield parse_stored_instant(happened_at)
            since = end

    def held(self, vendor: str, account: str) -> Iterator[tuple[str, str]]:
        """Yield the ids and versions of the bookings that the vendor has not lost, a page at a time."""
        sql = (
            "SELECT booking_id, version FROM bookings WHERE vendor = %s AND account = %s AND gone_at IS NULL"
            " AND booking_id > %s ORDER BY booking_id LIMIT 5000"
        )
        last_id = ""
        while rows := self._query(sql, [vendor, account, last_id]).rows:
            yield from ((booking_id, version or "") for booking_id, version in rows)
            last_id = rows[-1][0]

    def _query(self, sql: str, parameters: Sequence[Any]) -> QueryResult:
        return query_or_empty(self._settings, sql, parameters)


def _stored(row: Mapping[str, Any]) -> HourVerdict:
    instants = {
        name: parse_stored_instant(row[name]) if row[name] is not None else None
        for name in ("hour", "stated_at", "proven_at")
    }
    return HourVerdict(**{**row, **instants, "verdict": Verdict(row["verdict"])})
