"""The page that shows bookings as they change. Its script follows `/api/changes`."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.routing import Route

from ingest.booking import BookingStatus
from ingest.dashboard.api import booking_filter
from ingest.dashboard.page import Content, Dashboard, Page
from ingest.times import format_instant
from ingest.warehouse.booking_pages import read_page

_ROWS = 50
_COLUMNS = ("loaded_at", "booking_id", "status", "customer_name", "service_name", "starts_at", "account")
_REFRESH_SECONDS = 5
# A change is in the feed a moment after its load began; what the page has already is shown once all the same.
_OVERLAP = timedelta(seconds=10)


def _read_live(dashboard: Dashboard, request: Request) -> Content:
    settings = dashboard.settings
    since = datetime.now(UTC) - _OVERLAP
    wanted = replace(booking_filter(request, set()), sort="-loaded_at")
    page = read_page(settings, wanted, _ROWS)
    chosen = {name: request.query_params.get(name, "") for name in ("account", "status")}
    query = {name: value for name, value in chosen.items() if value}
    # Whatever its status: the page has to see the change by which a booking no longer matches.
    followed = {"account": chosen["account"]} if chosen["account"] else {}
    followed["since"] = format_instant(since)
    options = [
        f"--{name} {value}" for name, value in query.items() if value in {*settings.accounts, *BookingStatus}
    ]
    is_on = settings.feed.enabled
    return Content(
        data={
            "bookings": page.rows,
            "columns": _COLUMNS,
            "source": f"/api/changes?{urlencode(followed)}" if is_on else "",
            "refresh": 0 if is_on else _REFRESH_SECONDS,
            "filter": chosen,
            "is_filtered": bool(query),
            "accounts": sorted(settings.accounts),
            "statuses": [str(status) for status in BookingStatus],
        },
        command=" ".join(["ingest tail", *options]),
        csv=f"/live.csv?{urlencode({**query, 'sort': '-loaded_at'})}",
    )


def pages() -> Iterable[Page]:
    """Return the page."""
    return [Page("/live", "Live", "live.html", _read_live)]


def actions() -> Iterable[Route]:
    """Return no action: this page only shows."""
    return []
