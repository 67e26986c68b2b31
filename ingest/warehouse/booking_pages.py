"""Pages of the table `bookings` in some order, and one booking with its events.

A page begins after the last row of the page before, so a page costs the same however far it is, and rows that
change meanwhile move no others. Nothing is counted.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from ingest.changes import BOOKING_COLUMNS
from ingest.destinations import BIGQUERY, POSTGRES, Destination
from ingest.errors import ConfigurationError, NoSuchTable, NothingLoaded, PayloadError
from ingest.event import source_of
from ingest.settings import Settings
from ingest.times import parse_instant
from ingest.warehouse import EMPTY_RESULT, QueryResult, is_instant
from ingest.warehouse.query import query_exact

KEY = ("vendor", "account", "booking_id")
SORTS = ("loaded_at", "starts_at", "created_at", "updated_at", "customer_name")
EVENT_COLUMNS = (
    "id",
    "type",
    "time",
    "via",
    "received_at",
    "signed_by",
    "position",
    "loaded_at",
    "cut",
    "data",
)

_MOST_EVENTS = 1000
_SEARCHED = ("booking_id", "customer_name", "customer_email", "customer_phone", "service_name")
_EMPTY = "''"
# On PostgreSQL, the texts that are searched and a name's beginning are expressions for which loads make
# indexes: a name may be longer than an index takes.
SEARCHED_TEXT = f"lower({' || chr(31) || '.join(f'coalesce({column}, {_EMPTY})' for column in _SEARCHED)})"
NAME_BEGIN = "left(customer_name, 100)"
_LITERAL_IN_LIKE = str.maketrans({character: f"\\{character}" for character in "\\%_"})

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BookingFilter:
    """Which bookings, in which order, and where the page begins.

    `search` is a part of an id, a name, an address, a telephone number or a service. `sort` is one of SORTS,
    with a "-" before it for the last first; "" sorts by key. `cursor` is that of the page before.
    """

    vendor: str = ""
    account: str = ""
    statuses: Sequence[str] = ()
    search: str = ""
    starts_from: datetime | None = None
    starts_until: datetime | None = None
    loaded_since: datetime | None = None
    sort: str = ""
    cursor: str = ""

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a column by which nothing is sorted."""
        if self.sort and self.sort_column not in SORTS:
            raise ConfigurationError(f"sort is one of {', '.join(SORTS)}, or with a - before it")

    @property
    def sort_column(self) -> str:
        """The column that sorts; "" for the key."""
        return self.sort.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        """Whether the last comes first."""
        return self.sort.startswith("-")


@dataclass(frozen=True, slots=True)
class BookingPage:
    """Rows of `bookings`, with JSON columns as text, and the cursor of the next page, "" for the last."""

    rows: Sequence[Row]
    next: str


def read_page(settings: Settings, wanted: BookingFilter, limit: int) -> BookingPage:
    """Return a page; an empty one where nothing was loaded yet.

    Raises WarehouseUnavailable, UnreadableValue, and ConfigurationError for a cursor that is none.
    """
    kind, after = settings.warehouse.kind, _decode_cursor(wanted)
    sort = _sorted_by(wanted, kind)
    conditions, parameters = _conditions(wanted, kind)
    rows: list[Row] = []
    if not sort or after is None or after[0] is not None:
        where, values = _after(wanted, after, kind)
        order = _order(wanted, kind)
        rows = _select(settings, [*conditions, *where], [*parameters, *values], order, limit + 1)
    if sort and len(rows) <= limit:  # rows without a value come last, whatever the order
        where, values = [], []
        if after and after[0] is None:
            where, values = _after_key(after[1:], kind)
        rows += _select(
            settings,
            [*conditions, f"{sort} IS NULL", *where],
            [*parameters, *values],
            ", ".join(KEY),
            limit + 1 - len(rows),
        )
    page = rows[:limit]
    return BookingPage(page, _encode_cursor(wanted, page[-1]) if len(rows) > limit else "")


def read_pages(settings: Settings, wanted: BookingFilter, limit: int) -> Iterator[Sequence[Row]]:
    """Yield all pages. Each is a query of its own, so that a consumer can load in between."""
    while True:
        page = read_page(settings, wanted, limit)
        yield page.rows
        if not page.next:
            return
        wanted = replace(wanted, cursor=page.next)


def read_booking(
    settings: Settings, vendor: str, account: str, booking_id: str
) -> tuple[Row, list[Row]] | None:
    """Return a booking's row and its events by time, at most the newest 1000; None where there is none.

    Raises as `read_page` does.
    """
    conditions = [f"{column} = %s" for column in KEY]
    rows = _select(settings, conditions, [vendor, account, booking_id], "", 1)
    if not rows:
        return None
    sql = (
        f"SELECT {', '.join(EVENT_COLUMNS)} FROM booking_events WHERE subject = %s AND source = %s"  # noqa: S608 - our own names
        f" ORDER BY received_at DESC, id LIMIT {_MOST_EVENTS}"
    )
    events = _query(settings, sql, [booking_id, source_of(vendor, account)]).dicts()
    return rows[0], [{**event, "data": _json_text(event["data"])} for event in reversed(events)]


def _conditions(wanted: BookingFilter, kind: Destination) -> tuple[list[str], list[Any]]:
    single = {
        "vendor = %s": wanted.vendor,
        "account = %s": wanted.account,
        "starts_at >= %s": wanted.starts_from,
        "starts_at < %s": wanted.starts_until,
        "loaded_at >= %s": wanted.loaded_since,
    }
    conditions = [condition for condition, value in single.items() if value]
    parameters: list[Any] = [value for value in single.values() if value]
    if wanted.statuses:
        conditions.append(f"status IN ({', '.join(['%s'] * len(wanted.statuses))})")
        parameters += wanted.statuses
    if wanted.search and kind is POSTGRES:
        conditions.append(f"{SEARCHED_TEXT} LIKE %s")
        parameters.append(f"%{wanted.search.lower().translate(_LITERAL_IN_LIKE)}%")
    elif wanted.search:
        contains = "strpos(lower({}), %s) > 0" if kind is BIGQUERY else "position(%s IN lower({})) > 0"
        conditions.append(f"({' OR '.join(map(contains.format, _SEARCHED))})")
        parameters += [wanted.search.lower()] * len(_SEARCHED)
    return conditions, parameters


def _sorted_by(wanted: BookingFilter, kind: Destination) -> str:
    """Return what sorts, as an index has it: a column, or on PostgreSQL the beginning of a name."""
    sort = wanted.sort_column
    return NAME_BEGIN if sort == "customer_name" and kind is POSTGRES else sort


def _order(wanted: BookingFilter, kind: Destination) -> str:
    direction = " DESC" if wanted.is_descending else ""
    sorting = dict.fromkeys((_sorted_by(wanted, kind), wanted.sort_column)) if wanted.sort else {}
    return ", ".join([*(f"{expression}{direction}" for expression in sorting), *KEY])


def _after(
    wanted: BookingFilter, after: Sequence[Any] | None, kind: Destination
) -> tuple[list[str], list[Any]]:
    """Return the condition of the rows after a row with a value in the column that sorts."""
    sort, indexed = wanted.sort_column, _sorted_by(wanted, kind)
    if not sort:
        return _after_key(after[1:], kind) if after else ([], [])
    if after is None:
        return [f"{indexed} IS NOT NULL"], []
    [by_key], values = _after_key(after[1:], kind)
    beyond = "<" if wanted.is_descending else ">"
    # The first condition says no more than the others, but an index finds its rows.
    begin = f"{indexed} {beyond}= {indexed.replace(sort, '%s')}"
    condition = f"{sort} {beyond}= %s AND ({sort} {beyond} %s OR {by_key})"
    return [begin, condition], [after[0], after[0], after[0], *values]


def _after_key(key: Sequence[Any], kind: Destination) -> tuple[list[str], list[Any]]:
    """Return the condition of the rows after a key, in SQL that every destination has.

    PostgreSQL compares whole keys, by its index.
    """
    vendor, account, booking_id = key
    if kind is POSTGRES:
        return ["(vendor, account, booking_id) > (%s, %s, %s)"], [vendor, account, booking_id]
    condition = "(vendor > %s OR (vendor = %s AND (account > %s OR (account = %s AND booking_id > %s))))"
    return [condition], [vendor, vendor, account, account, booking_id]


def _select(
    settings: Settings, conditions: Sequence[str], parameters: Sequence[Any], order: str, limit: int
) -> list[Row]:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    ordered = f" ORDER BY {order}" if order else ""
    sql = f"SELECT {', '.join(BOOKING_COLUMNS)} FROM bookings{where}{ordered} LIMIT {limit:d}"  # noqa: S608 - our own names
    return [
        {name: _json_text(value) for name, value in row.items()}
        for row in _query(settings, sql, parameters).dicts()
    ]


def _query(settings: Settings, sql: str, parameters: Sequence[Any]) -> QueryResult:
    try:
        return query_exact(settings, sql, parameters)
    except (NothingLoaded, NoSuchTable):
        return EMPTY_RESULT


def _json_text(value: Any) -> Any:
    """Return JSON as text, which some destinations return parsed, and any other value as it is."""
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value) if isinstance(value, str) else value


def _encode_cursor(wanted: BookingFilter, row: Row) -> str:
    sort = wanted.sort_column
    parts = [wanted.sort, row[sort] if sort else None, *(row[column] for column in KEY)]
    return urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def _decode_cursor(wanted: BookingFilter) -> Sequence[Any] | None:
    """Return the value of the column that sorts and the key, of the last row of the page before."""
    if not wanted.cursor:
        return None
    try:
        text = urlsafe_b64decode(wanted.cursor + "=" * (-len(wanted.cursor) % 4))
        sort, value, vendor, account, booking_id = orjson.loads(text)
        if value is not None and is_instant(wanted.sort):
            value = parse_instant(value)
    except (ValueError, TypeError, PayloadError):
        sort, value, vendor, account, booking_id = None, None, None, None, None
    if sort != wanted.sort or not all(isinstance(part, str) for part in (vendor, account, booking_id)):
        raise ConfigurationError("cursor is not that of a page in this order: leave it out")
    return [value, vendor, account, booking_id]
