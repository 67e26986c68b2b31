"""Webhook subscriptions at the vendors: what was seen last, the plan, and doing it once it is confirmed."""

import shlex
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.dashboard.jobs import Job
from ingest.dashboard.page import Content, Dashboard, Fields, Page, action, first
from ingest.dashboard.work import confirmed_plan, job_page
from ingest.errors import ConfigurationError
from ingest.health.facts import subscription_states
from ingest.settings import NO_ACCOUNT, Settings
from ingest.vendors import AnyAccount

if TYPE_CHECKING:
    from receivers.subscriptions.account_plan import AccountPlan
    from receivers.subscriptions.apply import Permissions

_APPLY_PATH = "/subscriptions/apply"
_COLUMNS = ("vendor", "account", "made_by", "states")


def _read_list(dashboard: Dashboard, request: Request) -> Content:
    del request
    settings, latest = dashboard.settings, dashboard.health.latest()
    states = subscription_states(latest.facts)
    accounts: list[dict[str, Any]] = [
        {
            "vendor": account.vendor,
            "account": account.name,
            "made_by": "its API" if account.manages_subscriptions else "hand",
            "states": {
                state: int(number) for state, number in states.get((account.vendor, account.name), {}).items()
            },
        }
        for account in settings.choose_accounts(())
    ]
    return Content(
        data={"accounts": accounts, "as_of": latest.at, "every": settings.webhooks.every},
        columns=_COLUMNS,
        rows=[
            [*(account[name] for name in _COLUMNS[:-1]), ", ".join(account["states"])] for account in accounts
        ],
        command="ingest webhooks list",
    )


def _plan(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Start the job that asks the vendors what they have, and says what would be done."""
    del request
    settings, names = dashboard.settings, fields.get("account", [])
    accounts = settings.choose_accounts(names)
    if not accounts:
        raise ConfigurationError(NO_ACCOUNT)
    job = Job(
        "subscriptions-plan",
        "What the vendors have, and what is wanted",
        shlex.join(["ingest", "webhooks", "plan", *names]),
        total=len(accounts),
    )
    dashboard.jobs.start(job, lambda job: _run_plan(settings, job, accounts))
    return job_page(job)


def _run_plan(settings: Settings, job: Job, accounts: Sequence[AnyAccount]) -> None:
    from receivers.subscriptions.account_plan import make_plans

    plans: list[AccountPlan] = []
    for account in accounts:
        if job.cancel.is_set():
            return
        plans += make_plans(settings, [account])
        job.done += 1
        differing = [plan.account.name for plan in plans if any(step.is_change for step in plan.steps)]
        job.result = {"plans": [plan.to_json() for plan in plans], "differing": differing}
    if job.result["differing"]:
        job.follow_up = _APPLY_PATH


def _apply(dashboard: Dashboard, request: Request, fields: Fields) -> Response:
    """Start the job that does what a plan has shown, for the accounts that differed there."""
    from receivers.subscriptions.apply import Permissions

    del request
    settings = dashboard.settings
    plan = confirmed_plan(dashboard, fields, "subscriptions-plan", "differing", "do")
    names: list[str] = plan.result["differing"]
    permissions = Permissions(elsewhere=True, take_over=bool(first(fields, "take_over")))
    options = ["--yes", "--no-reconcile", *(["--take-over"] if permissions.take_over else [])]
    job = Job(
        "subscriptions",
        "Subscriptions made as wanted",
        shlex.join(["ingest", "webhooks", "apply", *names, *options]),
        total=len(names),
    )
    accounts = settings.choose_accounts(names)
    dashboard.jobs.start(job, lambda job: _run_apply(settings, job, accounts, permissions))
    return job_page(job)


def _run_apply(
    settings: Settings, job: Job, accounts: Sequence[AnyAccount], permissions: "Permissions"
) -> None:
    """Change the subscriptions of one account after the other, and keep the job's receipt up to date."""
    from receivers.subscriptions.account_plan import AccountPlan
    from receivers.subscriptions.check import open_manager
    from receivers.subscriptions.state import note_changed

    applied: list[dict[str, Any]] = []
    job.result = {"applied": applied}
    for account in accounts:
        if job.cancel.is_set():
            return
        plan = AccountPlan(account)
        with plan.noting_failure(), closing(open_manager(settings, account)) as manager:
            done = manager.apply(permissions)
            plan.done, plan.steps = done.done, done.plan
        note_changed(settings)
        applied.append(
            {
                "name": plan.name,
                "done": [f"{step.action.value.replace('_', ' ')} {step.urls}" for step in plan.done],
                "left": [step.why for step in plan.steps if step.is_change],
                "error": str(plan.failure or ""),
            }
        )
        job.done += 1
    if failures := [f"{account['name']}: {account['error']}" for account in applied if account["error"]]:
        job.error = "; ".join(failures)


def pages() -> Iterable[Page]:
    """Return the page."""
    return [Page("/subscriptions", "Subscriptions", "subscriptions.html", _read_list, has_csv=True)]


def actions() -> Iterable[Route]:
    """Return what plans changes at the vendors, and makes them."""
    return [action("/subscriptions/plan", _plan), action(_APPLY_PATH, _apply)]
