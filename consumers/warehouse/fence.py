"""A fence around a load at a database server: whoever goes on with a partition waits for a consumer that was frozen while it loaded it.

Kafka hands a partition on without asking. Without a fence the one that wakes up writes what was the newest when it fell asleep.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dlt
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.sql_client import SqlClientBase

from consumers.warehouse.errors import is_one, translated
from ingest.errors import WarehouseUnavailable
from ingest.log import Partition

_POSTGRES = "dlt.destinations.postgres"


@contextmanager
def fenced(pipeline: dlt.Pipeline, partitions: Iterable[Partition], patience: float) -> Iterator[Callable[[], None]]:
    """No two at once with one of these partitions, in one dataset of PostgreSQL; at other servers nothing is kept apart.

    Gives what looks whether the locks have lasted, to be asked before anything is written: they are another connection's than what
    writes. Raises WarehouseUnavailable when another one is within for `patience` seconds, or when they did not last.
    """
    wanted = sorted({f"{one.topic}/{one.number}" for one in partitions})  # in one order for all, so that no two wait for each other
    if not wanted or pipeline.destination is None or pipeline.destination.destination_type != _POSTGRES:
        yield lambda: None
        return
    client = pipeline.sql_client()
    try:
        with translated():
            client.open_connection()
            client.native_connection.autocommit = False  # with a transaction a pooler leaves the connection, and its locks, to us
            client.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")  # a load may take long
            client.execute_sql(f"SET LOCAL lock_timeout = '{patience:.3f}s'")
            for name in wanted:
                _lock(client, name, f"ingest/{pipeline.dataset_name}/{name}")
        yield partial(_look, client)
        _look(client)
    finally:
        client.close_connection()


def _look(client: SqlClientBase[Any]) -> None:
    with translated():
        client.execute_sql("SELECT 1")


def _lock(client: SqlClientBase[Any], name: str, key: str) -> None:
    try:
        client.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", key)
    except DatabaseException as error:
        if is_one(error.dbapi_exception, {"LockNotAvailable"}):
            raise WarehouseUnavailable(f"another consumer has begun to load {name}, and has not come to an end: it may be frozen") from None
        raise
