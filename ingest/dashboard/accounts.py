"""The page of one account: its verdict, its last hours as charts, and a calendar of what is proven."""

import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.routing import Route

from ingest.dashboard.home import account_json, newest_changes
from ingest.dashboard.page import Content, Dashboard, Page
from ingest.errors import ConfigurationError
from ingest.health.accounts import accounts_health
from ingest.settings import Settings
from ingest.times import parse_stored_instant
from ingest.warehouse.completeness import HOUR, CompletenessTable, hour_of, hours_between
from ingest.warehouse.deliveries import hourly_deliveries
from ingest.warehouse.freshness import FreshnessTable
from ingest.warehouse.query import query_or_empty

_SPANS = {"1d": timedelta(days=1), "2d": timedelta(days=2), "7d": timedelta(days=7)}
_USUAL_SPAN = "2d"
_CALENDAR_DAYS = 14
_REFRESH_SECONDS = 30
_RUNS = (
    "SELECT finished_at, missed, repaired FROM reconciliations"
    " WHERE vendor = %s AND account = %s AND finished_at >= %s AND finished_at < %s"
)
_COLUMNS = ("hour", "deliveries", "p50", "p95", "missed", "repaired")


def _read_account(dashboard: Dashboard, request: Request) -> Content:
    settings = dashboard.settings
    name, span = request.query_params.get("name", ""), request.query_params.get("span", _USUAL_SPAN)
    if name not in settings.accounts:
        raise ConfigurationError(f"the settings have no account {name}")
    if span not in _SPANS:
        raise ConfigurationError(f"span is one of {', '.join(_SPANS)}")
    vendor, latest, now = settings.accounts[name].vendor, dashboard.health.latest(), datetime.now(UTC)
    health = next(
        account for account in accounts_health(latest.facts, settings, latest.at) if account.account == name
    )
    hours = _hours(settings, vendor, name, hour_of(now) + HOUR - _SPANS[span])
    gaps = [
        gap
        for gap in latest.facts.warehouse.get("gaps") or ()
        if (gap["vendor"], gap["account"]) == (vendor, name)
    ]
    return Content(
        data={
            "refresh": _REFRESH_SECONDS,
            "account": account_json(health),
            "hours": hours,
            "span": span,
            "spans": {other: f"/account?{urlencode({'name': name, 'span': other})}" for other in _SPANS},
            "calendar": _calendar(settings, vendor, name, now),
            "gaps": gaps,
            "changes": newest_changes(latest.facts, now),
        },
        columns=_COLUMNS,
        rows=[[hour[column] for column in _COLUMNS] for hour in hours],
        command=shlex.join(["ingest", "prove", "--no-ask", "--account", name]),
    )


def _hours(settings: Settings, vendor: str, account: str, since: datetime) -> list[Mapping[str, Any]]:
    """Return what happened in each hour since then: deliveries, freshness, and what reconciliations found."""
    key = (vendor, account)
    deliveries = hourly_deliveries(settings, since, key).get(key, {})
    freshness = FreshnessTable(settings).quantiles(vendor, account, since)
    until = hour_of(datetime.now(UTC)) + HOUR
    hours: dict[datetime, dict[str, Any]] = {
        hour: {
            "hour": hour,
            "deliveries": deliveries.get(hour, 0),
            "p50": freshness.get(hour, (None, None))[0],
            "p95": freshness.get(hour, (None, None))[1],
            "missed": 0,
            "repaired": 0,
        }
        for hour in hours_between(since, until)
    }
    for finished_at, missed, repaired in query_or_empty(
        settings, _RUNS, [vendor, account, since, until]
    ).rows:
        hour = hours[hour_of(parse_stored_instant(finished_at))]
        hour["missed"] += missed
        hour["repaired"] += repaired
    return list(hours.values())


def _calendar(settings: Settings, vendor: str, account: str, now: datetime) -> list[Mapping[str, Any]]:
    """Return the last days, the newest first, each with the verdict on each of its hours.

    An hour that is to come has no verdict; one that was not asked for is open.
    """
    today = hour_of(now).replace(hour=0)
    first_day = today - timedelta(days=_CALENDAR_DAYS - 1)
    verdicts = CompletenessTable(settings).verdicts(vendor, account, since=first_day)
    days: list[Mapping[str, Any]] = []
    for day in (today - timedelta(days=number) for number in range(_CALENDAR_DAYS)):
        hours: list[Mapping[str, str] | None] = []
        for hour in (day + HOUR * number for number in range(24)):
            known = verdicts.get(hour)
            if hour > now:
                hours.append(None)
            elif known is None:
                hours.append({"verdict": "open", "reason": "nobody has asked the vendor for it yet"})
            else:
                hours.append({"verdict": str(known.verdict), "reason": known.reason or ""})
        days.append({"day": day, "hours": hours})
    return days


def pages() -> Iterable[Page]:
    """Return the page."""
    return [Page("/account", "Account", "account.html", _read_account, has_csv=True)]


def actions() -> Iterable[Route]:
    """Return no action: this page only shows."""
    return []
