"""Dead letters: what could not be read or loaded, with values masked until asked for, and putting it back.

To redrive is two jobs: the plan, which only reads, and, once somebody has confirmed it, the redrive of what
the plan found readable.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.dashboard.jobs import Job
from ingest.dashboard.page import Content, Dashboard, Fields, Page, action, first, render
from ingest.dashboard.work import confirmed_plan, job_page
from ingest.dead_letter import REASONS
from ingest.errors import ConfigurationError
from ingest.settings import Settings

if TYPE_CHECKING:
    from consumers.dead_letters.letters import LetterFilter
    from consumers.dead_letters.redrive import RedriveResult

log = structlog.get_logger()

_ROWS = 50
_MOST_SHOWN = 200  # letters of a receipt that are named one by one
_MASK = "•••"
_SHORT_ID = 12
_REDRIVE_PATH = "/dead-letters/redrive"


def _read_list(dashboard: Dashboard, request: Request) -> Content:
    from consumers.dead_letters.letters import DeadLettersTable, LetterFilter
    from consumers.dead_letters.redrive import LetterReader, summarize

    settings, query = dashboard.settings, request.query_params
    reason, account, before = (query.get(name, "") for name in ("reason", "account", "before"))
    table = DeadLettersTable(settings)
    newest_first = table.ids(_wanted(reason, account))[::-1]
    start = newest_first.index(before) + 1 if before in newest_first else 0
    ids = newest_first[start : start + _ROWS]
    has_more = len(newest_first) > start + _ROWS
    letters = [
        {
            "id": letter.id,
            "happened_at": letter.happened_at,
            "source": f"{letter.vendor}/{letter.account}" if letter.vendor else "unknown",
            "reason": letter.reason,
            "detail": letter.detail,
            "loaded": letter.loaded,
        }
        for letter in summarize(table, LetterReader(settings), ids)
    ]
    columns = ("id", "happened_at", "source", "reason", "detail", "loaded")
    return Content(
        data={
            "letters": letters,
            "matching": len(newest_first),
            "total": len(newest_first) if not (reason or account) else len(table.ids(LetterFilter())),
            "before": ids[-1] if has_more else "",
            "filter": {"reason": reason, "account": account},
            "reasons": sorted(REASONS),
            "accounts": sorted(settings.accounts),
            "plan_command": _plan_command(_options(reason, account) or ["--all"]),
        },
        columns=columns,
        rows=[[letter[name] for name in columns] for letter in letters],
        command=shlex.join(["ingest", "dead-letters", "list", *_options(reason, account)]),
    )


def _wanted(reason: str, account: str) -> "LetterFilter":
    from consumers.dead_letters.letters import LetterFilter

    return LetterFilter(reasons=[reason] if reason else (), accounts=[account] if account else ())


def _options(reason: str, account: str) -> list[str]:
    """Return the options of the command line for a filter."""
    return [*(["--reason", reason] if reason else []), *(["--account", account] if account else [])]


def _plan_command(selection: Sequence[str]) -> str:
    return shlex.join(["ingest", "dead-letters", "redrive", *selection, "--dry-run"])


def _read_letter(dashboard: Dashboard, request: Request) -> Content:
    letter_id = request.query_params.get("id", "")
    return Content(
        data=_letter(dashboard.settings, letter_id, is_shown=False),
        command=shlex.join(["ingest", "dead-letters", "show", letter_id[:_SHORT_ID]]),
    )


def _show_letter(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Show a letter's values, and log that somebody asked for them."""
    letter_id = first(fields, "id")
    data = _letter(dashboard.settings, letter_id, is_shown=True)
    caller = request.client.host if request.client else ""
    log.warning("dashboard.letter_shown", letter=data["letter"]["id"], caller=caller)
    return render(request, "letter.html", {"title": "Dead letter", **data})


def _letter(settings: Settings, letter_id: str, *, is_shown: bool) -> dict[str, Any]:
    """Return all that is known of a letter, and what today's code makes of it. Raises ConfigurationError."""
    from consumers.dead_letters.letters import DeadLettersTable
    from consumers.dead_letters.redrive import LetterReader, Redrive

    table = DeadLettersTable(settings)
    if not letter_id:
        raise ConfigurationError("name a dead letter by its id")
    (attempt,) = Redrive(table, LetterReader(settings), None).run(table.resolve([letter_id]))
    stored, letter = attempt.letter, attempt.letter.letter
    return {
        "is_shown": is_shown,
        "letter": {
            "id": stored.id,
            "happened_at": letter.happened_at,
            "source": f"{stored.vendor}/{stored.account}" if stored.vendor else "unknown",
            "reason": letter.reason,
            "detail": letter.detail,
            "position": letter.position,
            "signed_by": letter.signed_by,
            "bytes": stored.data_bytes or len(letter.data),
            "cut": stored.cut,
        },
        "now_outcome": {"outcome": str(attempt.outcome), "reason": attempt.reason, "detail": attempt.detail},
        "query": letter.query if is_shown else _MASK * bool(letter.query),
        "headers": {name: value if is_shown else _MASK for name, value in letter.headers.items()},
        "body": _body_text(letter.data, is_shown=is_shown),
    }


def _body_text(data: bytes, *, is_shown: bool) -> str:
    """Return a body as text: JSON laid out, with every value masked unless it is shown."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return data.decode(errors="backslashreplace") if is_shown else f"{_MASK} ({len(data)} bytes, no JSON)"
    laid_out = value if is_shown else mask(value)
    return orjson.dumps(laid_out, option=orjson.OPT_INDENT_2).decode()


def mask(value: Any) -> Any:
    """Return JSON with its structure and the names of its fields, and no value."""
    match value:
        case dict():
            # Names of fields are the vendor's, unless they are as long as texts.
            return {(name if len(name) <= 40 else _MASK): mask(inner) for name, inner in value.items()}  # noqa: PLR2004
        case list():
            return [mask(inner) for inner in value]
        case None | bool():
            return value
        case _:
            return _MASK


def _plan(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Start the job that finds out what a redrive of these letters would do."""
    from consumers.dead_letters.letters import DeadLettersTable

    del request
    settings = dashboard.settings
    table = DeadLettersTable(settings)
    chosen, reason, account = fields.get("id", []), first(fields, "reason"), first(fields, "account")
    if chosen:
        ids = table.resolve(chosen)
        selection = [letter_id[:_SHORT_ID] for letter_id in ids]
    else:
        ids = table.ids(_wanted(reason, account))
        selection = _options(reason, account) or ["--all"]
    if not ids:
        raise ConfigurationError("there is no such dead letter")
    job = Job("redrive-plan", "What a redrive would do", _plan_command(selection), total=len(ids))
    dashboard.jobs.start(job, lambda job: _run(settings, job, ids, dry_run=True))
    return job_page(job)


def _redrive(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Start the job that redrives what a plan has found readable."""
    del request
    settings = dashboard.settings
    plan = confirmed_plan(dashboard, fields, "redrive-plan", "readable", "redrive")
    ids: Sequence[str] = plan.result["readable"]
    command = plan.command.removesuffix(" --dry-run")
    job = Job("redrive", "Redrive of dead letters", command, total=len(ids))
    dashboard.jobs.start(job, lambda job: _run(settings, job, ids, dry_run=False))
    return job_page(job)


def _run(settings: Settings, job: Job, ids: Sequence[str], *, dry_run: bool) -> None:
    """Redrive letters, or only find out what that would do, and keep the job's receipt up to date."""
    from consumers.dead_letters.letters import DeadLettersTable
    from consumers.dead_letters.redrive import LetterReader, Redrive, RedriveOutcome

    counts: Counter[str] = Counter()
    readable: list[str] = []
    staying: list[dict[str, str]] = []
    with nullcontext() if dry_run else closing(settings.build_log().producer()) as producer:
        redrive = Redrive(DeadLettersTable(settings), LetterReader(settings), producer)
        for result in redrive.run(ids):
            counts[str(result.outcome)] += 1
            if result.outcome is RedriveOutcome.READABLE:
                readable.append(result.letter.id)
            elif result.stays and len(staying) < _MOST_SHOWN:
                staying.append(_staying(result))
            job.done += 1
            job.result = {"outcomes": dict(counts), "readable": list(readable), "staying": list(staying)}
            if job.cancel.is_set():
                return
    if readable:
        job.follow_up = _REDRIVE_PATH


def _staying(result: "RedriveResult") -> dict[str, str]:
    return {"id": result.letter.id, "reason": result.reason, "detail": result.detail}


def pages() -> Iterable[Page]:
    """Return the pages."""
    return [
        Page("/dead-letters", "Dead letters", "letters.html", _read_list, has_csv=True),
        Page("/dead-letters/letter", "Dead letter", "letter.html", _read_letter),
    ]


def actions() -> Iterable[Route]:
    """Return what shows a letter's values, plans a redrive, and does it."""
    return [
        action("/dead-letters/show", _show_letter),
        action("/dead-letters/plan", _plan),
        action(_REDRIVE_PATH, _redrive),
    ]
