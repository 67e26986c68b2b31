"""What each destination of dlt calls for: how rows are given to it, how often, and what is to be refused.

Merge strategies are not here: dlt's capabilities name those that a destination has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

_TEXT_64K = 65_535
_MIB = 1024 * 1024
# A booking keeps the one, an event the other.
_TIMES = {"bookings": "first_seen_at", "booking_events": "received_at"}


class RowFormat(StrEnum):
    """How rows are given to dlt."""

    ARROW = "Arrow tables, with JSON as text"
    VALUES = "values, with JSON parsed"


class Fence(StrEnum):
    """What keeps two consumers apart that believe to own the same partition."""

    FILE = "a lock of the database's file"
    LOCKS = "locks of the database"
    LEASE = "a lease in a table, on which each change of a load depends"
    COMMIT = "the table's commits, of which one of two at once is refused"
    NONE = "a lease that one consumer keeps while it runs: a second one is refused"


class Transactions(StrEnum):
    """In what a change of rows and a look at the lease go together."""

    SESSION = "a transaction, which ends when its client is killed"
    SCRIPT = "a script, which the server commits whole or not at all"
    STATEMENT = "a statement: there are no transactions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """What is particular to a destination.

    - `name` is dlt's, `title` is people's.
    - `is_tested` says whether the project's own tests load into it, or into what stands in for it.
    - `rows` is how rows are given to dlt: where JSON in Arrow is refused or becomes a JSON string, as values.
    - `table_format` is the usual one of files, which need one to have rows replaced.
    - `longest_text` and `longest_json` are the bytes that a column holds; None where any body fits.
    - `staging_schemes` are those of the URLs of buckets through which rows can be loaded, and
      `longest_staged_payload` are the bytes of an event's payload then, if that is more than `longest_json`.
      No text in it may be longer than `longest_text`.
    - `staging_options` are dlt's, by the schemes of buckets that the destination reads without our keys: one
      has to name how.
    - `staged_format` is that of files in such a bucket: in JSON lines, JSON stays JSON. None is dlt's choice.
    - `merge_times` are the columns by whose times merges are bounded, by table: where the destination knows
      which of its files or partitions have which times.
    - `table_hints` and `column_hints` are dlt's for a table when it is made, by table, and by column.
    - `fence` is what keeps consumers apart, and `transactions` how a change depends on a lease.
    - `interval` is the time between two loads that `consumer.linger` has by default, and `interval_reason` is
      why; `cost` is what a load costs.
    - `grants` are the rights that the warehouse's user needs, for the message when one is missing.
    - `has_upper_case_names` says that names come back in capitals where they are not quoted.
    - `is_dataset_chosen` says that connections find tables by their bare names only after `USE`.
    - `has_naive_instants` says that instants come back without a zone: they are in UTC.
    - `mistaken_schemes` say what to write instead of URLs that look right and are not, by their scheme.
    """

    name: str
    title: str
    is_tested: bool = True
    rows: RowFormat = RowFormat.ARROW
    table_format: str | None = None
    longest_text: int | None = None
    longest_json: int | None = None
    staging_schemes: tuple[str, ...] = ()
    staging_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    staged_format: str | None = None
    longest_staged_payload: int | None = None
    merge_times: Mapping[str, str] = field(default_factory=dict)
    table_hints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    column_hints: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    fence: Fence = Fence.NONE
    transactions: Transactions = Transactions.SESSION
    interval: timedelta = timedelta(seconds=60)
    interval_reason: str
    cost: str
    grants: str = "the right to make schemas and tables in them, and to read and write these"
    has_upper_case_names: bool = False
    is_dataset_chosen: bool = False
    has_naive_instants: bool = False
    mistaken_schemes: Mapping[str, str] = field(default_factory=dict)


DUCKDB = Destination(
    name="duckdb",
    title="DuckDB",
    fence=Fence.FILE,
    interval=timedelta(milliseconds=300),
    interval_reason="a load takes a fraction of a second",
    cost="nothing",
)
POSTGRES = Destination(
    name="postgres",
    title="PostgreSQL",
    fence=Fence.LOCKS,
    interval=timedelta(milliseconds=300),
    interval_reason="a load takes a fraction of a second",
    cost="nothing beside the server",
)
BIGQUERY = Destination(
    name="bigquery",
    title="BigQuery",
    rows=RowFormat.VALUES,
    merge_times=_TIMES,
    table_hints={  # merges read the months of their rows, and queries of one account or time a part of these
        table: {
            "x-bigquery-partition": {_TIMES[table]: "TIMESTAMP_TRUNC({column_name}, MONTH)"},
            "x-bigquery-cluster-columns": ["vendor", "account", time],
        }
        for table, time in {"bookings": "starts_at", "booking_events": "received_at"}.items()
    },
    longest_text=10 * _MIB,
    longest_json=10 * _MIB,
    staging_schemes=("gs",),
    staged_format="jsonl",
    fence=Fence.LEASE,
    transactions=Transactions.SCRIPT,
    interval_reason="a table takes 1,500 load jobs a day, which is one every 58 seconds",
    cost="load jobs are free; each load bills a read of the keys and versions in bookings, of the ids in"
    " booking_events, and of the months whose rows it changes",
    grants="the roles BigQuery Data Editor and BigQuery Job User in the project",
)
SNOWFLAKE = Destination(
    name="snowflake",
    title="Snowflake",
    rows=RowFormat.VALUES,
    merge_times=_TIMES,
    longest_text=16 * _MIB,
    longest_json=16 * _MIB,
    staging_schemes=("s3", "gs", "az"),
    staging_options={"gs": ("stage_name",)},
    staged_format="jsonl",
    fence=Fence.LEASE,
    interval_reason="a warehouse that is resumed bills at least 60 seconds",
    cost="the warehouse runs while it loads: an X-Small that never suspends takes 24 credits a day",
    grants="USAGE on a warehouse, USAGE and CREATE SCHEMA on the database",
    has_upper_case_names=True,
)
REDSHIFT = Destination(
    name="redshift",
    title="Redshift",
    rows=RowFormat.VALUES,
    merge_times=_TIMES,
    column_hints={table: {time: {"sort": True}} for table, time in _TIMES.items()},
    longest_text=_TEXT_64K,
    longest_json=_TEXT_64K,
    staging_schemes=("s3",),
    staged_format="jsonl",
    longest_staged_payload=3 * _MIB,  # COPY takes rows of 4 MB
    fence=Fence.LEASE,
    interval_reason="the cluster commits one transaction at a time, loads and queries alike",
    cost="nothing beside a cluster; Redshift Serverless bills at least 60 seconds of its RPUs",
    grants="CREATE on the database",
    mistaken_schemes={"redshift": "write postgresql://user:password@host:5439/database"},
)
DATABRICKS = Destination(
    name="databricks",
    title="Databricks",
    longest_text=16 * _MIB,
    longest_json=16 * _MIB,
    staging_schemes=("s3", "gs", "az"),
    staging_options={"gs": ("staging_credentials_name", "is_staging_external_location")},
    merge_times=_TIMES,
    column_hints={
        table: {column: {"x-databricks-cluster": True} for column in ("vendor", "account", time)}
        for table, time in _TIMES.items()
    },
    table_hints={  # of two merges at once that insert the same key, one is refused
        table: {"x-databricks-table-properties": {"delta.isolationLevel": "Serializable"}}
        for table in ("bookings", "booking_events", "dead_letters", "reconciliations")
    },
    fence=Fence.LEASE,
    transactions=Transactions.STATEMENT,
    interval=timedelta(seconds=300),
    interval_reason="a SQL warehouse that is asked more often never stops",
    cost="the SQL warehouse runs while it loads, and until its auto-stop, ten minutes by default",
    grants="CAN USE on the SQL warehouse, USE CATALOG and CREATE SCHEMA on the catalog",
)
FILESYSTEM = Destination(
    name="filesystem",
    title="files (Delta Lake, Iceberg)",
    table_format="delta",
    fence=Fence.COMMIT,
    interval_reason="each load makes at least one small file in each table",
    cost="a few requests to the bucket for each table",
)
SQLALCHEMY = Destination(
    name="sqlalchemy",
    title="MySQL, MariaDB and others by SQLAlchemy",
    is_tested=False,
    rows=RowFormat.VALUES,
    longest_text=_TEXT_64K,
    fence=Fence.LEASE,
    interval=timedelta(seconds=1),
    interval_reason="a load takes about a second",
    cost="nothing beside the server",
    is_dataset_chosen=True,
    has_naive_instants=True,
    mistaken_schemes={
        "sqlite": 'SQLite has no instants with a time zone: use DuckDB (warehouse.destination = "duckdb")'
    },
)

DESTINATIONS = {
    destination.name: destination
    for destination in (
        DUCKDB, POSTGRES, BIGQUERY, SNOWFLAKE, REDSHIFT, DATABRICKS, FILESYSTEM, SQLALCHEMY,
    )
}  # fmt: skip


def find_destination(name: str) -> Destination:
    """Return the destination of a name, which may be that of its module (`dlt.destinations.bigquery`).

    One that is not known gets what works at most of them.
    """
    short_name = name.rpartition(".")[2]
    return DESTINATIONS.get(short_name) or Destination(
        name=short_name,
        title=short_name,
        is_tested=False,
        rows=RowFormat.VALUES,
        longest_text=_TEXT_64K,
        interval_reason="what a load costs there is not known",
        cost="not known",
    )
