"""The tables with what their columns mean, and a box for a query that only reads."""

import json
import shlex
from collections.abc import Iterable
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.dashboard.page import (
    Content,
    Dashboard,
    Fields,
    Page,
    action,
    csv_response,
    first,
    json_response,
    render,
    status_of,
)
from ingest.errors import ConfigurationError, IngestError
from ingest.warehouse import MOST_ROWS, Bounds
from ingest.warehouse.query import query_bounded

_PATH = "/query"
_SECONDS, _SHOWN_ROWS = 10, 1000  # of the page; files have all rows, or a query with too many is refused
_EXAMPLE = "select status, count(*) as bookings from bookings group by status order by 2 desc"


def _read_tables(dashboard: Dashboard, request: Request) -> Content:
    del dashboard, request
    # Imported only now: pyarrow takes long, and nobody may open this page.
    from consumers.rows import SCHEMAS

    meanings = json.loads(files("ingest.dashboard").joinpath("columns.json").read_text(encoding="utf-8"))
    rows = [
        (name, column.name, str(column.type), meanings[name][column.name])
        for name, schema in sorted(SCHEMAS.items(), key=lambda item: item[0] != "bookings")
        for column in schema
    ]
    tables = [
        {
            "name": name,
            "columns": [{"name": column, "type": kind, "meaning": text} for _, column, kind, text in own],
        }
        for name, own in groupby(rows, key=itemgetter(0))
    ]
    return Content(data={"tables": tables}, columns=("table", "column", "type", "meaning"), rows=rows)


def _read_box(dashboard: Dashboard, request: Request) -> Content:
    del dashboard
    data = _box(request.query_params.get("sql", "") or _EXAMPLE)
    return Content(data=data, command=data["command"])


def _box(sql: str, **changes: Any) -> dict[str, Any]:
    limits = {"seconds": _SECONDS, "shown_rows": _SHOWN_ROWS, "most_rows": MOST_ROWS}
    command = shlex.join(["ingest", "query", sql])
    return {"sql": sql, "columns": [], "rows": None, "error": "", "command": command, **limits, **changes}


def _run(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Run a query as `ingest query` does, and show its rows, or what is wrong with it."""
    sql = first(fields, "sql")
    is_for_scripts = request.url.path != _PATH
    bounds = Bounds(_SECONDS, rows=None if is_for_scripts else _SHOWN_ROWS)
    try:
        if not sql:
            raise ConfigurationError("write one statement into the box")
        answer = query_bounded(dashboard.settings, sql, bounds)
    except IngestError as error:
        if is_for_scripts:
            return json_response({"error": str(error)}, status_of(error))
        return render(
            request, "query.html", {"title": "Query", **_box(sql, error=str(error))}, status_of(error)
        )
    if request.url.path.endswith(".json"):
        return json_response(answer.dicts())
    if is_for_scripts:
        return csv_response("query", answer.columns, answer.rows)
    shown = _box(sql, columns=answer.columns, rows=answer.rows)
    return render(request, "query.html", {"title": "Query", **shown})


def pages() -> Iterable[Page]:
    """Return the pages."""
    return [
        Page("/tables", "Tables", "tables.html", _read_tables, has_csv=True),
        Page(_PATH, "Query", "query.html", _read_box),
    ]


def actions() -> Iterable[Route]:
    """Return what runs a query."""
    return [action(path, _run) for path in (_PATH, f"{_PATH}.json", f"{_PATH}.csv")]
