"""Locks around loads: the working folder of a pipeline, DuckDB's file, and locks of PostgreSQL."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.sql_client import SqlClientBase

from ingest.destinations import POSTGRES
from ingest.errors import WarehouseUnavailable
from ingest.locks import HeldLock, exclusive
from ingest.settings import Settings, WarehouseSettings
from ingest.warehouse.destination import credentials, make_folder
from ingest.warehouse.duckdb_file import warehouse_lock
from ingest.warehouse.errors import has_type_named, translated

_FOLDER_PATIENCE_SECONDS = 10.0
_DUCKDB_THREADS = 2  # each takes buffers of its own
_LONGEST_OPEN_SECONDS = 2.0  # readers of DuckDB's file wait as long during a backlog
# DuckDB writes its file when so much was committed, and when it is closed: in a backlog the latter is enough.
_WRITTEN_AT_ONCE = "64 MiB"
_CONNECT_SECONDS = 2
_ANSWER_MILLISECONDS = 2_000
# A load may take long. It finds rows by an index: while a table has no statistics, the server believes that
# nearly all of its rows are wanted, and would read it from end to end.
_IN_A_LOAD = (
    "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off;"
    " SET LOCAL enable_seqscan = off; SET LOCAL enable_mergejoin = off"
)
# The sessions that hold a lock for which a session of ours waits. Queries are not shown: they may contain
# anything. https://www.postgresql.org/docs/current/functions-info.html
_BLOCKERS = """
SELECT DISTINCT other.pid, other.usename, other.application_name, other.state,
       date_trunc('second', clock_timestamp() - other.xact_start)::text
FROM pg_stat_activity AS ours
CROSS JOIN LATERAL unnest(pg_blocking_pids(ours.pid)) AS blocker(pid)
JOIN pg_stat_activity AS other ON other.pid = blocker.pid
WHERE ours.usename = current_user AND ours.datname = current_database()
ORDER BY other.pid LIMIT 3
"""


def lock_folder(folder: Path, busy: str) -> HeldLock:
    """Make a pipeline's working folder, and lock it for this process.

    Waits a moment for another process, which may be about to end. Raises WarehouseUnavailable, with the
    message `busy` when another process keeps the lock.
    """
    make_folder(folder)
    file = folder.with_name(f"{folder.name}.lock")
    try:
        return exclusive(
            file,
            _FOLDER_PATIENCE_SECONDS,
            lambda holder: WarehouseUnavailable(f"{busy}{holder}"),
            purpose=busy,
        )
    except OSError as error:
        raise WarehouseUnavailable(f"{file} cannot be made: {error.strerror}") from None


@contextmanager
def loading_turn(settings: Settings, patience: float) -> Iterator[Callable[[], None]]:
    """Take a turn at DuckDB's file, and keep it open.

    dlt opens it for each job, which would cost more than a small load. At other destinations there is nothing
    to wait for. Yields a check that raises WarehouseUnavailable when another file took the place of this one:
    what was written is in the one that is gone. The end of the turn checks it too. Raises
    WarehouseUnavailable.
    """
    file = settings.warehouse.duckdb_file
    with warehouse_lock(settings.warehouse, patience):
        if file is None:
            yield lambda: None
            return
        with translated():
            connection = _connect(file, settings.consumer.duckdb_bytes)
        inode = _inode(file)

        def check_place() -> None:
            if _inode(file) != inode:
                raise WarehouseUnavailable(f"{file} was moved, deleted or replaced while it was written to")

        try:
            yield check_place
            check_place()
        finally:
            connection.close()


class LoadingTurns:
    """The turns of one consumer at DuckDB's file, which stays open from one to the next in a backlog.

    DuckDB writes the file when it is closed, and that takes as long as the rest of a load. Until then, what
    was committed is in the log of changes beside the file, and other processes wait.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = ExitStack()  # the turn that was not ended yet
        self._check_place: Callable[[], None] | None = None
        self._open_since = 0.0
        self._stays_open = False

    @contextmanager
    def turn(self, patience: float) -> Iterator[None]:
        """Take a turn, or go on with the one that was kept. Raises as `loading_turn` does."""
        if self._check_place is None:
            self._check_place = self._open.enter_context(loading_turn(self._settings, patience))
            self._open_since = time.monotonic()
        try:
            yield
            self._check_place()
        except BaseException:
            self._end()
            raise
        if not self._stays_open or time.monotonic() - self._open_since > _LONGEST_OPEN_SECONDS:
            self._end()

    def keep_open(self, stays_open: bool) -> None:
        """Say whether turns follow each other now; where they do not, end the one that was kept."""
        self._stays_open = stays_open
        if not stays_open:
            self._end()

    def _end(self) -> None:
        self._check_place = None
        self._open.close()


def _connect(file: Path, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """Open the file with limits for the whole process: DuckDB would take most of the machine's memory."""
    connection = duckdb.connect(str(file))
    connection.execute(f"SET memory_limit = '{memory_bytes} B'")
    connection.execute(f"SET threads = {_DUCKDB_THREADS}")
    connection.execute(f"SET checkpoint_threshold = '{_WRITTEN_AT_ONCE}'")
    connection.execute("SET preserve_insertion_order = false")  # to keep it, results are held in memory
    return connection


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


class Fence:
    """Locks of PostgreSQL, each within one dataset, which end with the turn.

    At other destinations they do nothing. Kafka hands a partition on without asking. Without a fence, a
    consumer that was frozen in a load would write, after it wakes up, what was newest when it was frozen; and
    two consumers that share a staging dataset would empty it under each other.
    """

    def __init__(self, client: SqlClientBase[Any] | None, dataset: str, patience: float = 0.0) -> None:
        """`client` is within a transaction; None where there are no locks. `patience` is in seconds."""
        self._client, self._dataset, self._patience = client, dataset, patience

    def acquire(self, *names: str) -> None:
        """Take locks, of which all consumers take several in one order.

        Raises WarehouseUnavailable when another consumer holds one for too long.
        """
        if not self._client:
            return
        with translated():
            self._client.execute_sql(f"SET LOCAL lock_timeout = '{self._patience:.3f}s'")
            for name in names:
                key = f"ingest/{self._dataset}/{name}"
                try:
                    self._client.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", key)
                except DatabaseException as error:
                    if has_type_named(error.dbapi_exception, {"LockNotAvailable"}):
                        raise WarehouseUnavailable(
                            f"another consumer holds the lock of {name} in a load that does not end: it "
                            "may be frozen"
                        ) from None
                    raise
            self._client.execute_sql("SET LOCAL lock_timeout = DEFAULT")  # a table's locks are waited for


@contextmanager
def fenced(client: SqlClientBase[Any], patience: float) -> Iterator[Fence]:
    """Open a connection of PostgreSQL for one transaction, which is committed at the end.

    Its locks wait `patience` seconds for others. Raises WarehouseUnavailable.
    """
    try:
        with translated():
            client.open_connection()
            # In a transaction a pooler leaves the connection, and its locks, to us.
            client.native_connection.autocommit = False
            client.execute_sql(_IN_A_LOAD)
        yield Fence(client, client.dataset_name, patience)
        with translated():
            client.commit_transaction()
    finally:
        client.close_connection()


def blockers(settings: WarehouseSettings) -> str:
    """Name the sessions of PostgreSQL for which a session of ours waits, as a phrase.

    Returns "" where there are none, or PostgreSQL cannot be asked.
    """
    if settings.kind is not POSTGRES or not (url := credentials(settings)).startswith("postgres"):
        return ""
    import psycopg2

    sessions = []
    with (
        suppress(psycopg2.Error),
        closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SET statement_timeout = {_ANSWER_MILLISECONDS}")
        cursor.execute(_BLOCKERS)
        for pid, user, program, state, age in cursor.fetchall():
            details = (f"user {user}", program, state, age and f"its transaction is {age} old")
            sessions.append(f"PostgreSQL's session {pid} ({', '.join(filter(None, details))})")
    return f"a lock of {' and '.join(sessions)}" if sessions else ""
