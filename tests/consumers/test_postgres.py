"""Tests of what only a server can do: go away and come back, and refuse."""

import signal
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient

from consumers.warehouse import Warehouse
from consumers.warehouse.direct import PostgresTables
from consumers.warehouse.rights import check_warehouse
from ingest.errors import (
    ConfigurationError,
    LoadRefused,
    NoSuchTable,
    NothingLoaded,
    WarehouseUnavailable,
)
from ingest.log import Partition
from ingest.settings import Settings
from ingest.warehouse.destination import reading_client
from ingest.warehouse.query import query
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import wait_for
from tests.support.settings import CommandRunner, Tree, with_section

pytestmark = pytest.mark.postgres


def test_a_server_that_goes_away_while_it_is_loaded_delays_and_loses_nothing(
    postgres_harness: ConsumerHarness, postgres: PostgresServer
) -> None:
    with postgres_harness.running():
        postgres_harness.append(*(sample(number, f"B{number}", number) for number in range(20)))
        wait_for(lambda: postgres_harness.lag_outside() == 0, "the first records loaded")
        appended = Event()
        try:
            for number in range(20, 40):
                postgres_harness.append(sample(number, f"B{number - 10}", number))
                if number == 30:
                    postgres.stop()
                    appended.set()
            wait_for(
                lambda: isinstance(postgres_harness.loader.trouble, WarehouseUnavailable),
                "the loader says that it waits",
            )
            assert postgres_harness.lag_outside() > 0
        finally:
            postgres.start()
        wait_for(lambda: postgres_harness.lag_outside() == 0, "everything committed")
    assert postgres_harness.loader.trouble is None
    assert postgres_harness.column("select count(*), count(distinct id) from booking_events") == [40]
    newest = {f"B{number}": f"E{number + 10 if number >= 10 else number}" for number in range(30)}
    rows = postgres_harness.rows("select booking_id, last_event_id from bookings")
    assert {row["booking_id"]: row["last_event_id"] for row in rows} == newest
    assert postgres_harness.column("select count(*) from dead_letters") == [0]


def test_bad_sql_is_a_mistake_and_a_lost_connection_is_not(
    postgres_harness: ConsumerHarness, postgres: PostgresServer
) -> None:
    postgres_harness.load(sample(1))
    for sql in (
        "selec 1",
        "select nothing from bookings",
        "select * from nowhere",
        "select 1/0",
        "select 'a'::int",
    ):
        with pytest.raises(ConfigurationError):
            query(postgres_harness.settings, sql)
    with pytest.raises(WarehouseUnavailable):
        query(postgres_harness.settings, "select pg_terminate_backend(pg_backend_pid())")
    postgres.stop()
    try:
        with pytest.raises(WarehouseUnavailable):
            query(postgres_harness.settings, "select 1")
        with pytest.raises(WarehouseUnavailable):
            postgres_harness.warehouse.versions([("oncehub", "support", "B1")])
    finally:
        postgres.start()
    assert query(postgres_harness.settings, "select count(*) from bookings").rows == [(1,)]


def test_before_anything_was_loaded_there_is_nothing_to_read(postgres_tree: Tree) -> None:
    settings = Settings.model_validate(postgres_tree)
    with pytest.raises(WarehouseUnavailable, match="nothing has been loaded yet"):
        query(settings, "select 1")
    with reading_client(settings) as client:
        client.create_dataset()
    assert query(settings, "select 1").rows == [(1,)]


def test_a_dataset_is_looked_for_once_and_again_where_a_table_is_missing(
    postgres_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    has_dataset = Psycopg2SqlClient.has_dataset

    def counted(client: Psycopg2SqlClient) -> bool:
        looked.append(client.dataset_name)
        return has_dataset(client)

    postgres_harness.load(sample(1))
    settings = postgres_harness.settings
    monkeypatch.setattr(Psycopg2SqlClient, "has_dataset", counted)
    for _ in range(3):
        assert query(settings, "select count(*) from bookings").rows == [(1,)]
    assert len(looked) == 1
    with pytest.raises(NoSuchTable):
        query(settings, "select * from nowhere")
    with reading_client(settings) as client:
        client.drop_dataset()
    with pytest.raises(NothingLoaded):
        query(settings, "select * from bookings")


def with_credentials(tree: Tree, credentials: str) -> Settings:
    return Settings.model_validate(with_section(tree, "warehouse", credentials=credentials))


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [("postgresql://ingest@127.0.0.1/postgres", "password"), ("the secret, not a URL", "InvalidNativeValue")],
)
def test_credentials_that_dlt_cannot_use_are_a_wrong_setting(
    postgres_tree: Tree, credentials: str, expected: str
) -> None:
    settings = with_credentials(postgres_tree, credentials)
    for use in (Warehouse, lambda candidate: query(candidate, "select 1")):
        with pytest.raises(ConfigurationError, match=expected) as error:
            use(settings)
        assert "secret" not in str(error.value)
    [finding] = check_warehouse(settings)
    assert finding.failed
    assert expected in finding.detail
    assert "secret" not in finding.sentence


def test_an_error_never_tells_the_password(postgres_tree: Tree) -> None:
    settings = with_credentials(
        postgres_tree, "mysql://ingest:the-secret@127.0.0.1/postgres"
    )  # the driver quotes what it cannot read
    [finding] = check_warehouse(settings)
    assert finding.failed
    assert "invalid dsn" in finding.detail
    assert "the-secret" not in finding.sentence


def test_a_stop_that_comes_during_the_very_first_load_is_a_clean_one(
    postgres_harness: ConsumerHarness, postgres_tree: Tree, tmp_path: Path
) -> None:
    """Another session locks a table that dlt needs, so the process is stopped in the middle of a load."""
    postgres_harness.warehouse.prepare()
    postgres_harness.warehouse.close()
    postgres_harness.consumer.close()
    url = postgres_tree["warehouse"].pop("credentials")
    command = CommandRunner(tmp_path, postgres_tree, INGEST_WAREHOUSE__CREDENTIALS=url)
    with postgres_harness.warehouse._pipeline.sql_client() as client:
        with client.begin_transaction():
            client.execute_sql("LOCK TABLE booking_events, _dlt_version")
            process = command.start("consume")
            with postgres_harness.warehouse._pipeline.sql_client() as other:
                waiting = (
                    "select count(*) from pg_locks where not granted and relation in"
                    " ('booking_events'::regclass, '_dlt_version'::regclass)"
                )
                wait_for(
                    lambda: (other.execute_sql(waiting) or [[0]])[0][0] > 0, "a load that waits for the table"
                )
            process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr()


def test_who_goes_on_with_a_partition_waits_for_a_consumer_that_was_frozen_in_its_load(
    postgres_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.warehouse._TURN_SECONDS", 0.2)
    frozen = Warehouse(Settings.model_validate(postgres_tree))
    with open_consumer(with_section(postgres_tree, "consumer", instance="other")) as other:
        other.warehouse.prepare()
        other.append(sample(1))
        with frozen.turn([Partition(TOPIC)]):
            with pytest.raises(WarehouseUnavailable, match=rf"another consumer holds the lock of {TOPIC}/0"):
                other.loader.step()
            with other.warehouse.turn([Partition("bookings.bookeo")]):
                pass
        other.loader._start_over()
        other.load()
        assert other.column("select last_event_id from bookings") == ["E1"]
    frozen.close()


def test_consumers_of_one_name_on_two_machines_do_not_load_at_once(
    postgres_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.warehouse._TURN_SECONDS", 0.2)
    first = Warehouse(Settings.model_validate(postgres_tree))
    there = Warehouse(
        Settings.model_validate(with_section(postgres_tree, "warehouse", work_dir=str(tmp_path / "there")))
    )
    refused = pytest.raises(WarehouseUnavailable, match="another consumer holds the lock of staging/")
    with closing(first), closing(there), first.turn([Partition(TOPIC, 0)]), refused:
        there.prepare()


def test_tables_that_cannot_be_made_are_no_records_fault(
    postgres_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise LoadRefused("UniqueViolation: another consumer made a type of that name a moment before")

    postgres_harness.append(sample(1))
    with monkeypatch.context() as racing:
        racing.setattr(Warehouse, "_restart", refused)
        with pytest.raises(WarehouseUnavailable, match="the tables cannot be made: UniqueViolation"):
            postgres_harness.loader.step()
    postgres_harness.loader._start_over()
    postgres_harness.load()
    assert postgres_harness.column("select last_event_id from bookings") == ["E1"]


def test_locks_that_did_not_last_as_long_as_the_load_are_told(postgres_harness: ConsumerHarness) -> None:
    lost = (
        "select pg_terminate_backend(pid) from (select distinct pid from pg_locks where locktype ="
        " 'advisory') holders"
    )
    with pytest.raises(WarehouseUnavailable), postgres_harness.warehouse.turn([Partition(TOPIC)]):
        assert query(postgres_harness.settings, lost).rows == [(True,)]
    postgres_harness.load(sample(1))
    assert postgres_harness.column("select last_event_id from bookings") == ["E1"]


def test_locks_that_are_lost_before_anything_is_written_leave_it_unwritten(
    postgres_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_harness.load(sample(1))
    write = PostgresTables.write

    def write_after_cut_off(tables: PostgresTables, rows: Mapping[str, pa.Table]) -> str:
        query(
            postgres_harness.settings,
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'",
        )
        return write(tables, rows)

    with monkeypatch.context() as cut:
        cut.setattr(PostgresTables, "write", write_after_cut_off)
        postgres_harness.append(sample(2, at=5))
        with pytest.raises(WarehouseUnavailable):
            postgres_harness.loader.step()
    assert postgres_harness.column("select last_event_id from bookings") == ["E1"]
    postgres_harness.loader._start_over()
    postgres_harness.load()
    assert postgres_harness.column("select last_event_id from bookings") == ["E2"]


def test_a_query_changes_nothing(postgres_harness: ConsumerHarness) -> None:
    postgres_harness.load(sample(1))
    with pytest.raises(ConfigurationError, match="read-only"):
        query(postgres_harness.settings, "delete from bookings")
    assert postgres_harness.column("select count(*) from bookings") == [1]


@pytest.mark.parametrize("options", ["", "?connect_timeout=5&tcp_user_timeout=9000"])
def test_both_ends_ask_whether_the_other_one_is_still_there(postgres_tree: Tree, options: str) -> None:
    with open_consumer(
        with_section(
            postgres_tree, "warehouse", credentials=postgres_tree["warehouse"]["credentials"] + options
        )
    ) as harness:
        harness.warehouse.prepare()
        assert harness.column("show tcp_keepalives_idle") == ["10"]
        with harness.warehouse._pipeline.sql_client() as client:
            parameters = client.native_connection.info.dsn_parameters
        assert (parameters["keepalives_idle"], parameters["tcp_user_timeout"]) == (
            "10",
            "9000" if options else "25000",
        )
        assert parameters["connect_timeout"] == ("5" if options else "15")


def test_own_options_of_a_connection_are_kept(postgres_tree: Tree) -> None:
    credentials = postgres_tree["warehouse"]["credentials"] + "?options=-cwork_mem%3D7MB"
    with open_consumer(with_section(postgres_tree, "warehouse", credentials=credentials)) as harness:
        harness.warehouse.prepare()
        assert harness.column("show work_mem") == ["7MB"]


def test_loads_find_rows_by_an_index_also_where_the_server_has_no_statistics(
    postgres_harness: ConsumerHarness,
) -> None:
    postgres_harness.warehouse.prepare()
    with postgres_harness.warehouse._pipeline.sql_client() as client:
        for table in ("bookings", "booking_events"):
            name = client.make_qualified_table_name(table)
            client.execute_sql(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
    events = [sample(number, f"B{number}", number) for number in range(600)]
    postgres_harness.load(*events)
    # What a session has counted is there when it ends.
    postgres_harness.load(*(sample(1000 + number, f"B{number}", 1000 + number) for number in range(600)))
    [(events_read, bookings_read, found)] = query(
        postgres_harness.settings,
        "select sum(seq_tup_read) filter (where relname = 'booking_events'),"
        " sum(seq_tup_read) filter (where relname = 'bookings'), sum(idx_tup_fetch)"
        " from pg_stat_user_tables where relname in ('booking_events', 'bookings')"
        f" and schemaname = '{postgres_harness.settings.warehouse.dataset}'",
    ).rows
    assert (events_read, bookings_read) == (0, 0)
    assert found >= 600


@pytest.mark.parametrize("chosen", ["", "pglz"])
def test_payloads_are_compressed_by_lz4_unless_a_user_has_chosen(
    postgres_harness: ConsumerHarness, chosen: str
) -> None:
    postgres_harness.load(sample(1))
    with postgres_harness.warehouse._pipeline.sql_client() as client:
        [(can_lz4,)] = client.execute_sql(
            "SELECT count(*) FROM pg_settings"
            " WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)"
        ) or [(0,)]
        events = client.make_qualified_table_name("booking_events")
        client.execute_sql(f"ALTER TABLE {events} ALTER COLUMN data SET COMPRESSION {chosen or 'default'}")
    if not can_lz4:
        pytest.skip("this server has no lz4")
    tables = postgres_harness.warehouse._tables
    assert isinstance(tables, PostgresTables)
    tables._make_indexes()  # as at a start
    form = {"name": "Ada Example " * 1000, "email": "ada@example.com"}
    postgres_harness.load(sample(2, form_submission=form))
    sql = "select pg_column_compression(data) from booking_events where id = 'E2'"
    assert postgres_harness.column(sql) == [chosen or "lz4"]
