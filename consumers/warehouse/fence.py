"""A fence around a load at a database server: what two consumers must not do at once there, one of them waits for.

Kafka hands a partition on without asking. Without a fence a consumer that was frozen in its load writes, when it wakes up, what was the
newest when it fell asleep; and two that share a staging dataset empty it under each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.sql_client import SqlClientBase

from ingest.errors import WarehouseUnavailable
from ingest.warehouse.errors import is_one, translated

_POSTGRES = "dlt.destinations.postgres"


class Fence:
    """Locks of PostgreSQL, each in one dataset, that end with the turn. At other servers nothing is kept apart."""

    def __init__(self, client: SqlClientBase[Any] | None, dataset: str) -> None:
        """`client` is within a transaction."""
        self._client, self._dataset = client, dataset

    def hold(self, *names: str) -> None:
        """All who hold several take them in one order. Raises WarehouseUnavailable when another one has one for too long."""
        if self._client:
            with translated():
                for name in names:
                    _lock(self._client, name, f"ingest/{self._dataset}/{name}")

    def look(self) -> None:
        """Before anything is written: the locks are another connection's than what writes. Raises WarehouseUnavailable when they did not last."""
        if self._client:
            with translated():
                self._client.execute_sql("SELECT 1")


@contextmanager
def fenced(pipeline: dlt.Pipeline, patience: float) -> Iterator[Fence]:
    """For one turn; a lock that another one holds is waited for, for `patience` seconds. Raises WarehouseUnavailable."""
    if pipeline.destination is None or pipeline.destination.destination_type != _POSTGRES:
        yield Fence(None, pipeline.dataset_name)
        return
    client = pipeline.sql_client()
    try:
        with translated():
            client.open_connection()
            client.native_connection.autocommit = (
                False  # with a transaction a pooler leaves the connection, and its locks, to us
            )
            client.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")  # a load may take long
            client.execute_sql(f"SET LOCAL lock_timeout = '{patience:.3f}s'")
        fence = Fence(client, pipeline.dataset_name)
        yield fence
        fence.look()
    finally:
        client.close_connection()


def _lock(client: SqlClientBase[Any], name: str, key: str) -> None:
    try:
        client.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", key)
    except DatabaseException as error:
        if is_one(error.dbapi_exception, {"LockNotAvailable"}):
            raise WarehouseUnavailable(
                f"another consumer has the lock of {name}, in a load that does not come to an end: it may be frozen"
            ) from None
        raise
