"""Tests that a waiting load says so, and for whom it waits, and that a full disk cannot be written to."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest

from ingest.errors import LogUnavailable
from ingest.files import explain_unwritable
from ingest.log import Record
from ingest.log.sqlite.producer import SqliteProducer
from ingest.log_probes import probe_loaded
from ingest.readiness import Finding
from ingest.settings import Settings
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import sample
from tests.faults.disk import Disk, can_mount
from tests.support.polling import wait_for
from tests.support.settings import Tree, with_section


@pytest.mark.postgres
def test_a_lock_that_holds_a_load_up_makes_the_consumer_unready_and_is_named(
    postgres_tree: Tree, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.readiness._QUIET_SECONDS", 0.05)
    monkeypatch.setattr("ingest.readiness._WATCH_EVERY_SECONDS", 0.05)

    def failure(harness: ConsumerHarness) -> Finding | None:
        return next((finding for finding in harness.loader.undone.probe() if finding.failed), None)

    with open_consumer(with_section(postgres_tree, "consumer", undone_limit="300ms")) as harness:
        harness.load(sample(1))
        harness.loader.undone.watch()
        with (
            closing(psycopg2.connect(postgres.url, application_name="report")) as other,
            other.cursor() as cursor,
        ):
            cursor.execute(
                f"LOCK TABLE {harness.settings.warehouse.dataset}.bookings IN ACCESS EXCLUSIVE MODE"
            )
            with harness.running():
                harness.append(sample(2, "B2"))
                wait_for(
                    lambda: (
                        (waiting := failure(harness)) and "lock of PostgreSQL's session" in waiting.detail
                    ),
                    "the wait is told",
                )
                waiting = failure(harness)
                assert waiting
                assert (
                    f"session {other.get_backend_pid()} (user ingest, report, idle in transaction"
                    in waiting.detail
                )
                assert "1 records from bookings.oncehub/0/1" in waiting.detail
                other.rollback()
                wait_for(lambda: harness.lag_outside() == 0, "everything loaded")
                wait_for(lambda: harness.loader.undone.seconds == 0, "nothing is undone")
        assert failure(harness) is None


def test_reconciliation_knows_how_long_the_oldest_record_waits_to_be_loaded(harness: ConsumerHarness) -> None:
    def probe(limit: timedelta, interval: timedelta = timedelta()) -> Finding:
        (finding,) = probe_loaded(harness.settings.build_log(), limit, interval)
        return finding

    assert not probe(timedelta()).failed
    harness.append(sample(1))
    assert not probe(timedelta(hours=1)).failed
    assert not probe(timedelta(), interval=timedelta(hours=1)).failed
    finding = probe(timedelta())
    assert finding.failed
    assert "wait to be loaded" in finding.detail
    harness.load()
    assert not probe(timedelta()).failed


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Disk, Path]]:
    if not can_mount(tmp_path):
        pytest.skip("only root may mount a disk")
    mounted = Disk(tmp_path / "disk")
    try:
        yield mounted, tmp_path / "disk"
    finally:
        mounted.close()


def settings_with(log: Path) -> Settings:
    return Settings.model_validate({"log": f"sqlite:///{log}"})


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
@pytest.mark.parametrize("free_bytes", [0, 300_000], ids=["full", "nearly full"])
def test_a_log_on_a_full_disk_takes_no_records_and_the_probes_know(
    tmp_path: Path, disk: tuple[Disk, Path], free_bytes: int, *, linked: bool
) -> None:
    mounted, folder = disk
    with closing(SqliteProducer(folder / "log.db")) as producer:
        producer.append("topic", [Record("key", bytes(1_000_000))]).result(60)
        if linked:
            (tmp_path / "log.db").symlink_to(folder / "log.db")
        settings = settings_with((tmp_path if linked else folder) / "log.db")
        settings.build_log().probe_append()
        spare = folder / "spare"
        spare.write_bytes(bytes(free_bytes))
        mounted.fill()
        spare.unlink()
        for probe in (settings.build_log().probe_append, settings.build_log().probe_read):
            with pytest.raises(LogUnavailable, match="No space left"):
                probe()
        assert "No space left" in explain_unwritable(folder)
        mounted.empty()
        settings.build_log().probe_append()
        producer.append("topic", [Record("key", b"")]).result(60)


def test_a_probe_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "log.db")
    (tmp_path / "log.db").touch()
    settings.build_log().probe_append()
    assert (tmp_path / "log.db").stat().st_size == 0
    with closing(SqliteProducer(tmp_path / "log.db")) as producer:
        producer.append("topic", [Record("key", b"value")]).result(60)
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            before = list(connection.iterdump())
            settings.build_log().probe_append()
            assert list(connection.iterdump()) == before
