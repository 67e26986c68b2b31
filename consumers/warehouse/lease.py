"""A lease of a dataset, for destinations with transactions and without locks of their own.

A table of one row says who holds the lease, and how often it was taken. Who takes it raises that number, and
only if it is still the one that was read: of two at once one succeeds. Each transaction of a load first
updates the row that the load's consumer took, so it waits for who takes the lease meanwhile, or the other
way round. A consumer that was frozen, and whose lease another one took, no longer finds that row, and writes
nothing.

No two clocks are compared. A lease counts as abandoned when its row stayed the same for a while by the clock
of who waits for it, and nothing is lost or doubled where that is wrong.
"""

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import sqlglot
import structlog
from dlt.destinations.sql_client import SqlClientBase

from ingest.errors import WarehouseUnavailable
from ingest.waits import Wait
from ingest.warehouse.errors import translated

log = structlog.get_logger()

_TABLE = "_ingest_lease"
_CREATE = "CREATE TABLE IF NOT EXISTS lease (holder VARCHAR(200), times_taken BIGINT)"
_ABANDONED_SECONDS = 300.0
_POLL_SECONDS = 1.0
_CHANGES = {"MERGE", "INSERT", "UPDATE", "DELETE"}
_REMEMBERED = 20  # holders that had the same working folder

_Row = tuple[str, int]


class Lease:
    """The lease of one dataset, as one consumer takes it."""

    def __init__(self, consumer: str, note: Path) -> None:
        """`consumer` is the name that others read.

        `note` is a file beside the consumer's working folder, which must be locked. It has the holders of
        that folder before, which have ended: their leases need not be waited for.
        """
        self._holder = f"{consumer}/{secrets.token_hex(8)}"
        self._ended: list[str] = []
        with suppress(OSError):  # without the note a lease that was not given back is waited for
            self._ended = note.read_text(encoding="utf-8").split("\n") if note.exists() else []
            note.write_text("\n".join([*self._ended[-_REMEMBERED:], self._holder]), encoding="utf-8")
        self._table = ""  # in the dataset of the tables, whatever dataset a transaction is about
        self._is_made = False
        self._times_taken: int | None = None  # when this consumer took it; None while it does not hold it
        self._seen: _Row | None = None
        self._seen_since = 0.0
        # Two transactions of one load would wait for each other at the row.
        self._transaction = threading.RLock()

    @contextmanager
    def held(self, client: SqlClientBase[Any], patience: float) -> Iterator[None]:
        """Hold the lease, over a connection that this opens.

        Raises WarehouseUnavailable when another consumer holds it for longer than `patience` seconds.
        """
        try:
            with translated():
                client.open_connection()
                self._make(client)
                self._times_taken = self._take(client, patience)
            yield
        finally:
            times_taken, self._times_taken = self._times_taken, None
            if times_taken is None:
                self._is_made = False  # somebody may have dropped the table
            else:
                with suppress(Exception):  # the next one waits, or another one has taken it already
                    self._update(client, "holder = ''", times_taken)
            client.close_connection()

    def guard(self, destination: Any) -> None:
        """Make every transaction of this dlt destination look first whether the lease is still held."""
        make_client = destination.client

        def client(*arguments: Any, **options: Any) -> Any:
            job_client = make_client(*arguments, **options)
            self._guard_client(job_client.sql_client)
            return job_client

        destination.client = client

    def _guard_client(self, client: SqlClientBase[Any]) -> None:
        """Make transactions look first, and changes of rows be in one.

        dlt takes a merge with the column `created_at` for a CREATE, and where that cannot be in a
        transaction, it makes none.
        """
        begin, execute_many, is_open = client.begin_transaction, client.execute_many, False

        @contextmanager
        def begin_transaction() -> Iterator[Any]:
            nonlocal is_open
            with self._transaction, begin() as transaction:
                is_open = True
                try:
                    self._check(client)
                    yield transaction
                finally:
                    is_open = False

        def execute_many_guarded(statements: Sequence[str], *arguments: Any, **options: Any) -> Any:
            words = {next(iter(statement.split()), "").upper() for statement in statements}
            with nullcontext() if is_open or words - _CHANGES else begin_transaction():
                return execute_many(statements, *arguments, **options)

        changed: Any = client
        changed.begin_transaction, changed.execute_many = begin_transaction, execute_many_guarded

    def _check(self, client: SqlClientBase[Any]) -> None:
        """Raise WarehouseUnavailable unless the lease is held; within a transaction, which then keeps it."""
        if self._times_taken is None:
            return
        self._update(client, "holder = holder", self._times_taken)
        if self._read(client) != (self._holder, self._times_taken):
            raise WarehouseUnavailable(
                "another consumer has taken over meanwhile: what is left of this load is not written, and"
                " what was not committed is loaded by whoever owns its partitions now"
            )

    def _make(self, client: SqlClientBase[Any]) -> None:
        if self._is_made:
            return
        if not client.has_dataset():
            client.create_dataset()
        statement = sqlglot.parse_one(_CREATE, dialect="postgres")
        sql = statement.sql(dialect=client.capabilities.sqlglot_dialect)
        self._table = client.make_qualified_table_name(_TABLE)
        client.execute_sql(sql.replace("lease", self._table, 1))
        self._is_made = True

    def _take(self, client: SqlClientBase[Any], patience: float) -> int:
        end, wait = time.monotonic() + patience, Wait("another consumer loads", patience)
        while True:
            row = self._read(client)
            if row is None:
                # Of two rows that are made at once, the one that is taken first counts from then on.
                client.execute_sql(f"INSERT INTO {self._table} (holder, times_taken) VALUES ('', 0)")  # noqa: S608 - our own name
                continue
            holder, times_taken = row
            if row != self._seen:
                self._seen, self._seen_since = row, time.monotonic()
            is_abandoned = time.monotonic() - self._seen_since > _ABANDONED_SECONDS
            if is_abandoned or holder in ("", self._holder, *self._ended):
                if is_abandoned and holder:
                    log.warning("warehouse.lease_taken_over", holder=holder)
                self._update(
                    client, f"holder = '{self._holder}', times_taken = {times_taken + 1}", times_taken
                )
                if self._read(client) == (self._holder, times_taken + 1):
                    return times_taken + 1
            elif time.monotonic() >= end:
                raise WarehouseUnavailable(
                    f"the consumer {holder} is loading; if it was killed on another machine, its lease ends"
                    f" after {_ABANDONED_SECONDS:.0f} s"
                )
            else:
                wait.announce_if_due()
                time.sleep(_POLL_SECONDS)

    def _read(self, client: SqlClientBase[Any]) -> _Row | None:
        """Return who took the lease last, "" where it was given back, and how often it was taken by then."""
        rows = client.execute_sql(
            f"SELECT holder, times_taken FROM {self._table} ORDER BY times_taken DESC LIMIT 1"  # noqa: S608 - our own name
        )
        return (str(rows[0][0] or ""), int(rows[0][1])) if rows else None

    def _update(self, client: SqlClientBase[Any], values: str, times_taken: int) -> None:
        """Set values in the row that was taken so often, if there still is one."""
        client.execute_sql(f"UPDATE {self._table} SET {values} WHERE times_taken = {times_taken}")  # noqa: S608 - our own
