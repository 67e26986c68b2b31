"""The pages of jobs: what runs, how far it is, and the receipt of what was done."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ingest.dashboard.jobs import Job, JobState
from ingest.dashboard.page import Content, Dashboard, Fields, Page, action, first
from ingest.errors import ConfigurationError

_REFRESH_SECONDS = 1
_COLUMNS = ("id", "kind", "title", "state", "started_at", "finished_at", "done", "total", "error")


def job_page(job: Job) -> Response:
    """Return the answer that leads a browser to a job."""
    return RedirectResponse(f"/jobs/job?id={job.id}", 303)


def confirmed_plan(dashboard: Dashboard, fields: Fields, kind: str, planned: str, to_do: str) -> Job:
    """Return the plan that a person confirms by a form.

    Raises ConfigurationError where it is another `kind` of job, has not ended well, or has nothing in
    `planned`, which is a list in its result; `to_do` is the verb for that.
    """
    plan = dashboard.jobs.find(first(fields, "plan"))
    if plan.kind != kind or plan.state is not JobState.DONE or not plan.result.get(planned):
        raise ConfigurationError(f"there is no plan with anything to {to_do}: make one first")
    return plan


def _read_jobs(dashboard: Dashboard, request: Request) -> Content:
    del request
    jobs = [job.receipt() for job in dashboard.jobs.newest_first()]
    rows = [[job[name] for name in _COLUMNS] for job in jobs]
    return Content(data={"jobs": jobs}, columns=_COLUMNS, rows=rows)


def _read_job(dashboard: Dashboard, request: Request) -> Content:
    job = dashboard.jobs.find(request.query_params.get("id", ""))
    refresh = 0 if job.finished_at else _REFRESH_SECONDS
    return Content(data={"job": job.receipt(), "refresh": refresh}, command=job.command)


def _cancel(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    del request
    job = dashboard.jobs.find(first(fields, "id"))
    if job.finished_at:
        raise ConfigurationError("this job has ended already")
    job.cancel.set()
    return job_page(job)


def pages() -> Iterable[Page]:
    """Return the pages."""
    return [
        Page("/jobs", "Jobs", "jobs.html", _read_jobs, has_csv=True),
        Page("/jobs/job", "Job", "job.html", _read_job),
    ]


def actions() -> Iterable[Route]:
    """Return what cancels a job."""
    return [action("/jobs/cancel", _cancel)]
