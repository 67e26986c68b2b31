"""Tests of a lake in a local folder: of Delta tables, and of Iceberg tables with a catalog in SQLite."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyiceberg.catalog
import pytest
from deltalake.table import TableAlterer
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import DataScan, FileScanTask
from pyiceberg.utils.config import Config
from starlette.responses import JSONResponse

from consumers.booking_rows import Row
from consumers.warehouse import delta
from consumers.warehouse.lake_formats import lake_writer
from consumers.warehouse.rights import check_warehouse
from ingest.errors import ConfigurationError, LoadedMeanwhile, NothingLoaded
from ingest.readiness import State
from ingest.settings import Settings
from ingest.warehouse import Bounds
from ingest.warehouse.lake_formats import open_lake
from ingest.warehouse.query import query, query_bounded
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import TOPIC, sample
from tests.consumers.sync.harness import syncing
from tests.destinations.lakes import running_gcs
from tests.support.polling import wait_for
from tests.support.settings import CommandRunner, Tree, settings_tree, with_section

LAST_EVENTS = "select last_event_id from bookings order by booking_id"
EVENTS = "select id from booking_events order by id"


FORMATS = ["delta", "iceberg"]


def lake_tree(folder: Path, lake: Path, table_format: str, instance: str = "") -> Tree:
    """Return settings of a consumer with a log of its own."""
    catalog = {"catalog": f"sqlite:///{lake}.catalog.db"} if table_format == "iceberg" else {}
    warehouse = {
        "destination": "filesystem",
        "credentials": str(lake),
        "work_dir": f"{folder}/dlt",
        "table_format": table_format,
        **catalog,
    }
    return settings_tree(folder, instance=instance) | {"warehouse": warehouse}


@pytest.fixture(params=FORMATS)
def table_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path, table_format: str) -> Tree:
    return lake_tree(tmp_path, tmp_path / "lake", table_format)


@pytest.fixture
def harness(tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(tree) as harness:
        yield harness


@pytest.fixture
def other(tmp_path: Path, table_format: str) -> Iterator[ConsumerHarness]:
    """Return another consumer of the same lake."""
    folder = tmp_path / "other"
    folder.mkdir()
    with open_consumer(lake_tree(folder, tmp_path / "lake", table_format, "other")) as other:
        yield other


def files(harness: ConsumerHarness, table: str) -> int:
    """Return the number of files that a table has now."""
    lake = open_lake(harness.settings.warehouse)
    return len(lake.dataset_of(lake.open(table)).files)


def test_each_booking_and_each_event_has_one_row_and_the_newest_message_wins(
    harness: ConsumerHarness,
) -> None:
    harness.load(sample(1), sample(2, "B2"))
    harness.load(sample(3, at=5), sample(1))
    harness.load(sample(4, at=2))
    assert harness.column(LAST_EVENTS) == ["E3", "E2"]
    assert harness.column(EVENTS) == ["E1", "E2", "E3", "E4"]
    assert harness.column("select data->>'$.data.subject' from booking_events where id = 'E3'") == [
        "told by E3"
    ]


@pytest.mark.parametrize(
    "booking", ["it's", 'a "b"', "a\\'b", "a' OR 'a'='a", "--", "%s {x}", "two\nlines", "ü 美"]
)
def test_a_booking_is_replaced_whatever_its_id_is_and_no_other_one(
    harness: ConsumerHarness, booking: str
) -> None:
    harness.load(sample(1, booking), sample(2, "other"))
    harness.load(sample(3, booking, at=5))
    assert dict(query(harness.settings, "select booking_id, last_event_id from bookings").rows) == {
        booking: "E3",
        "other": "E2",
    }


def check_planned_anew(
    harness: ConsumerHarness, other: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let one consumer load between another one's plan and its load, and check what both left."""
    harness.load(sample(0))
    load = harness.warehouse.load
    later = iter([sample(9, at=9)])

    def load_after_the_other_one(rows: Mapping[str, Sequence[Row]]) -> str:
        if newer := next(later, None):
            other.load(newer, sample(1, at=5))
        return load(rows)

    monkeypatch.setattr(harness.warehouse, "load", load_after_the_other_one)
    harness.load(sample(1, at=5), sample(2, "B2"))
    assert harness.column(LAST_EVENTS) == ["E9", "E2"]
    assert harness.column(EVENTS) == ["E0", "E1", "E2", "E9"]


def test_a_load_is_planned_anew_when_somebody_else_has_loaded_after_it_was_planned(
    harness: ConsumerHarness, other: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_planned_anew(harness, other, monkeypatch)


@pytest.mark.postgres
def test_a_catalog_in_postgresql_accepts_one_of_two_loads_at_once_too(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {
        "catalog": postgres.url.replace("postgresql:", "postgresql+psycopg2:"),
        "dataset": f"t{uuid4().hex[:12]}",
    }
    (tmp_path / "other").mkdir()
    trees = [
        with_section(lake_tree(folder, tmp_path / "lake", "iceberg", name), "warehouse", **shared)
        for folder, name in ((tmp_path, ""), (tmp_path / "other", "other"))
    ]
    with open_consumer(trees[0]) as harness, open_consumer(trees[1]) as other:
        check_planned_anew(harness, other, monkeypatch)
        [finding, *_] = check_warehouse(harness.settings)
        assert finding.state is State.OK, finding


def test_iceberg_tables_may_be_in_google_cloud_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = lake_tree(tmp_path, tmp_path / "lake", "iceberg")
    with running_gcs(tmp_path) as store:
        for name, value in store.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(
            "PYICEBERG_CATALOG__INGEST__GCS__SERVICE__HOST", store.environ["STORAGE_EMULATOR_HOST"]
        )
        monkeypatch.setattr(pyiceberg.catalog, "_ENV_CONFIG", Config())  # which is read at the import
        with open_consumer(with_section(tree, "warehouse", credentials="gs://lake/tables")) as harness:
            harness.load(sample(1), sample(2, "B2"))
            harness.load(sample(3, at=5), sample(1))
            assert harness.column(LAST_EVENTS) == ["E3", "E2"]
            assert harness.column(EVENTS) == ["E1", "E2", "E3"]


def test_two_processes_that_load_the_same_bookings_lose_and_double_nothing(
    tmp_path: Path, table_format: str
) -> None:
    runners = []
    for number, name in enumerate(("first", "second")):
        folder = tmp_path / name
        folder.mkdir()
        tree = with_section(
            lake_tree(folder, tmp_path / "lake", table_format, name), "consumer", max_records=3
        )
        runners.append(CommandRunner(folder, with_section(tree, "consumer", max_records=3)))
        producer = runners[-1].settings.build_log().producer()
        events = [sample(n, f"B{n % 4}", at=n) for n in range(24) if n % 2 == number or n % 3 == 0]
        producer.append(TOPIC, [event.to_record() for event in events]).result(30)
        producer.close()
    with runners[0].consuming() as first, runners[1].consuming() as second:
        wait_for(lambda: [runner.lag() for runner in runners] == [0, 0], "everything is loaded")
        assert [first.stop(), second.stop()] == [0, 0]
    settings = runners[0].settings
    assert [row[0] for row in query(settings, LAST_EVENTS).rows] == ["E20", "E21", "E22", "E23"]
    assert sorted(row[0] for row in query(settings, EVENTS).rows) == sorted(f"E{n}" for n in range(24))


def test_small_files_become_one_in_time_and_the_rows_stay(tree: Tree) -> None:
    with open_consumer(tree) as harness:
        for number in range(6):
            harness.load(sample(number, f"B{number}"))
            harness.warehouse._maintenance_due = 0.0
        assert files(harness, "booking_events") == 6, "a day has not passed"
    with open_consumer(with_section(tree, "warehouse", compact_every="0s")) as harness:
        harness.load(sample(6, "B6"))
        assert files(harness, "booking_events") == files(harness, "bookings") == 1
        assert len(harness.column(LAST_EVENTS)) == len(harness.column(EVENTS)) == 7
        harness.load(sample(7, "B0", at=7))
        assert harness.column(LAST_EVENTS)[0] == "E7"


def test_files_that_were_replaced_long_ago_are_deleted_and_no_others(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.warehouse.iceberg._KEPT_FOR", timedelta(0))
    monkeypatch.setitem(delta._PROPERTIES, "delta.deletedFileRetentionDuration", "interval 0 days")
    with open_consumer(with_section(tree, "warehouse", compact_every="0s")) as harness:
        harness.load(sample(1))
        (tmp_path / "lake/ingest/bookings/left-by-a-refused-load.parquet").touch()
        for number in range(2, 5):
            harness.warehouse._maintenance_due = 0.0
            harness.load(sample(number, at=number))
        assert harness.column(LAST_EVENTS) == ["E4"]
        stored = {path.name for path in (tmp_path / "lake/ingest/bookings").rglob("*.parquet")}
        assert len(stored) < 4, "the bookings were written four times"
        assert "left-by-a-refused-load.parquet" not in stored
        harness.load(sample(5, "B5"))
        assert harness.column(EVENTS) == ["E1", "E2", "E3", "E4", "E5"]


def test_a_table_that_is_taken_away_is_made_again(
    harness: ConsumerHarness, tmp_path: Path, table_format: str
) -> None:
    harness.load(sample(1))
    if table_format == "iceberg":
        harness.warehouse.drop()
    else:
        (tmp_path / "lake" / "ingest").rename(tmp_path / "gone")
    with pytest.raises(NothingLoaded):
        harness.column(EVENTS)
    harness.load(sample(2, "B2"))
    assert harness.column(EVENTS) == ["E1", "E2"]


def test_check_tries_it_in_a_scratch_dataset_which_it_removes(
    harness: ConsumerHarness, tmp_path: Path
) -> None:
    harness.load(sample(1))
    [finding, *_] = check_warehouse(harness.settings)
    assert finding.state is State.OK, finding
    assert [folder.name for folder in (tmp_path / "lake").iterdir()] == ["ingest"]


def test_a_query_reads_tables_and_nothing_else(harness: ConsumerHarness, tmp_path: Path) -> None:
    harness.load(sample(1))
    bounds = Bounds(30)
    sql = "select booking_id, staff, starts_at from bookings"
    assert query_bounded(harness.settings, sql, bounds).columns == ["booking_id", "staff", "starts_at"]
    assert query_bounded(harness.settings, "show tables", bounds).rows
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for refused in (
        f"select * from '{tmp_path}/secret.csv'",
        f"copy bookings to '{tmp_path}/out.csv'",
        "create table mine (a int)",
        "select * from no_such_table",
    ):
        with pytest.raises(ConfigurationError):
            query_bounded(harness.settings, refused, bounds)


def test_a_store_that_accepts_both_of_two_writers_is_refused(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TableAlterer, "set_table_properties", lambda *_, **__: None)
    monkeypatch.setattr(SqlCatalog, "commit_table", lambda _, table, *__: table)
    with (
        open_consumer(tree) as harness,
        pytest.raises(ConfigurationError, match="overwrite what another one has just written"),
    ):
        harness.warehouse.prepare()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"table_format": "parquet"}, "cannot be replaced"),
        ({"table_format": "iceberg"}, "lose each other's loads"),
        ({"table_format": "iceberg", "catalog": "sqlite:///:memory:"}, "lose each other's loads"),
        ({"table_format": "iceberg", "catalog": "mysql://host/catalog"}, "is not one of"),
        ({"table_format": "iceberg", "catalog": "glue", "credentials": "az://lake"}, "tables in Azure"),
        ({"catalog": "glue"}, "is for Iceberg tables"),
    ],
)
def test_a_format_that_cannot_be_right_is_refused(
    tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    tree = with_section(lake_tree(tmp_path, tmp_path / "lake", "delta"), "warehouse", **changes)
    with pytest.raises(ValueError, match=reason):
        Settings.model_validate(tree)


def test_an_iceberg_commit_is_tried_once_whatever_the_table_says(tmp_path: Path) -> None:
    with open_consumer(lake_tree(tmp_path, tmp_path / "lake", "iceberg")) as harness:
        harness.load(sample(1))
        writer = lake_writer(harness.settings.warehouse)
        table = writer.lake.open("bookings")
        table.transaction().set_properties({"commit.retry.num-retries": "4"}).commit_transaction()
        first, second = writer.lake.open("bookings"), writer.lake.open("bookings")
        rows = writer.lake.dataset_of(first).to_table()
        writer.append(first, rows)
        with pytest.raises(LoadedMeanwhile):
            writer.append(second, rows)
        with pytest.raises(LoadedMeanwhile):
            writer.replace(second, rows, ["booking_id"])
        writer.replace(first, rows, ["booking_id"])
        assert harness.column(LAST_EVENTS) == ["E1"]


def test_iceberg_tables_with_delete_files_are_not_read_as_if_they_had_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_consumer(lake_tree(tmp_path, tmp_path / "lake", "iceberg")) as harness:
        harness.load(sample(1))
        plan = DataScan.plan_files

        def with_delete_files(scan: DataScan) -> list[FileScanTask]:
            return [FileScanTask(task.file, {task.file}) for task in plan(scan)]

        monkeypatch.setattr(DataScan, "plan_files", with_delete_files)
        with pytest.raises(ConfigurationError, match="copy-on-write"):
            harness.column(EVENTS)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("ftp://host/lake", "a place that has no lakes"), ("/srv/a%20b", "% # ?"), ("/srv/a#b", "% # ?")],
)
def test_a_place_that_cannot_have_a_lake_is_refused(tree: Tree, place: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Settings.model_validate(with_section(tree, "warehouse", credentials=place))


@pytest.mark.parametrize(
    ("place", "remedy"),
    [("s3://bucket/lake", "CREDENTIALS__AWS_ACCESS_KEY_ID"), (None, "s3://bucket/folder")],
)
def test_without_a_place_or_its_keys_it_is_told_what_to_set(
    tree: Tree, place: str | None, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "DESTINATION__FILESYSTEM__BUCKET_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = Settings.model_validate(with_section(tree, "warehouse", credentials=place))
    with pytest.raises(ConfigurationError, match=remedy):
        query(settings, "select 1")


def test_a_folder_may_have_blanks_and_letters_of_any_language(tmp_path: Path, table_format: str) -> None:
    with open_consumer(lake_tree(tmp_path, tmp_path / "my lake ü", table_format)) as harness:
        harness.load(sample(1))
        harness.load(sample(2, at=5))
        assert harness.column(LAST_EVENTS) == ["E2"]


def test_a_sync_replaces_rows_by_key_and_what_has_no_key_by_account(tree: Tree, tmp_path: Path) -> None:
    with syncing("oncehub", tree, tmp_path) as harness:
        users: list[dict[str, Any]] = [{"id": "U1", "teams": ["a", "b"]}, {"id": "U2", "teams": []}]
        for changed in (users, [{"id": "U1", "teams": ["b"], "phone": "1"}, users[1]]):
            harness.answer("/users", JSONResponse({"data": changed, "has_more": False}))
            assert harness.sync("users")["users"].problem is None
        rows = {row["id"]: (row["teams"], row["phone"]) for row in harness.rows("oncehub__users")}
        assert rows == {"U1": (["b"], "1"), "U2": ([], None)}
        for names in (["a", "b"], ["c"]):
            answer = JSONResponse({"object": "list", "data": [{"name": name} for name in names]})
            harness.answer("/webhook-events", answer)
            assert harness.sync("webhook_events")["webhook_events"].rows == len(names)
        assert harness.rows("oncehub__webhook_events") == [{"name": "c", "account": "sales"}]


def test_a_second_sync_reads_only_what_changed(tree: Tree, tmp_path: Path) -> None:
    with syncing("oncehub", tree, tmp_path) as harness:
        everything = harness.sync("bookings")["bookings"].rows
        assert harness.sync("bookings")["bookings"].rows < 2
        assert len(harness.rows("oncehub__bookings")) == everything == len(harness.side.meetings)
