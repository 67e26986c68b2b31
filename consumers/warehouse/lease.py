"""A lease of a dataset, for destinations without locks of their own.

A table of one row says who holds the lease, and how often it was taken. Who takes it raises that number, and
only if it is still the one that was read: of two at once one succeeds. Each change of a load depends on the
row that the load's consumer took, in the way that the destination has:

- A transaction first updates the row, so it waits for who takes the lease meanwhile, or the other way round.
- A script does the same in its own transaction, where that of a session would stay open on the server for
  hours when its client is killed.
- A merge takes rows from the staging dataset only while the row is there, where there are no transactions.

So a consumer that was frozen, and whose lease another one took, writes nothing. Where no change can depend on
the row, one consumer keeps the lease as long as it runs, and a second one is refused.

No two clocks are compared. A lease counts as abandoned when its row stayed the same for a while by the clock
of who waits for it, and nothing is lost or doubled where that is wrong.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import sqlglot
import structlog
from dlt.destinations.sql_client import SqlClientBase

from consumers.warehouse.clients import change_clients, rewrite_statements
from ingest.destinations import Transactions
from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.waits import Wait
from ingest.warehouse.errors import translated

log = structlog.get_logger()

_TABLE = "_ingest_lease"
_CREATE = "CREATE TABLE IF NOT EXISTS lease (holder VARCHAR(200), times_taken BIGINT)"
_ABANDONED_SECONDS = 300.0
_RENEWAL_SECONDS = 60.0  # of a lease that is kept
_POLL_SECONDS = 1.0
_MERGED_ROWS = re.compile(r"(MERGE INTO \S+ d USING )(\S+)( s\s)")  # as dlt writes a merge, in one line
_CHANGES = {"MERGE", "INSERT", "UPDATE", "DELETE"}
_REMEMBERED = 20  # holders that had the same working folder

_Row = tuple[str, int]


class Lease:
    """The lease of one dataset, as one consumer takes it."""

    def __init__(self, consumer: str, note: Path, *, is_kept: bool = False) -> None:
        """`consumer` is the name that others read.

        `note` is a file beside the consumer's working folder, which must be locked. It has the holders of
        that folder before, which have ended: their leases need not be waited for. `is_kept` says that the
        lease is not given back between two turns.
        """
        self._is_kept = is_kept
        self._holder = f"{consumer}/{secrets.token_hex(8)}"
        self._ended: list[str] = []
        with suppress(OSError):  # without the note a lease that was not given back is waited for
            self._ended = note.read_text(encoding="utf-8").split("\n") if note.exists() else []
            note.write_text("\n".join([*self._ended[-_REMEMBERED:], self._holder]), encoding="utf-8")
        self._table = ""  # in the dataset of the tables, whatever dataset a transaction is about
        self._is_made = False
        self._times_taken: int | None = None  # when this consumer took it; None while it does not hold it
        self._seen: _Row | None = None
        self._seen_since = self._renewed_at = 0.0
        # Two transactions of one load would wait for each other at the row.
        self._transaction = threading.RLock()

    @contextmanager
    def held(self, client: SqlClientBase[Any], patience: float) -> Iterator[None]:
        """Hold the lease, over a connection that this opens.

        Raises WarehouseUnavailable when another consumer holds it for longer than `patience` seconds, or has
        taken it by the end; ConfigurationError when a consumer that keeps the lease is running.
        """
        is_held = False
        try:
            with translated():
                client.open_connection()
                self._make(client)
                if self._is_kept and self._times_taken is not None:
                    self._renew(client, self._times_taken)
                else:
                    self._times_taken = self._take(client, patience)
            is_held = True
            yield
            with translated():
                self._require(client)
        finally:
            if not (is_held and self._is_kept):
                self._give_back(client)
            client.close_connection()

    def is_due(self) -> bool:
        """Return whether a lease that is kept has to be renewed by a turn, so that others see it change."""
        return self._is_kept and time.monotonic() - self._renewed_at > _RENEWAL_SECONDS

    def release(self, make_client: Callable[[], SqlClientBase[Any]]) -> None:
        """Give back a lease that is kept. Where that fails, the next consumer waits for it."""
        if self._is_kept and self._times_taken is not None:
            with suppress(Exception), make_client() as client:
                self._give_back(client)

    def guard(self, destination: Any, transactions: Transactions) -> None:
        """Make every change of rows by this dlt destination depend on the lease."""
        guards = {
            Transactions.SESSION: self._guard_transactions,
            Transactions.SCRIPT: self._guard_scripts,
            Transactions.STATEMENT: self._guard_merges,
        }
        change_clients(destination, guards[transactions])

    def _guard_transactions(self, client: SqlClientBase[Any]) -> None:
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
            with begin_transaction() if _are_changes(statements) and not is_open else nullcontext():
                return execute_many(statements, *arguments, **options)

        changed: Any = client
        changed.begin_transaction, changed.execute_many = begin_transaction, execute_many_guarded

    def _guard_scripts(self, client: SqlClientBase[Any]) -> None:
        """Make changes of rows a script that does nothing once another consumer has taken the lease.

        The server commits it whole, or not at all. What it left out is noticed at the end of the turn.
        """

        def script(statements: Sequence[str]) -> Sequence[str]:
            if self._times_taken is None or not _are_changes(statements):
                return statements
            update = f"UPDATE {self._table} SET holder = holder WHERE times_taken = {self._times_taken}"  # noqa: S608 - our own
            changes = f"IF {self._condition()} THEN {'; '.join(statements)}; END IF"
            return ["BEGIN TRANSACTION", update, changes, "COMMIT TRANSACTION"]

        changed: Any = client
        changed.begin_transaction = lambda: nullcontext(client)
        rewrite_statements(client, script)

    def _guard_merges(self, client: SqlClientBase[Any]) -> None:
        """Make merges take no rows once another consumer has taken the lease.

        What such a merge left out is noticed at the end of the turn.
        """

        def guarded(statements: Sequence[str]) -> Sequence[str]:
            if self._times_taken is None:
                return statements
            condition = self._condition()
            return [
                _MERGED_ROWS.sub(
                    lambda part: f"{part[1]}(SELECT * FROM {part[2]} WHERE {condition}){part[3]}",  # noqa: S608 - our own names
                    statement,
                    count=1,
                )
                for statement in statements
            ]

        rewrite_statements(client, guarded)

    def _condition(self) -> str:
        """Return SQL that is true while the lease is held."""
        return (
            f"EXISTS (SELECT 1 FROM {self._table}"  # noqa: S608 - our own names
            f" WHERE holder = '{self._holder}' AND times_taken = {self._times_taken})"
        )

    def _check(self, client: SqlClientBase[Any]) -> None:
        """Raise WarehouseUnavailable unless the lease is held; within a transaction, which then keeps it."""
        if self._times_taken is not None:
            self._update(client, "holder = holder", self._times_taken)
            self._require(client)

    def _require(self, client: SqlClientBase[Any]) -> None:
        """Raise WarehouseUnavailable where another consumer has taken the lease."""
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

    def _renew(self, client: SqlClientBase[Any], times_taken: int) -> None:
        self._update(client, f"times_taken = {times_taken + 1}", times_taken)
        self._times_taken, self._renewed_at = times_taken + 1, time.monotonic()
        self._require(client)

    def _give_back(self, client: SqlClientBase[Any]) -> None:
        times_taken, self._times_taken = self._times_taken, None
        if times_taken is None:
            self._is_made = False  # somebody may have dropped the table
        else:
            with suppress(Exception):  # the next one waits, or another one has taken it already
                self._update(client, "holder = ''", times_taken)

    def _take(self, client: SqlClientBase[Any], patience: float) -> int:
        end, wait = time.monotonic() + patience, Wait("another consumer loads", patience)
        while True:
            row = self._read(client)
            if row is None:
                # Of two rows that are made at once, the one that is taken first counts from then on.
                client.execute_sql(f"INSERT INTO {self._table} (holder, times_taken) VALUES ('', 0)")  # noqa: S608 - our own name
                continue
            holder, times_taken = row
            self._look_at(row)
            is_abandoned = time.monotonic() - self._seen_since > _ABANDONED_SECONDS
            if is_abandoned or holder in ("", self._holder, *self._ended):
                if is_abandoned and holder:
                    log.warning("warehouse.lease_taken_over", holder=holder)
                self._update(
                    client, f"holder = '{self._holder}', times_taken = {times_taken + 1}", times_taken
                )
                if self._read(client) == (self._holder, times_taken + 1):
                    self._renewed_at = time.monotonic()
                    return times_taken + 1
            elif time.monotonic() >= end:
                raise WarehouseUnavailable(
                    f"the consumer {holder} is loading; if it was killed on another machine, its lease ends"
                    f" after {_ABANDONED_SECONDS:.0f} s"
                )
            else:
                wait.announce_if_due()
                time.sleep(_POLL_SECONDS)

    def _look_at(self, row: _Row) -> None:
        """Note since when the row is as it is.

        Raises ConfigurationError when a consumer has renewed it that keeps the lease.
        """
        if row == self._seen:
            return
        holder, _ = row
        is_other = holder not in ("", self._holder, *self._ended)
        if self._is_kept and is_other and self._seen and self._seen[0] == holder:
            raise ConfigurationError(
                f"the consumer {holder} is running, and at this destination a consumer cannot be sure that"
                " another one is not in the middle of a load: run one consumer"
            )
        self._seen, self._seen_since = row, time.monotonic()

    def _read(self, client: SqlClientBase[Any]) -> _Row | None:
        """Return who took the lease last, "" where it was given back, and how often it was taken by then."""
        rows = client.execute_sql(
            f"SELECT holder, times_taken FROM {self._table} ORDER BY times_taken DESC"  # noqa: S608 - our own name
        )
        return (str(rows[0][0] or ""), int(rows[0][1])) if rows else None

    def _update(self, client: SqlClientBase[Any], values: str, times_taken: int) -> None:
        """Set values in the row that was taken so often, if there still is one."""
        client.execute_sql(f"UPDATE {self._table} SET {values} WHERE times_taken = {times_taken}")  # noqa: S608 - our own


def _are_changes(statements: Sequence[str]) -> bool:
    """Return whether all statements change rows."""
    return {next(iter(statement.split()), "").upper() for statement in statements} <= _CHANGES
