"""The list of bookings, and one booking with everything that was received about it."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.routing import Route

from ingest.booking import BookingStatus
from ingest.dashboard.api import booking_filter
from ingest.dashboard.page import Content, Dashboard, Page
from ingest.errors import ConfigurationError
from ingest.times import parse_stored_instant
from ingest.warehouse.booking_pages import EVENT_COLUMNS, KEY, SORTS, Row, read_booking, read_page

_ROWS = 50
_NEWEST_FIRST = "-loaded_at"
_COLUMNS = ("starts_at", "status", "customer_name", "customer_email", "service_name", "staff_name")


def _read_list(dashboard: Dashboard, request: Request) -> Content:
    wanted = booking_filter(request, set())
    sort = wanted.sort or _NEWEST_FIRST
    page = read_page(dashboard.settings, replace(wanted, sort=sort), _ROWS)
    query = {name: value for name, value in request.query_params.multi_items() if value and name != "cursor"}
    is_filtered = bool(query.keys() - {"sort"})
    following = {**query, "sort": sort, "cursor": page.next}
    return Content(
        data={
            "bookings": page.rows,
            "next": f"/bookings?{urlencode(following)}" if page.next else "",
            "first": f"/bookings?{urlencode(query)}" if wanted.cursor else "",
            "filter": {name: query.get(name, "") for name in ("account", "status", "search")},
            "sort": sort,
            "sorts": [order for name in SORTS for order in (f"-{name}", name)],
            "accounts": sorted(dashboard.settings.accounts),
            "statuses": [str(status) for status in BookingStatus],
            "columns": _COLUMNS,
            "is_filtered": is_filtered or bool(wanted.cursor),
        },
        command=_command(wanted.account, wanted.statuses, sort),
        csv="/bookings.csv" + (f"?{urlencode(query)}" if query else ""),
    )


def _command(account: str, statuses: Sequence[str], sort: str) -> str:
    """Return a command that lists the same; a search is left out, because a shell would read parts of it."""
    conditions = [f"account = '{account}'"] if account.replace("-", "").replace("_", "").isalnum() else []
    conditions += [f"status = '{status}'" for status in statuses if status in set(BookingStatus)]
    where = f" where {' and '.join(conditions)}" if conditions else ""
    order = f"{sort.removeprefix('-')}{' desc' if sort.startswith('-') else ''}"
    return f'ingest query "select * from bookings{where} order by {order} limit {_ROWS}"'  # noqa: S608 - shown, and not run


def _read_booking(dashboard: Dashboard, request: Request) -> Content:
    vendor, account, booking_id = (request.query_params.get(name, "") for name in ("vendor", "account", "id"))
    stored = read_booking(dashboard.settings, vendor, account, booking_id)
    if stored is None:
        raise ConfigurationError(f"{vendor}/{account} has no booking {booking_id}")
    row, events = stored
    timeline = _timeline(row, events)
    columns = (*EVENT_COLUMNS, "outcome")
    where = " and ".join(
        f"{column} = {_literal(value)}"
        for column, value in zip(KEY, (vendor, account, booking_id), strict=True)
    )
    return Content(
        data={"booking": row, "events": timeline, "account_name": f"{vendor}/{account}"},
        columns=columns,
        rows=[[event[name] for name in columns] for event in timeline],
        command=shlex.join(["ingest", "query", f"select * from bookings where {where}"]),  # noqa: S608 - shown, and not run
    )


def _literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _timeline(row: Row, events: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the events in the order in which they were received, each with what became of it.

    An event that is not the newest by its own time was late, and changed only what no newer one had.
    """
    timeline: list[dict[str, Any]] = []
    newest: datetime | None = None
    for event in events:
        happened_at = parse_stored_instant(event["time"])
        is_late = newest is not None and happened_at < newest
        newest = happened_at if newest is None else max(newest, happened_at)
        outcome = "late: a newer one was here" if is_late else "applied"
        if event["id"] == row["last_event_id"]:
            outcome = "made the row what it is"
        timeline.append({**event, "outcome": outcome})
    return timeline


def pages() -> Iterable[Page]:
    """Return the pages."""
    return [
        Page("/bookings", "Bookings", "bookings.html", _read_list),
        Page("/booking", "Booking", "booking.html", _read_booking, has_csv=True),
    ]


def actions() -> Iterable[Route]:
    """Return no action: bookings are the vendors'."""
    return []
