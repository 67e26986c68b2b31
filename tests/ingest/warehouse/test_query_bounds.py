"""Tests that a query only reads tables, and ends: in time, rows and memory, and when it is interrupted."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.warehouse import MOST_ROWS, Bounds
from ingest.warehouse.destination import check_only_reads
from ingest.warehouse.query import query_bounded
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import sample
from tests.support.polling import PATIENCE
from tests.support.processes import ROOT
from tests.support.settings import CommandRunner, Tree, settings_tree

SECRET = "not-a-real-secret-of-the-query-tests"
ENDLESS = (
    "select count(*) from range(100000000) as a, range(100000000) as b where hash(a.range) + b.range = 1"
)
BOUNDS = Bounds(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bounds")
    (folder / "other.secrets.toml").write_text(f'secret = "{SECRET}"\n')
    (folder / "other.secrets.toml").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def command(folder: Path) -> Iterator[CommandRunner]:
    """Return a command with a warehouse of one booking."""
    tree: Tree = settings_tree(folder)
    with open_consumer(tree) as harness:
        harness.load(sample(1, "B1"))
        yield CommandRunner(folder, tree)


REACHING = [
    "select * from read_text('{folder}/other.secrets.toml')",
    "select * from read_blob('{folder}/other.secrets.toml')",
    "select * from '{folder}/other.secrets.csv'",
    "select * from read_csv('{folder}/other.secrets.toml')",
    "select * from read_json('{folder}/other.secrets.toml')",
    "select * from sniff_csv('{folder}/other.secrets.toml')",
    "select * from glob('{folder}/*')",
    "select * from query('select * from read_text(''{folder}/other.secrets.toml'')')",
    "with a as (select content from read_text('{folder}/*.toml')) select * from a, bookings",
    "explain analyze select * from read_text('{folder}/other.secrets.toml')",
    "copy bookings to '{folder}/out.csv'",
    "copy (select 1) to '{folder}/out.parquet' (format parquet)",
    "export database '{folder}/exported'",
    "attach '{folder}/other.duckdb' as other",
    "attach ':memory:' as other",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset lock_configuration",
    "set memory_limit = '100GB'",
    "call pragma_version()",
    "pragma database_list",
    "create temp table mine as select 1",
    "prepare mine as select 1",
    "begin",
    "checkpoint",
    "select 1; select * from read_text('{folder}/other.secrets.toml')",
    "select * from bounds",
    "select * from _LOCKED_DOWN",
]


@pytest.mark.parametrize("sql", REACHING)
def test_nothing_but_the_tables_is_reached(command: CommandRunner, folder: Path, sql: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ConfigurationError) as refused:
        query_bounded(command.settings, sql.format(folder=folder), BOUNDS)
    assert SECRET not in str(refused.value)
    assert sorted(path.name for path in folder.iterdir()) == before


# DuckDB lets a database's own files through where nothing else of the disk is, and a COPY stand where a query
# may stand.
REACHING_ITS_OWN_FILES = [
    "with written as (copy (select 1) to '{file}' (format csv, use_tmp_file false)) select * from written",
    (
        "with written as (copy (select 1) to '{file}.wal' (format csv, use_tmp_file false))"
        " select * from written"
    ),
    "explain analyze copy (select 1) to '{file}' (format csv, use_tmp_file false)",
    "explain analyze copy (select 1) to '{file}.wal'",
    "explain analyze copy (select 1) to '{file}.wal.checkpoint'",
    "select size from read_blob('{file}')",
    "with removed as (delete from bookings returning *) select * from removed",
]


@pytest.mark.parametrize("sql", REACHING_ITS_OWN_FILES)
def test_the_files_of_the_warehouse_itself_are_not_reached(
    command: CommandRunner, folder: Path, sql: str
) -> None:
    file = folder / "warehouse.duckdb"
    content = file.read_bytes()
    try:
        with pytest.raises(ConfigurationError):
            query_bounded(command.settings, sql.format(file=file), BOUNDS)
        assert file.read_bytes() == content
        assert list(folder.glob(f"{file.name}.wal*")) == []
    finally:  # else the other tests have no warehouse
        file.write_bytes(content)
        for left in folder.glob(f"{file.name}.wal*"):
            left.unlink()


@pytest.mark.parametrize(
    "sql",
    [
        "from bookings", "table bookings", "values (1)", "describe bookings", "show tables",
        "summarize bookings", "explain select 1",
        "with a as (select 1) select * from a", "pivot bookings on status using count(*)", "select 1;",
        "-- why\nselect 1 /* ; */",
        "select data->>'id' from booking_events",
    ],
)  # fmt: skip
def test_what_reads_the_tables_is_allowed(command: CommandRunner, sql: str) -> None:
    assert query_bounded(command.settings, sql, BOUNDS).rows


def test_a_file_is_refused_in_plain_words(command: CommandRunner, folder: Path) -> None:
    answer = command.run("query", f"select * from read_text('{folder}/other.secrets.toml')")
    assert answer.code == 2
    assert answer.err.startswith("error: a query reads the tables of the warehouse and nothing else")
    assert "held by another program" not in answer.err


def test_rows_are_limited_where_that_was_asked_for_and_too_many_are_refused_where_not(
    command: CommandRunner,
) -> None:
    many = f"select * from range({MOST_ROWS + 1})"
    assert len(query_bounded(command.settings, many, Bounds(60, rows=1500)).rows) == 1500
    assert query_bounded(command.settings, many, Bounds(60, rows=0)).rows == []
    assert len(query_bounded(command.settings, many, Bounds(60, rows=MOST_ROWS + 5)).rows) == MOST_ROWS + 1
    assert len(query_bounded(command.settings, f"select * from range({MOST_ROWS})", BOUNDS).rows) == MOST_ROWS
    with pytest.raises(ConfigurationError, match="--limit"):
        query_bounded(command.settings, many, BOUNDS)
    result = command.run("query", "--json", "--limit", "2", "select * from range(10)")
    assert json.loads(result.out) == [{"range": 0}, {"range": 1}]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("select repeat('x', 1000000) from range(3000)", "larger than"),
        ("select [{'text': [repeat('x', 1000000)]}] from range(3000)", "larger than"),
        (
            "select list(range) from (select * from range(100000000) order by random())",
            "more than 1GB of memory",
        ),
    ],
)
def test_memory_is_bounded(command: CommandRunner, sql: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        query_bounded(command.settings, sql, BOUNDS)


def test_a_query_that_takes_too_long_is_ended_and_the_file_is_free(command: CommandRunner) -> None:
    with pytest.raises(ConfigurationError, match=r"longer than 0\.2 s"):
        query_bounded(command.settings, ENDLESS, Bounds(0.2))
    assert query_bounded(command.settings, "select count(*) from bookings", BOUNDS).rows == [(1,)]


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "nan"])
def test_a_timeout_is_a_duration(command: CommandRunner, timeout: str) -> None:
    answer = command.run("query", "--timeout", timeout, "select 1")
    assert answer.code == 2
    assert "--timeout" in answer.err


# The query says that it runs, then computes for ever.
_INTERRUPTED = """
import sys
from ingest.warehouse import RunningQuery
begin = RunningQuery.start
def told(self, stop):
    begin(self, stop)
    print("asking", flush=True)
RunningQuery.start = told
from ingest.cli import main
main()
"""


def test_ctrl_c_ends_a_query_with_130(command: CommandRunner, folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, "query", ENDLESS],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "INGEST_CONFIG": str(folder / "ingest.toml")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "asking\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (130, "stopped\n")
    assert query_bounded(command.settings, "select 1", BOUNDS).rows == [(1,)]


DIALECTS = ["bigquery", "snowflake", "redshift", "databricks", "duckdb", None]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_elsewhere_one_statement_that_reads_is_allowed(dialect: str | None) -> None:
    for sql in (
        "select 1;",
        "with a as (select 1 as b) select * from a",
        "select a from t union all select 2",
        "(select 'x;y' from t) -- z",
    ):
        check_only_reads(sql, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "sql",
    [
        "", "selec 1", "select 1; select 2", "select 1; drop table t", "drop table t", "delete from t",
        "insert into t select 1",
        "update t set a = 1", "merge into t using u on t.a = u.a when matched then update set b = 1",
        "truncate table t",
        "create table t as select 1", "select * into u from t",
        "with a as (delete from t returning *) select * from a", "copy into t from 'f'",
        "put file:///etc/passwd @stage", "unload ('select 1') to 's3://bucket'", "call p()", "set x = 1",
        "use schema s", "begin",
        "execute immediate 'drop table t'", "grant all on t to u",
        "export data options(uri='gs://b/*') as select 1",
    ],
)  # fmt: skip
def test_elsewhere_nothing_else_is(dialect: str | None, sql: str) -> None:
    with pytest.raises(ConfigurationError):
        check_only_reads(sql, dialect)


@pytest.mark.parametrize(
    "table",
    [
        "read_text('/etc/passwd')", "read_csv('f.csv')", "read_parquet(['f'])", "'/etc/passwd'", '"f.csv"',
        "'f.parquet'", "glob('*')",
        "query('select 1')", "sniff_csv('f')", "t, read_blob('f')", "(select * from read_json('f'))",
        "t join 'f.csv' on true",
    ],
)  # fmt: skip
def test_a_lake_is_no_way_to_other_files(table: str) -> None:
    with pytest.raises(ConfigurationError, match="no files"):
        check_only_reads(f"select * from {table}", "duckdb")
    check_only_reads("select * from ingest.bookings, range(3), unnest([1])", "duckdb")


@pytest.mark.parametrize(
    ("dialect", "table"),
    [
        ("clickhouse", "file('/etc/passwd')"), ("clickhouse", "url('http://10.0.0.1/')"),
        ("databricks", "read_files('/etc/passwd')"),
        ("databricks", "csv.`/etc/passwd`"), ("databricks", "t join text.`s3://b/f` on true"),
        ("snowflake", "@stage/f"),
        ("snowflake", "identifier('x')"), ("tsql", "openrowset(bulk '/etc/passwd', single_clob) as f"),
    ],
)  # fmt: skip
def test_no_destination_is_a_way_to_other_files(dialect: str, table: str) -> None:
    with pytest.raises(ConfigurationError):
        check_only_reads(f"select * from {table}", dialect)


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("bigquery", "select * from `a-project.ingest.bookings-of-2026` as b, unnest([1]) as n"),
        ("bigquery", "select * from `ingest.events_*`"),
        ("snowflake", "select f.value from ingest.bookings as b, lateral flatten(input => b.staff) as f"),
        ("databricks", "select * from ingest.bookings lateral view explode(staff) as one"),
        ("clickhouse", "select * from ingest.bookings array join staff as one"),
        ("tsql", "select top 5 * from [ingest].[bookings]"),
    ],
)
def test_tables_of_any_destination_are_read(dialect: str, sql: str) -> None:
    check_only_reads(sql, dialect)


REACHING_POSTGRES = [
    "select pg_read_file('/etc/passwd')",
    "select \"pg_read_file\"('/etc/passwd')",
    "select pg_catalog . pg_read_file /* */ ('/etc/passwd')",
    "select U&\"\\0070g_read_file\"('/etc/passwd')",
    "select pg_ls_dir('.')",
    "select pg_stat_file('PG_VERSION')",
    "copy (select 1) to '/tmp/never'",
    "copy (select 1) to program 'true'",
    "select lo_export(1, '/tmp/never')",
    "select lo_import('/etc/passwd')",
    "select * from dblink('host=127.0.0.1', 'select 1') as t(a int)",
    "select query_to_xml('select 1', true, true, '')",
    "select set_config('transaction_read_only', 'off', false)",
    "set transaction read write",
    "set role none",
    "reset role",
    "show primary_conninfo; select 1",
    "select pg_terminate_backend(pg_backend_pid())",
    "select pg_reload_conf()",
    "select pg_sleep(1)",
    "select nextval('mine')",
    "select * from pg_authid",
    "select * from pg_shadow",
    "select * from pg_hba_file_rules",
    "select * into mine from bookings",
    "with gone as (delete from bookings returning *) select * from gone",
    "delete from bookings",
    "create table mine (a int)",
    "create temp table mine (a int)",
    "do $$ begin perform 1; end $$",
    "call mine()",
    "select 1; select 2",
    "select 1; commit; drop table bookings",
    "commit",
    "rollback; drop table bookings; begin",
    "select 1' ; drop table bookings; --",
    "listen mine",
    "lock table bookings",
    "explain analyze delete from bookings",
    "select * from bookings for update",
]


@pytest.mark.postgres
def test_nothing_but_the_tables_is_reached_in_a_postgresql_by_an_administrator(
    postgres_harness: ConsumerHarness,
    postgres: PostgresServer,  # noqa: ARG001 - started for the harness
) -> None:
    postgres_harness.load(sample(1, "B1"))
    allowed = []
    for sql in REACHING_POSTGRES:
        try:
            allowed.append((sql, query_bounded(postgres_harness.settings, sql, BOUNDS).rows))
        except ConfigurationError:
            continue
    assert allowed == []
    for sql in (
        "select booking_id, staff, loaded_at, random() < 2 from bookings;",
        "with a as (select 1) select * from a, bookings", "values (1)",
        "explain select 1", "select 'a;b', $$c;d$$, E'\\\\x' -- e;f", "select '%', 5 % 3",
        "select pg_total_relation_size('bookings') > 0",
    ):  # fmt: skip
        assert query_bounded(postgres_harness.settings, sql, BOUNDS).rows
    assert postgres_harness.column("select count(*) from bookings") == [1]


@pytest.mark.postgres
def test_a_query_is_bounded_in_a_postgresql_too(
    postgres_harness: ConsumerHarness,
    postgres: PostgresServer,  # noqa: ARG001 - started for the harness
) -> None:
    postgres_harness.load(sample(1, "B1"))
    endless = "select count(*) from generate_series(1, 1000000000) a, generate_series(1, 1000000000) b"
    with pytest.raises(ConfigurationError, match=r"longer than 0\.5 s"):
        query_bounded(postgres_harness.settings, endless, Bounds(0.5))
    many = f"select n, 'x' as x from generate_series(1, {MOST_ROWS + 1}) n"
    answer = query_bounded(postgres_harness.settings, many, Bounds(60, rows=3))
    assert (answer.columns, answer.rows) == (["n", "x"], [(1, "x"), (2, "x"), (3, "x")])
    with pytest.raises(ConfigurationError, match="--limit"):
        query_bounded(postgres_harness.settings, many, BOUNDS)
    assert query_bounded(
        postgres_harness.settings, "select booking_id from bookings where false", BOUNDS
    ).columns == ["booking_id"]
