"""Which hours of an account are to be asked for again, in as few spans as make sense."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR, PROVEN, CompletenessTable, HourVerdict, hour_of
from receivers.reconcile.checkpoint import Checkpoint
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

    Without `since` these are all since the first hour that was ever asked for, also where a restored log and
    warehouse lack its verdict; without `until` those that runs of the schedule do not reach any more. A run
    that fails is the last one. Raises WarehouseUnavailable, LogUnavailable.
    """
    table = CompletenessTable(settings)
    first = since or _first_unproven(settings, table, account)
    verdicts = table.verdicts(account.vendor, account.name, first and hour_of(first))
    until = until or datetime.now(UTC) - settings.reconcile.lookback
    reports: list[Report] = []
    for start, end in asked_windows(account, verdicts, first, until):
        reports += reconciler.run([account], start, end)
        if any(report.failure for report in reports):
            break
    return reports


def _first_unproven(settings: Settings, table: CompletenessTable, account: AnyAccount) -> datetime | None:
    """Return the first hour that may not be proven; None for the first that has a verdict, if any has.

    Raises WarehouseUnavailable, LogUnavailable.
    """
    checkpoint = Checkpoint(Path(settings.reconcile.state_dir), account.name, dry_run=True)
    asked = checkpoint.asked_since()
    stored = table.first_stored(account.vendor, account.name)
    if asked and (stored is None or asked < stored):
        return asked
    return table.complete_until(account.vendor, account.name, PROVEN)  # years before it are proven


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
