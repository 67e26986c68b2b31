"""A page: what it reads, its template, and the same as JSON and, of a list, as CSV.

What a page shows is read by a function in a thread, and may wait for the warehouse. A browser is told so
after a moment, and asks again.
"""

import csv
import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ingest.clock import is_future
from ingest.dashboard.api import csv_cell
from ingest.dashboard.charts import bar_chart
from ingest.dashboard.jobs import Jobs
from ingest.dashboard.security import read_form
from ingest.dashboard.watch import HealthWatch
from ingest.errors import ConfigurationError, IngestError
from ingest.settings import Settings
from ingest.settings.sources import Live
from ingest.terminal import visible
from ingest.times import describe_duration
from ingest.warehouse.values import json_text, json_value, text_value

log = structlog.get_logger()

_PATIENCE_SECONDS = 2.0  # after so long, a browser gets a page that says what it waits for
_MOST_READS = 100
_MOST_CELL_LENGTH = 200
_LAYOUT = "\n\t"


@dataclass(slots=True)
class Dashboard:
    """What all pages share: the settings, the health of the product, and the jobs."""

    live: Live[Settings]
    health: HealthWatch
    jobs: Jobs
    reads: "dict[str, Future[Content]]" = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """Return the settings as their files are now."""
        return self.live.current()


@dataclass(slots=True)
class Content:
    """What a page shows.

    `data` is for the template and for JSON. `columns` and `rows` are those of a list, for CSV, which may have
    an address elsewhere, `csv`. `command` is the command line that shows the same.
    """

    data: Mapping[str, Any]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    command: str = ""
    csv: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page at a path. `read` may raise IngestError, which the page then shows."""

    path: str
    title: str
    template: str
    read: Callable[[Dashboard, Request], Content]
    has_csv: bool = False

    def routes(self) -> list[Route]:
        """Return the routes of the page, of its JSON and of its CSV."""
        stem = "/home" if self.path == "/" else self.path
        routes = [Route(f"{stem}.json", self._json, methods=["GET"])]
        if self.has_csv:
            routes.append(Route(f"{stem}.csv", self._csv, methods=["GET"]))
        return [*routes, Route(self.path, self._html, methods=["GET"])]

    def _html(self, request: Request) -> Response:
        dashboard: Dashboard = request.app.state.dashboard
        try:
            content = _read_in_time(dashboard, self.read, request)
        except IngestError as error:
            return render(request, "error.html", {"title": self.title, "error": str(error)}, status_of(error))
        if content is None:
            return render(request, "loading.html", {"title": self.title})
        csv_twin = content.csv or (_twin(request, "csv") if self.has_csv else "")
        twins = {"json": _twin(request, "json"), "csv": csv_twin}
        return render(
            request,
            self.template,
            {"title": self.title, "command": content.command, "twins": twins, **content.data},
        )

    def _json(self, request: Request) -> Response:
        try:
            content = self.read(request.app.state.dashboard, request)
        except IngestError as error:
            return json_response({"error": str(error)}, status_of(error))
        return json_response({**content.data, "command": content.command})

    def _csv(self, request: Request) -> Response:
        try:
            content = self.read(request.app.state.dashboard, request)
        except IngestError as error:
            return json_response({"error": str(error)}, status_of(error))
        name = self.path.strip("/").replace("/", "-") or "home"
        return csv_response(name, content.columns, content.rows)


Fields = Mapping[str, list[str]]
Act = Callable[[Dashboard, Request, Fields], Response]


def action(path: str, act: Act) -> Route:
    """Return the route of a form of ours. `act` may block, and raise IngestError, which a page then shows."""

    async def endpoint(request: Request) -> Response:
        fields = await read_form(request)
        return await run_in_threadpool(act, request.app.state.dashboard, request, fields)

    return Route(path, endpoint, methods=["POST"])


def first(fields: Fields, name: str) -> str:
    """Return the first value of a field, "" where there is none."""
    return next(iter(fields.get(name, [])), "").strip()


def _read_in_time(
    dashboard: Dashboard, read: Callable[[Dashboard, Request], Content], request: Request
) -> Content | None:
    """Return what a page shows; None where it takes longer, and is to be asked for again.

    Raises IngestError.
    """
    key = str(request.url)
    future = dashboard.reads.get(key)
    if future is None:
        if len(dashboard.reads) >= _MOST_READS:  # nobody came back for some of them
            dashboard.reads = {name: other for name, other in dashboard.reads.items() if not other.done()}
        future = dashboard.reads[key] = Future()
        started = future

        def run() -> None:
            try:
                started.set_result(read(dashboard, request))
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                started.set_exception(error)

        threading.Thread(target=run, name="page", daemon=True).start()
    if not wait([future], _PATIENCE_SECONDS).done:
        return None
    dashboard.reads.pop(key, None)
    return future.result()


def _twin(request: Request, kind: str) -> str:
    """Return the address of the same page in another form, relative to the host."""
    stem = "/home" if request.url.path == "/" else request.url.path
    return f"{stem}.{kind}" + (f"?{request.url.query}" if request.url.query else "")


def status_of(error: IngestError) -> int:
    """Return the status of an answer that says why there is nothing else in it."""
    if isinstance(error, ConfigurationError):
        return 400
    return 503 if error.retryable else 500


def json_response(data: Any, status: int = 200) -> Response:
    """Return data as JSON: exact, with instants in UTC."""
    return Response(json_text(data, json_value), status, media_type="application/json")


def csv_response(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """Return a list as a CSV file of this name, in which no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(map(csv_cell, row) for row in rows)
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def render(request: Request, template: str, data: Mapping[str, Any], status: int = 200) -> Response:
    """Return a page. Every value in it is escaped, and what does not show is made visible."""
    guard = request.scope["guard"]
    shared = {
        "path": request.url.path,
        "address": str(request.url.replace(scheme="", netloc="")),
        "form_token": guard.form_token(request.scope["visitor"]),
        "now": datetime.now(UTC),
        "command": "",
        "twins": {},
        "refresh": 0,
    }
    return HTMLResponse(_ENVIRONMENT.get_template(template).render({**shared, **data}), status)


def _cell(value: Any) -> str:
    """Return a value as text that is short enough for a cell."""
    text = text_value(value)
    return text if len(text) <= _MOST_CELL_LENGTH else f"{text[:_MOST_CELL_LENGTH]}…"


def _moment(value: Any) -> str:
    """Return an instant to the second; as it is where a destination has it as text."""
    return f"{value:%Y-%m-%d %H:%M:%S}Z" if isinstance(value, datetime) else text_value(value) or "-"


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    return (
        "in the future"
        if is_future(moment, now)
        else f"{describe_duration(max(now - moment, timedelta()))} ago"
    )


def _shown(value: Any) -> Any:
    """Return what an expression of a template shows."""
    return visible(value, _LAYOUT) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("ingest.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals["bar_chart"] = bar_chart
_ENVIRONMENT.filters |= {
    "cell": _cell,
    "text": text_value,
    "ago": _ago,
    "duration": describe_duration,
    "seconds": lambda value: "-" if value is None else f"{value:.2g} s",
    "number": lambda value: f"{value:,}",
    "moment": _moment,
}
