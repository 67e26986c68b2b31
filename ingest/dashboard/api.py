"""The routes of the HTTP API: bookings as the warehouse has them, and the feed of their changes.

`ingest.dashboard.openapi` describes them. Who may call them is checked by the application that has them.
"""

import csv
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from io import StringIO
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ingest.changes import BOOKING_COLUMNS, booking_schema, row_json
from ingest.dashboard.changes import ChangeFeed
from ingest.dashboard.openapi import openapi_document
from ingest.errors import ConfigurationError, IngestError, PayloadError
from ingest.settings import Settings
from ingest.times import parse_instant
from ingest.vendors import split_list
from ingest.warehouse.booking_pages import BookingFilter, read_booking, read_page, read_pages

_ROWS_PER_PAGE, _MOST_ROWS_PER_PAGE = 100, 1000
_ROWS_PER_QUERY = 5000  # of a CSV file
_QUERIES_AT_ONCE = 4  # each may take as much memory as a query of `ingest query`
_RETRY_SECONDS = "5"
# With these a spreadsheet takes a cell for a formula.
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_LISTS_AS_CSV = ("/bookings.csv", "/live.csv")  # the pages' lists, whole
_INSTANTS = {"starts_from", "starts_until", "loaded_since"}
_TEXTS = {"vendor", "account", "search", "sort", "cursor"}

Answer = Callable[[Request], Response]


def routes(settings: Settings) -> list[Route]:
    """Return the routes of the API, whose paths begin with `/api/`."""
    feed, api = ChangeFeed(settings), _BookingsApi(settings)
    return [
        Route("/api/changes", feed.stream),
        Route("/api/bookings", _answering(api.page)),
        *(Route(path, _answering(api.csv)) for path in ("/api/bookings.csv", *_LISTS_AS_CSV)),
        Route("/api/bookings/{vendor}/{account}/{booking_id:path}", _answering(api.booking)),
        Route("/api/openapi.json", _answering(lambda _: _json(openapi_document()))),
        Route("/api/schemas/booking.json", _answering(lambda _: _json(booking_schema()))),
    ]


class _BookingsApi:
    """What answers questions about bookings, a few at a time. Its methods block."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.BoundedSemaphore(_QUERIES_AT_ONCE)

    def page(self, request: Request) -> Response:
        """Return a page of bookings, and how to ask for the next."""
        limit = _limit(request)
        with self._turn:
            page = read_page(self._settings, booking_filter(request, {"limit"}), limit)
        rows = b",".join(map(row_json, page.rows))
        body = b'{"bookings":[%b],"next":%b}' % (rows, orjson.dumps(page.next or None))
        headers = {}
        if page.next:
            query = urlencode({**request.query_params, "cursor": page.next})
            headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
        return Response(body, media_type="application/json", headers=headers)

    def csv(self, request: Request) -> Response:
        """Stream all bookings of a filter as CSV, in which no cell is a formula."""
        wanted = replace(booking_filter(request, set()), cursor="")
        with self._turn:
            first = read_page(self._settings, wanted, _ROWS_PER_QUERY)  # before the answer begins

        def lines() -> Iterator[str]:
            yield _csv_lines([BOOKING_COLUMNS])
            yield _csv_lines(map(_csv_cells, first.rows))
            if first.next:
                for rows in read_pages(self._settings, replace(wanted, cursor=first.next), _ROWS_PER_QUERY):
                    yield _csv_lines(map(_csv_cells, rows))

        return StreamingResponse(
            lines(),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="bookings.csv"'},
        )

    def booking(self, request: Request) -> Response:
        """Return a booking's row and its events."""
        vendor, account, booking_id = (
            _plain(request.path_params[name]) for name in ("vendor", "account", "booking_id")
        )
        with self._turn:
            found = read_booking(self._settings, vendor, account, booking_id)
        if found is None:
            return _json({"error": f"there is no booking {booking_id} of {vendor}/{account}"}, 404)
        row, events = found
        parsed = [{**event, "data": orjson.Fragment(event["data"] or "null")} for event in events]
        body = {"booking": orjson.Fragment(row_json(row)), "events": parsed}
        return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), media_type="application/json")


def _answering(answer: Answer) -> Callable[[Request], Any]:
    """Return an endpoint that answers in a thread, with errors as JSON."""

    def answer_or_explain(request: Request) -> Response:
        try:
            return answer(request)
        except ConfigurationError as error:
            return _json({"error": str(error)}, 400)
        except IngestError as error:
            return _json({"error": str(error)}, 503, {"retry-after": _RETRY_SECONDS})

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(answer_or_explain, request)

    return endpoint


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def booking_filter(request: Request, others: set[str]) -> BookingFilter:
    """Read the filter of the query. Raises ConfigurationError."""
    query = request.query_params
    if unknown := sorted(query.keys() - _TEXTS - _INSTANTS - {"status"} - others):
        known = ", ".join(sorted(_TEXTS | _INSTANTS | {"status"} | others))
        raise ConfigurationError(f"{unknown[0]} is no parameter; there are {known}")
    fields: dict[str, Any] = {name: _plain(query[name]) for name in _TEXTS if name in query}
    fields |= {name: _instant(name, query[name]) for name in _INSTANTS if query.get(name)}
    statuses = [status for text in query.getlist("status") for status in split_list(_plain(text))]
    return BookingFilter(**fields, statuses=statuses)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit") or str(_ROWS_PER_PAGE)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST_ROWS_PER_PAGE):
        raise ConfigurationError(f"limit is a number from 1 to {_MOST_ROWS_PER_PAGE}")
    return int(text)


def _plain(text: str) -> str:
    if "\x00" in text:
        raise ConfigurationError("a parameter has a NUL character, which no database takes")
    return text


def _instant(name: str, text: str) -> datetime:
    try:
        return parse_instant(text)
    except PayloadError as error:
        raise ConfigurationError(f"{name}: {error}, such as 2026-11-01T09:00:00Z") from None


def _csv_lines(rows: Any) -> str:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _csv_cells(row: Mapping[str, Any]) -> Sequence[str]:
    return [csv_cell(row[name]) for name in BOOKING_COLUMNS]


def csv_cell(value: Any) -> str:
    """Return a value as a cell of CSV. A text that a spreadsheet would take for a formula begins with "'"."""
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Decimal():
            return f"{value.normalize():f}"
        case str():
            return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
        case _:
            return str(value)
