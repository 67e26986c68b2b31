"""Checks whether consumer and sync may write to the warehouse, and tries a load.

Rights at DuckDB and PostgreSQL are checked by transactions that are rolled back. A load is tried in a scratch
dataset, which is dropped.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import duckdb
from pydantic import SecretStr

from consumers.rows import TABLES
from consumers.warehouse.trial import try_destination
from ingest.destinations import POSTGRES
from ingest.errors import IngestError, WarehouseUnavailable
from ingest.readiness import Finding, failed, failure, ok, warning
from ingest.settings import Settings
from ingest.times import format_duration
from ingest.warehouse.completeness import loads_table
from ingest.warehouse.destination import (
    check_reachable,
    reading_client,
    staging_datasets,
    sync_pipeline,
)
from ingest.warehouse.duckdb_file import reading_turn
from ingest.warehouse.errors import PERMISSION, has_type_named, translated
from ingest.warehouse.query import query_or_empty

_LOCK_SECONDS = 5.0
_SHORTEST_INTERVAL = timedelta(seconds=1)  # a load takes as long
_TABLE_NAMES = {table.name for table in TABLES}
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")  # which a load needs on existing tables
# https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-ACCESS
_TABLE_RIGHTS = """
SELECT relname,
       ARRAY(SELECT name FROM unnest(%s::text[]) AS name WHERE NOT has_table_privilege(oid, name)),
       pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') ORDER BY relname
"""


def check_warehouse(settings: Settings) -> list[Finding]:
    """Return a finding for each right that a load or a sync needs, and one for a load."""
    try:
        if file := settings.warehouse.duckdb_file:
            return [_check_duckdb(settings, file), _try_beside(file, settings)]
        if settings.warehouse.kind is POSTGRES:
            return list(_check_postgres(settings))
        load = _try("warehouse", settings)
        return [load, *_check_rate(settings, load), *_check_interval(settings)]
    except IngestError as error:
        return [failure("warehouse", error)]


def _check_duckdb(settings: Settings, file: Path) -> Finding:
    check_reachable(settings.warehouse)
    if not file.exists():
        return ok("warehouse", f"{file} will be created by the first load")
    with reading_turn(settings.warehouse, _LOCK_SECONDS):
        try:
            with closing(duckdb.connect(str(file))) as connection:
                connection.execute("BEGIN")
                connection.execute(f"CREATE SCHEMA {_probe_name()}")
                connection.execute("ROLLBACK")
        except duckdb.IOException as error:
            held_by = str(error).splitlines()[0]
            raise WarehouseUnavailable(
                f"{file} cannot be opened to write: {held_by}; loads wait until the other program closes it"
            ) from None
        except duckdb.Error as error:
            raise WarehouseUnavailable(f"{file} cannot be used: {str(error).splitlines()[0]}") from None
    return ok("warehouse", f"{file} can be written to, dataset {settings.warehouse.dataset}")


def _try_beside(file: Path, settings: Settings) -> Finding:
    """Try a load into a scratch file on the disk of a DuckDB file, which a consumer may have open."""
    folder = next(parent for parent in file.parents if parent.is_dir())
    try:
        with TemporaryDirectory(prefix=f".{_probe_name()}_", dir=folder) as scratch:
            beside = {"credentials": SecretStr(f"{scratch}/scratch.duckdb")}
            warehouse = settings.warehouse.model_copy(update=beside)
            return _try("warehouse load", settings.model_copy(update={"warehouse": warehouse}))
    except OSError as error:
        detail = f"no load was tried: {folder} cannot be written to: {error.strerror}"
        return failed("warehouse load", detail, f"let this user write to {folder}, and free space there")


def _try(check: str, settings: Settings) -> Finding:
    """Load into a scratch dataset and read it back, and say what loads take and cost."""
    kind, staging = settings.warehouse.kind, settings.warehouse.staging
    try:
        seconds = try_destination(settings)
    except WarehouseUnavailable as error:
        bucket = f", and to list, read, write and delete below {staging}" if staging else ""
        return replace(failure(check, error), remedy=f"the user needs {kind.grants}{bucket}")
    reason = f", because {kind.interval_reason}" if settings.consumer.linger is None else ""
    return ok(
        check,
        f"{kind.title} takes rows and returns them unchanged. A load took {seconds:.1f} s; a batch waits"
        f" {format_duration(settings.linger)} for more records{reason}. What loads cost: {kind.cost}",
    )


def _check_rate(settings: Settings, load: Finding) -> Iterator[Finding]:
    """Say how many loads there were in a day, and may be, which is what costs depend on."""
    if load.failed:
        return
    since = datetime.now(UTC) - timedelta(days=1)
    sql = f"SELECT count(*) FROM {loads_table(settings)} WHERE inserted_at >= %s"  # noqa: S608 - our own name
    rows = query_or_empty(settings, sql, [since]).rows
    most = timedelta(days=1) // max(settings.linger, _SHORTEST_INTERVAL)
    number = rows[0][0] if rows else 0
    rate = f"{number:,} loads in the last 24 hours; {most:,} a day are possible at this interval"
    yield ok("warehouse rate", rate)


def _check_interval(settings: Settings) -> Iterator[Finding]:
    kind = settings.warehouse.kind
    if settings.linger < kind.interval:
        interval = format_duration(kind.interval)
        yield warning(
            "warehouse interval",
            f"consumer.linger is {format_duration(settings.linger)}, and {kind.interval_reason}",
            f"leave it out to load every {interval}, or set it to at least {interval}",
        )


def _check_postgres(settings: Settings) -> Iterator[Finding]:
    dataset = settings.warehouse.dataset
    synced = [sync_pipeline(name) for name, account in settings.accounts.items() if account.can_read()]
    schemas = [
        ("warehouse", dataset),
        *(("warehouse sync", staging) for staging in staging_datasets(settings, synced)),
    ]
    with reading_client(settings) as client, closing(client.native_connection.cursor()) as cursor:
        with translated():
            cursor.execute(f"SET lock_timeout = '{_LOCK_SECONDS:.0f}s'")
            cursor.execute(
                "SELECT current_user, current_database(), quote_ident(current_user),"
                " quote_ident(current_database())"
            )
            user, database, *quoted = cursor.fetchone()
        user_in_database = f"{user} in {database}"
        findings = []
        for check, schema in schemas:
            with translated():
                findings.append(_check_schema(cursor, check, schema, user_in_database, quoted))
        with translated():
            findings += _check_table_rights(cursor, dataset, quoted[0])
            cursor.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
            [may_create_schemas] = cursor.fetchone()
    yield from findings
    if any(finding.failed for finding in findings):
        return
    if may_create_schemas:
        yield _try("warehouse load", settings)
    else:
        yield ok("warehouse load", f"not tried: {user_in_database} may not create a scratch schema for it")


def _check_schema(
    cursor: Any, check: str, schema: str, user_in_database: str, quoted: Sequence[str]
) -> Finding:
    """Make a table in the schema, and the schema where it is missing, and roll both back."""
    user, database = quoted
    cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
    exists = cursor.fetchone() is not None
    remedy = (
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}"
        if exists
        else f"GRANT CREATE ON DATABASE {database} TO {user}"
    )
    table = f'"{schema}".{_probe_name()}'
    try:
        cursor.execute("BEGIN")
        if not exists:
            cursor.execute(f'CREATE SCHEMA "{schema}"')
        cursor.execute(f"CREATE TABLE {table} (value int)")
        cursor.execute(f"INSERT INTO {table} VALUES (1)")  # noqa: S608 - our own names
    except Exception as error:
        if has_type_named(error, {"ReadOnlySqlTransaction"}):
            return failed(
                check,
                f"{user_in_database} is read-only",
                "connect to the primary server, without default_transaction_read_only",
            )
        if has_type_named(error, PERMISSION):
            may_not = f"make tables in schema {schema}" if exists else f"create schema {schema}"
            return failed(check, f"{user_in_database} may not {may_not}", remedy)
        raise
    finally:
        cursor.execute("ROLLBACK")
    return ok(
        check,
        f"{user_in_database} may write to schema"
        f" {schema}{'' if exists else ', which the first load creates'}",
    )


def _check_table_rights(cursor: Any, schema: str, user: str) -> Iterator[Finding]:
    """Yield findings about existing tables of the schema that a load writes to."""
    cursor.execute(
        "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s", (schema,)
    )
    row = cursor.fetchone()
    if row is None or not row[0]:
        return
    cursor.execute(_TABLE_RIGHTS, (list(_RIGHTS), schema))
    tables = [row for row in cursor.fetchall() if row[0] in _TABLE_NAMES or row[0].startswith("_dlt_")]
    lacking = {name: missing for name, missing, _ in tables if missing}
    foreign = [name for name, _, is_owned in tables if not is_owned]
    if lacking:
        rights = sorted({right for missing in lacking.values() for right in missing})
        grant = f"GRANT {', '.join(_RIGHTS)} ON ALL TABLES IN SCHEMA {schema} TO {user}"
        yield failed(
            "warehouse tables",
            f"{user} lacks {', '.join(rights)} on {', '.join(lacking)} in schema {schema}",
            grant,
        )
    elif foreign:
        remedy = f"make {user} the owner of these tables, or a member of the role that owns them"
        yield warning(
            "warehouse tables",
            f"{user} does not own {', '.join(foreign)} in schema {schema}, so new versions cannot add"
            " columns",
            remedy,
        )


def _probe_name() -> str:
    return f"ingest_probe_{uuid4().hex[:12]}"
