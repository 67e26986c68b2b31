"""Reconciliations: what each run found and repaired, and starting one, dry or not."""

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.dashboard.jobs import Job
from ingest.dashboard.page import Content, Dashboard, Fields, Page, action, first
from ingest.dashboard.work import job_page
from ingest.settings import Settings
from ingest.spans import parse_span
from ingest.vendors import AnyAccount
from ingest.warehouse.query import query_or_empty

if TYPE_CHECKING:
    from receivers.reconcile.report import Counts

_ROWS = 100
_COLUMNS = ("finished_at", "vendor", "account", "outcome", "seen", "missed", "repaired", "gone", "requests")
_SELECT = (
    f"SELECT {', '.join(_COLUMNS)}, duration_seconds, error FROM reconciliations"  # noqa: S608 - our own names
    f" ORDER BY finished_at DESC, id LIMIT {_ROWS}"
)


def _read_list(dashboard: Dashboard, request: Request) -> Content:
    del request
    settings = dashboard.settings
    rows = query_or_empty(settings, _SELECT).dicts()
    able = [name for name, account in settings.accounts.items() if account.can_reconcile()]
    return Content(
        data={
            "runs": rows,
            "columns": _COLUMNS,
            "accounts": sorted(able),
            "lookback": settings.reconcile.lookback.days,
        },
        columns=(*_COLUMNS, "duration_seconds", "error"),
        rows=[list(row.values()) for row in rows],
        command=f'ingest query "{_SELECT}"',
    )


def _start(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Start a reconciliation of the chosen accounts. Raises ConfigurationError for what cannot be done."""
    from receivers.reconcile.run import choose_accounts

    del request
    settings, now = dashboard.settings, datetime.now(UTC)
    names, since, dry_run = fields.get("account", []), first(fields, "since"), bool(first(fields, "dry_run"))
    begin, _ = parse_span(since, "", now, now - settings.reconcile.lookback)
    accounts = choose_accounts(settings, names)
    options = [option for name in names for option in ("--account", name)]
    options += [*(["--since", since] if since else []), *(["--dry-run"] if dry_run else [])]
    job = Job(
        "reconcile",
        "Comparison with the vendors" if dry_run else "Reconciliation",
        shlex.join(["ingest", "reconcile", *options]),
    )
    dashboard.jobs.start(job, lambda job: _run(settings, job, accounts, begin, dry_run=dry_run))
    return job_page(job)


def _run(
    settings: Settings, job: Job, accounts: list[AnyAccount], since: datetime | None, *, dry_run: bool
) -> None:
    """Reconcile accounts, and keep the job's receipt up to date."""
    from consumers.dead_letters.redrive import open_letter_times
    from receivers.reconcile.run import open_reconciler

    def follow(account: str, counts: "Counts", reach: str) -> None:
        progress = {**job.result.get("progress", {}), account: {**asdict(counts), "reach": reach}}
        job.result = {"progress": progress}

    with open_reconciler(
        settings, follow, lambda: open_letter_times(settings), dry_run=dry_run, stop=job.cancel
    ) as reconciler:
        reports = reconciler.run(accounts, since)
    job.result = {
        "dry_run": dry_run,
        "reports": [
            {**report.columns(), "settled": report.settled, "unproven": report.unproven or ""}
            for report in reports
        ],
    }
    if failures := [f"{report.account}: {report.failure}" for report in reports if report.failure]:
        job.error = "; ".join(failures)


def pages() -> Iterable[Page]:
    """Return the page."""
    return [Page("/reconciliations", "Reconciliations", "reconciliations.html", _read_list, has_csv=True)]


def actions() -> Iterable[Route]:
    """Return what starts a reconciliation."""
    return [action("/reconciliations/start", _start)]
