"""Probe whether records in the log are loaded, for `/readyz`."""

from datetime import UTC, datetime, timedelta

from ingest.duration import describe_duration
from ingest.errors import LogUnavailable
from ingest.finding import Finding, State, ok
from ingest.log.backend import Log
from ingest.telemetry import OLDEST_UNDONE_SECONDS
from ingest.undone import judge_undone


def probe_loaded(log: Log, limit: timedelta) -> list[Finding]:
    """Return a failure where a record is in the log for longer than `limit` and not loaded; that the log cannot be asked, another probe tells."""
    try:
        backlog = log.backlog()
    except LogUnavailable:
        return [Finding("undone", State.SKIPPED, "the log cannot be asked what waits in it")]
    since = min((entry.waiting_since for entry in backlog if entry.lag and entry.waiting_since), default=None)
    age = max(datetime.now(UTC) - since, timedelta()) if since else timedelta()
    OLDEST_UNDONE_SECONDS.set(age.total_seconds())
    if not since:
        return [ok("undone", "everything in the log is loaded")]
    detail = f"records in the log wait to be loaded, the oldest for {describe_duration(age)}"
    return [judge_undone("reconcile", detail, age, limit, "see what the consumer does")]
