"""What a load waits for at the destination, where that can be asked."""

from contextlib import closing, suppress

from ingest.settings import WarehouseSettings
from ingest.warehouse.destination import POSTGRES, credentials

_CONNECT_SECONDS = 2
_ANSWER_MILLISECONDS = 2_000
# Whoever holds a lock that a session of ours waits for. Queries are not shown: they may hold anything.
# https://www.postgresql.org/docs/current/functions-info.html
_BLOCKERS = """
SELECT DISTINCT other.pid, other.usename, other.application_name, other.state,
       date_trunc('second', clock_timestamp() - other.xact_start)::text
FROM pg_stat_activity AS ours
CROSS JOIN LATERAL unnest(pg_blocking_pids(ours.pid)) AS blocker(pid)
JOIN pg_stat_activity AS other ON other.pid = blocker.pid
WHERE ours.usename = current_user AND ours.datname = current_database()
ORDER BY other.pid LIMIT 3
"""


def blockers(settings: WarehouseSettings) -> str:
    """The sessions of PostgreSQL that a session of ours waits for, as a phrase; "" where none does, or it cannot be asked."""
    if settings.destination != POSTGRES or not (url := credentials(settings)).startswith("postgres"):
        return ""
    import psycopg2

    with (
        suppress(psycopg2.Error),
        closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection,
    ):
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {_ANSWER_MILLISECONDS}")
            cursor.execute(_BLOCKERS)
            sessions = [_described(*row) for row in cursor.fetchall()]
        return f"a lock of {' and '.join(sessions)}" if sessions else ""
    return ""


def _described(pid: int, user: str, program: str | None, state: str | None, age: str | None) -> str:
    known = ", ".join(filter(None, (f"user {user}", program, state, age and f"its transaction is {age} old")))
    return f"PostgreSQL's session {pid} ({known})"
