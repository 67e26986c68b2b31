"""Gaps, spans of time in which deliveries of an account may be missing, as the table `gaps` has them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from ingest.event import GAP, Cause, Event, build_statement, source_of
from ingest.settings import Settings
from ingest.times import format_instant, parse_stored_instant
from ingest.warehouse import is_instant
from ingest.warehouse.query import query_or_empty


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap of an account.

    Deliveries of [from_at, until_at) may be missing; `until_at` is None while that lasts. Runs that it led to
    found `missed` bookings, of which `repaired` are loaded. `waits_for` says why it is not closed yet. Of two
    states of a gap, the one with the later `stated_at` holds.
    """

    id: str
    vendor: str
    account: str
    from_at: datetime
    until_at: datetime | None
    cause: Cause
    detail: str
    found_at: datetime
    stated_at: datetime
    closed_at: datetime | None = None
    missed: int = 0
    repaired: int = 0
    waits_for: str | None = None

    @property
    def source(self) -> str:
        """The CloudEvents source of the account."""
        return source_of(self.vendor, self.account)

    @property
    def is_open(self) -> bool:
        """Whether it is not closed yet."""
        return self.closed_at is None

    def event(self) -> Event:
        """Return the event that carries the row in the audit topic."""
        columns = {
            name: format_instant(value) if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }
        return build_statement(GAP, self.source, columns, self.stated_at)


_COLUMNS = [field.name for field in fields(Gap)]


def read_gaps(settings: Settings, since: datetime) -> list[Gap]:
    """Return the gaps that are open, or were stated since then. Raises WarehouseUnavailable.

    Rows of a form that is not known here are left out: they may be of a later release.
    """
    sql = f"SELECT {', '.join(_COLUMNS)} FROM gaps WHERE closed_at IS NULL OR stated_at >= %s"  # noqa: S608 - our own names
    gaps = []
    for row in query_or_empty(settings, sql, [since]).dicts():
        with suppress(ValueError, KeyError, TypeError):
            gaps.append(gap_of(row))
    return gaps


def gap_of(row: Mapping[str, Any]) -> Gap:
    """Return the gap of a row. Raises KeyError, TypeError or ValueError for a row of another form."""
    instants = {
        name: parse_stored_instant(row[name])
        for name in _COLUMNS
        if is_instant(name) and row[name] is not None
    }
    columns = {name: row[name] for name in _COLUMNS} | instants
    return Gap(**{**columns, "cause": Cause(row["cause"]), "detail": row["detail"] or ""})
