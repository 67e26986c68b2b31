"""Whether the tables are as the loads have made them, or somebody changed them or their rows by hand. Nothing is changed by looking."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from consumers.rows import SCHEMAS, TABLES, how_to_fill
from ingest.errors import ConfigurationError, IngestError, NoSuchTable, NothingLoaded
from ingest.finding import Finding, State, failed, ok, warning
from ingest.settings import Settings
from ingest.warehouse.query import query

_CHECK = "tables"
# As `is_version`, in SQL that every destination has.
_NO_VERSION = "version IS NULL OR version NOT LIKE '____-__-__T%Z%/____-__-__T%Z'"
_COLUMNS = "SELECT lower(table_name), lower(column_name), lower(data_type) FROM information_schema.columns WHERE table_schema = %s"
# Each of these may refuse rows that a load brings, and dlt makes none of them but for NOT NULL on keys and on its own columns.
_OBSTACLES = {
    "postgres": """
SELECT c.relname, 'trigger ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace = %s::regnamespace
UNION ALL SELECT c.relname, 'constraint ' || k.conname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype <> 'n' AND c.relnamespace = %s::regnamespace
UNION ALL SELECT c.relname, 'unique index ' || i.relname FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indisunique AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.indexrelid) AND c.relnamespace = %s::regnamespace
UNION ALL SELECT c.relname, 'NOT NULL on ' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attnotnull AND a.attnum > 0 AND c.relkind IN ('r', 'p') AND c.relnamespace = %s::regnamespace ORDER BY 1, 2""",
    "duckdb": """
SELECT table_name, CASE constraint_type WHEN 'NOT NULL' THEN 'NOT NULL on ' || constraint_column_names[1] ELSE constraint_text END
FROM duckdb_constraints() WHERE schema_name = %s
UNION ALL SELECT table_name, 'unique index ' || index_name FROM duckdb_indexes() WHERE is_unique AND schema_name = %s ORDER BY 1, 2""",
}
_KINDS = {
    pa.string(): ("text", "character varying", "varchar", "json", "jsonb"),
    pa.int64(): ("bigint",),
    pa.float64(): ("double precision", "double"),
    pa.timestamp("us", tz="UTC"): ("timestamp with time zone",),
    pa.decimal128(38, 9): ("numeric", "decimal(38,9)"),
}


def check_tables(settings: Settings) -> list[Finding]:
    """Return what somebody has to know of the tables that are there; that the warehouse cannot be asked, another check tells."""
    is_known = settings.warehouse.destination in _OBSTACLES
    try:
        findings = (
            [*_shapes(settings), *_obstacles(settings), *_rows(settings)]
            if is_known
            else list(_rows(settings))
        )
    except IngestError as error:
        return [Finding(_CHECK, State.SKIPPED, f"the warehouse cannot be asked ({type(error).__name__})")]
    return findings or [ok(_CHECK, "as the loads have made them")]


def _shapes(settings: Settings) -> Iterator[Finding]:
    """Columns that are missing, or of another type than loads write."""
    there: dict[str, dict[str, str]] = {}
    for table, column, kind in _asked(settings, _COLUMNS):
        there.setdefault(table, {})[column] = kind
    for table, schema in SCHEMAS.items():
        columns = there.get(table)
        if columns is None:
            continue
        if lacking := [name for name in schema.names if name not in columns]:
            remedy = f"the next start of the consumer makes them; {how_to_fill(table)}"
            yield warning(_CHECK, f"{table} lacks the columns {', '.join(lacking)}", remedy)
        changed = {
            name: columns[name]
            for name in schema.names
            if name in columns and not _fits(columns[name], schema.field(name).type)
        }
        if changed:
            told = ", ".join(f"{name} ({kind})" for name, kind in changed.items())
            yield warning(
                _CHECK,
                f"{table} has columns of another type than loads write: {told}",
                "change them back: ALTER TABLE",
            )


def _fits(kind: str, wanted: pa.DataType) -> bool:
    return kind.startswith(_KINDS[wanted])


def _obstacles(settings: Settings) -> Iterator[Finding]:
    """What can refuse a row."""
    keys = {table.name: {f"NOT NULL on {column}" for column in table.key} for table in TABLES}
    for table, what in _asked(settings, _OBSTACLES[settings.warehouse.destination]):
        if table in keys and what not in keys[table] and not what.startswith("NOT NULL on _dlt"):
            remedy = "rows that it refuses become dead letters; drop it, then `ingest dead-letters redrive --reason load_refused`"
            yield warning(_CHECK, f"{table} has what no load made: {what}", remedy)


def _rows(settings: Settings) -> Iterator[Finding]:
    """Rows of `bookings` whose version cannot be read."""
    sql = f"SELECT count(*), min(vendor), min(account), min(booking_id) FROM bookings WHERE {_NO_VERSION}"  # noqa: S608 - our own words
    try:
        ((number, vendor, account, booking_id),) = query(settings, sql).rows
    except (
        ConfigurationError,
        NothingLoaded,
    ):  # the table is not there, or not the column, which was told above
        return
    if number:
        remedy = (
            "somebody changed them; the next message about each replaces it, and so does `ingest reconcile`"
        )
        yield failed(
            _CHECK,
            f"{number} rows of bookings have no version that can be read, such as {vendor}/{account} {booking_id}",
            remedy,
        )


def _asked(settings: Settings, sql: str) -> Sequence[tuple[Any, ...]]:
    try:
        return query(settings, sql, [settings.warehouse.dataset] * sql.count("%s")).rows
    except (NoSuchTable, NothingLoaded):
        return ()
