"""Changes dlt's clients of a destination before they are used."""

from collections.abc import Callable, Sequence
from typing import Any

from dlt.destinations.sql_client import SqlClientBase


def change_clients(destination: Any, change: Callable[[SqlClientBase[Any]], None]) -> None:
    """Call `change` with the SQL client of each job client that this dlt destination makes."""
    make_client = destination.client

    def client(*arguments: Any, **options: Any) -> Any:
        job_client = make_client(*arguments, **options)
        change(job_client.sql_client)
        return job_client

    destination.client = client


def rewrite_statements(client: SqlClientBase[Any], rewrite: Callable[[Sequence[str]], Sequence[str]]) -> None:
    """Make a client execute what `rewrite` returns, instead of the statements that dlt executes together."""
    execute_many = client.execute_many

    def execute_rewritten(statements: Sequence[str], *arguments: Any, **options: Any) -> Any:
        return execute_many(rewrite(statements), *arguments, **options)

    changed: Any = client
    changed.execute_many = execute_rewritten
