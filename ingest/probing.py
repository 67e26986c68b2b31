"""Whether the log of the settings can be used, found out by doing: for `ingest check` and for `/readyz`."""

from datetime import UTC, datetime, timedelta

from ingest.duration import describe_duration
from ingest.errors import LogUnavailable
from ingest.finding import Finding, State, failure, ok
from ingest.opening import kafka_servers, read_backlog, sqlite_path
from ingest.settings import Settings
from ingest.telemetry import OLDEST_UNDONE_SECONDS
from ingest.undone import judge_undone


def check_log(settings: Settings) -> list[Finding]:
    """Everything that the commands need of the log."""
    if path := sqlite_path(settings):
        try:
            probe_append(settings)
        except LogUnavailable as error:
            return [failure("log", error)]
        return [
            ok(
                "log",
                f"{path} can be written to"
                if path.exists()
                else f"{path} will be created at the first start",
            )
        ]
    from ingest.log.kafka import rights

    return rights.look(kafka_servers(settings), settings.kafka, settings.consumer.group, settings.topics())


def probe_append(settings: Settings) -> None:
    """Raises LogUnavailable when the log would take no record."""
    if path := sqlite_path(settings):
        from ingest.log.sqlite.probe import try_append

        try_append(path)
        return
    from ingest.log.kafka import rights

    rights.may_write(kafka_servers(settings), settings.kafka, settings.topics())


def probe_loaded(settings: Settings, limit: timedelta) -> list[Finding]:
    """Return a failure where a record is in the log for longer than `limit` and not loaded; that the log cannot be asked, another probe tells."""
    try:
        backlog = read_backlog(settings)
    except LogUnavailable:
        return [Finding("undone", State.SKIPPED, "the log cannot be asked what waits in it")]
    since = min((entry.waiting_since for entry in backlog if entry.lag and entry.waiting_since), default=None)
    age = max(datetime.now(UTC) - since, timedelta()) if since else timedelta()
    OLDEST_UNDONE_SECONDS.set(age.total_seconds())
    if not since:
        return [ok("undone", "everything in the log is loaded")]
    detail = f"records in the log wait to be loaded, the oldest for {describe_duration(age)}"
    return [judge_undone("reconcile", detail, age, limit, "see what the consumer does")]


def probe_read(settings: Settings) -> None:
    """Raises LogUnavailable when a consumer would get no records, or could not commit them."""
    if path := sqlite_path(settings):
        from ingest.log.sqlite.probe import try_append

        try_append(path)  # committing writes to the same file
        return
    from ingest.log.kafka import rights

    rights.may_read(kafka_servers(settings), settings.kafka, settings.consumer.group, settings.topics())
