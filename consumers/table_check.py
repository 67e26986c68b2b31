"""Check whether the warehouse's tables and rows are as loads make them, or somebody has changed them.

Only reads.
"""

from collections.abc import Iterator

from consumers.rows import SCHEMAS, TABLES, how_to_fill, retyped_columns
from ingest.destinations import DUCKDB, POSTGRES
from ingest.errors import ConfigurationError, IngestError, NoSuchTable, NothingLoaded
from ingest.readiness import Finding, State, failed, ok, warning
from ingest.settings import Settings
from ingest.warehouse import HAS_VERSION
from ingest.warehouse.query import query, query_or_empty

_CHECK = "tables"
_COLUMNS = """
SELECT lower(table_name), lower(column_name), lower(data_type)
FROM information_schema.columns WHERE table_schema = %s
"""
# Constraints and the like that may refuse rows of a load. dlt makes none but NOT NULL on keys and on its own
# columns.
_CONSTRAINTS = {
    POSTGRES.name: """
SELECT c.relname, 'trigger ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace = %s::regnamespace
UNION ALL SELECT c.relname, 'constraint ' || k.conname
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype <> 'n' AND c.relnamespace = %s::regnamespace
UNION ALL SELECT c.relname, 'unique index ' || i.relname
FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indisunique AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.indexrelid)
  AND c.relnamespace = %s::regnamespace
UNION ALL SELECT c.relname, 'NOT NULL on ' || a.attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attnotnull AND a.attnum > 0 AND c.relkind IN ('r', 'p') AND c.relnamespace = %s::regnamespace
ORDER BY 1, 2""",
    DUCKDB.name: """
SELECT table_name,
       CASE constraint_type WHEN 'NOT NULL'
            THEN 'NOT NULL on ' || constraint_column_names[1] ELSE constraint_text END
FROM duckdb_constraints() WHERE schema_name = %s
UNION ALL SELECT table_name, 'unique index ' || index_name
FROM duckdb_indexes() WHERE is_unique AND schema_name = %s
ORDER BY 1, 2""",
}


def check_tables(settings: Settings) -> list[Finding]:
    """Return a finding for each change, or one that says that there is none or the check was skipped."""
    try:
        findings = list(_check_versions(settings))
        if settings.warehouse.kind.name in _CONSTRAINTS:
            findings = [*_check_columns(settings), *_check_constraints(settings), *findings]
    except IngestError as error:
        return [Finding(_CHECK, State.SKIPPED, f"the warehouse cannot be asked ({type(error).__name__})")]
    return findings or [ok(_CHECK, "as the loads have made them")]


def _check_columns(settings: Settings) -> Iterator[Finding]:
    """Yield findings about tables with missing columns, or with columns of another type than loads write."""
    tables: dict[str, dict[str, str]] = {}
    for table, column, type_name in query_or_empty(settings, _COLUMNS, [settings.warehouse.dataset]).rows:
        tables.setdefault(table, {})[column] = type_name
    for table, schema in SCHEMAS.items():
        if table not in tables:
            continue
        columns = tables[table]
        if missing := [name for name in schema.names if name not in columns]:
            remedy = f"the next start of the consumer makes them; {how_to_fill(table)}"
            yield warning(_CHECK, f"{table} lacks the columns {', '.join(missing)}", remedy)
        if changed := retyped_columns(table, columns):
            yield warning(
                _CHECK,
                f"{table} has columns of another type than loads write: {', '.join(changed)}",
                "change them back: ALTER TABLE",
            )


def _check_constraints(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each constraint, trigger or index that may refuse a row."""
    keys = {table.name: {f"NOT NULL on {column}" for column in table.key} for table in TABLES}
    sql = _CONSTRAINTS[settings.warehouse.kind.name]
    dataset = settings.warehouse.dataset
    for table, constraint in query_or_empty(settings, sql, [dataset] * sql.count("%s")).rows:
        if table in keys and constraint not in keys[table] and not constraint.startswith("NOT NULL on _dlt"):
            remedy = (
                "rows that it refuses become dead letters;"
                " drop it, then `ingest dead-letters redrive --reason load_refused`"
            )
            yield warning(_CHECK, f"{table} has what no load made: {constraint}", remedy)


def _check_versions(settings: Settings) -> Iterator[Finding]:
    """Yield a finding where rows of `bookings` have no version that can be read."""
    sql = (
        "SELECT count(*), min(vendor), min(account), min(booking_id) FROM bookings"  # noqa: S608 - our own words
        f" WHERE version IS NULL OR NOT ({HAS_VERSION})"
    )
    try:
        ((number, vendor, account, booking_id),) = query(settings, sql).rows
    except (NothingLoaded, NoSuchTable):
        return
    except ConfigurationError:
        if settings.warehouse.kind.name in _CONSTRAINTS:
            return  # no such column, which `_check_columns` reports
        raise
    if number:
        yield failed(
            _CHECK,
            f"{number} rows of bookings have no version that can be read, such as {vendor}/{account}"
            f" {booking_id}",
            "somebody changed them; the next message about each replaces it, and so does `ingest reconcile`",
        )
