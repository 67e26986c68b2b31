"""Which hours of an account are to be asked for again, in as few spans as make sense."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR, PROVEN, CompletenessTable, HourVerdict, hour_of
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler

Span = tuple[datetime, datetime | None]
"""The arguments `since` and `until` of a run."""

# Proven hours are asked for again where that joins two spans: a request more would cost more.
_JOINED_OVER = timedelta(hours=24)


def asked_windows(
    account: AnyAccount,
    verdicts: Mapping[datetime, HourVerdict],
    since: datetime | None,
    until: datetime,
) -> list[Span]:
    """Return the spans of the runs that can prove the hours in [since, until) which are not proven yet.

    Without `since`, they begin at the first hour that has a verdict. A vendor that lists bookings by when
    they start is asked for everything from there on, because any of them may have changed in the hours.
    """
    spans = _spans(verdicts, hour_of(since) if since else min(verdicts, default=until), until)
    rest_class = account.rest_class
    if spans and rest_class and rest_class.window_column == "starts_at":
        return [(spans[0][0], None)]
    return [*spans]


def ask_again(
    settings: Settings,
    reconciler: Reconciler,
    account: AnyAccount,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Report]:
    """Reconcile the hours in [since, until) that are not proven, and return a report of each run.

    Without `since` these are all since the first hour that was ever asked for, without `until` those that
    runs of the schedule do not reach any more. A run that fails is the last one. Raises WarehouseUnavailable.
    """
    table = CompletenessTable(settings)
    first = since or table.complete_until(account.vendor, account.name, PROVEN)  # years before it are proven
    verdicts = table.verdicts(account.vendor, account.name, first and hour_of(first))
    until = until or datetime.now(UTC) - settings.reconcile.lookback
    reports: list[Report] = []
    for start, end in asked_windows(account, verdicts, first, until):
        reports += reconciler.run([account], start, end)
        if any(report.failure for report in reports):
            break
    return reports


def _spans(
    verdicts: Mapping[datetime, HourVerdict], first: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    spans: list[tuple[datetime, datetime]] = []
    hour = first
    while hour + HOUR <= until:
        verdict = verdicts.get(hour)
        if verdict is None or verdict.verdict not in PROVEN:
            if spans and hour - spans[-1][1] <= _JOINED_OVER:
                spans[-1] = spans[-1][0], hour + HOUR
            else:
                spans.append((hour, hour + HOUR))
        hour += HOUR
    return spans
