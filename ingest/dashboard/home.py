"""The first screen: the verdict on each account, the parts, what waits, and what changed last."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from ingest.dashboard.page import Content, Dashboard, Page
from ingest.health.accounts import AccountHealth, Verdict, accounts_health
from ingest.health.facts import Facts
from ingest.health.judge import judge
from ingest.readiness import State
from ingest.settings.sources import watched_paths

_WORST_FIRST = (Verdict.DEGRADED, Verdict.UNKNOWN, Verdict.WARNING, Verdict.HEALTHY)
_REFRESH_SECONDS = 10
_COLUMNS = ("name", "verdict", "why", "command", "last_delivery", "lag", "complete_until", "bookings")


def _read_home(dashboard: Dashboard, request: Request) -> Content:
    del request
    health, settings = dashboard.health.latest(), dashboard.settings
    facts, now = health.facts, datetime.now(UTC)
    accounts = sorted(
        accounts_health(facts, settings, health.at),
        key=lambda account: _WORST_FIRST.index(account.verdict or Verdict.UNKNOWN),
    )
    own = {account.account for account in accounts}
    findings = [
        finding
        for finding in judge(facts, settings, health.at)
        if finding.check not in own and finding.state in {State.FAILED, State.WARNING}
    ]
    shown = [account_json(account) for account in accounts]
    return Content(
        data={
            "refresh": _REFRESH_SECONDS,
            "as_of": health.at,
            "accounts": shown,
            "findings": [{**finding.to_json(), "command": finding.command} for finding in findings],
            "parts": [
                {"name": part.name, "state": part.state, "address": part.address} for part in facts.parts
            ],
            "spool": {
                "records": sum(file["records"] for file in facts.spool.get("files") or ()),
                "oldest": min(
                    (file["oldest"] for file in facts.spool.get("files") or () if file["oldest"]),
                    default=None,
                ),
                "error": facts.spool.get("error", ""),
            },
            "changes": newest_changes(facts, now),
        },
        columns=_COLUMNS,
        rows=[[account[name] for name in _COLUMNS] for account in shown],
        command="ingest status",
    )


def account_json(account: AccountHealth) -> dict[str, Any]:
    """Return an account's health for a template and for JSON."""
    values = asdict(account)
    return {**values, "verdict": str(account.verdict or ""), "name": account.name}


def newest_changes(facts: Facts, now: datetime) -> list[Mapping[str, Any]]:
    """Return what changed last, the newest first: starts of the parts, and the files with the settings."""
    changes: list[Mapping[str, Any]] = [
        {"what": f"the {part.name} started", "at": datetime.fromtimestamp(value, UTC)}
        for part in facts.parts
        for name, _, value in part.samples
        if name == "process_start_time_seconds"
    ]
    for path in watched_paths():
        with suppress(OSError):
            changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            changes.append({"what": f"{path.name} changed", "at": changed_at})
    return sorted((change for change in changes if _is_past(change, now)), key=_at, reverse=True)[:6]


def _is_past(change: Mapping[str, Any], now: datetime) -> bool:
    return bool(change["at"] <= now)


def _at(change: Mapping[str, Any]) -> datetime:
    at: datetime = change["at"]
    return at


def pages() -> Iterable[Page]:
    """Return the page."""
    return [Page("/", "Accounts", "home.html", _read_home, has_csv=True)]


def actions() -> Iterable[Route]:
    """Return no action: this page only shows."""
    return []
