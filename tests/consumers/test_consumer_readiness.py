"""Tests of when a consumer is ready, and of what it says when it is not."""

from contextlib import closing
from pathlib import Path

import pytest

from consumers.run import _probes
from ingest.cli.reconcile import _probes as reconcile_probes
from ingest.errors import WarehouseUnavailable
from ingest.readiness import Finding, Readiness
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.consumers.harness import ConsumerHarness
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import TOPIC, sample
from tests.kafka.broker import Broker, fetch
from tests.support.polling import PATIENCE, get, wait_for
from tests.support.ports import free_port
from tests.support.settings import CommandRunner, settings_tree, with_section


def failing(harness: ConsumerHarness, **other: object) -> dict[str, Finding]:
    settings = harness.settings.model_copy(update=other)
    return {
        finding.check: finding
        for finding in Readiness(_probes(settings, harness.loader), timeout=PATIENCE).findings()
        if finding.failed
    }


def test_a_consumer_that_can_work_is_ready(harness: ConsumerHarness) -> None:
    harness.warehouse.prepare()
    assert failing(harness) == {}


def test_what_the_loader_waits_for_is_a_reason(harness: ConsumerHarness) -> None:
    harness.loader.trouble = WarehouseUnavailable("another process has the file")
    assert {name: finding.detail for name, finding in failing(harness).items()} == {
        "loading": "another process has the file"
    }
    harness.loader.trouble = None
    assert failing(harness) == {}


def test_a_kafka_that_is_gone_is_a_reason_though_the_loader_only_gets_nothing(
    harness: ConsumerHarness,
) -> None:
    findings = failing(harness, log=f"kafka://127.0.0.1:{free_port()}")
    assert set(findings) == {"log"}
    assert "Connection refused" in findings["log"].detail


def test_a_log_that_cannot_be_written_to_takes_no_commits(harness: ConsumerHarness, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database at all " * 300)
    findings = failing(harness, log=f"sqlite:///{tmp_path}/broken.db")
    assert "file is not a database" in findings["log"].detail


@pytest.mark.postgres
def test_a_server_that_is_gone_is_a_reason_at_once(
    postgres_harness: ConsumerHarness, postgres: PostgresServer
) -> None:
    postgres_harness.warehouse.prepare()
    assert failing(postgres_harness) == {}
    postgres.stop()
    try:
        findings = failing(postgres_harness)
    finally:
        postgres.start()
    assert set(findings) == {"warehouse"}
    assert "any@" not in findings["warehouse"].detail
    assert failing(postgres_harness) == {}


def test_a_reconciliation_needs_log_warehouse_and_a_place_for_its_state(
    harness: ConsumerHarness, tmp_path: Path
) -> None:
    assert not any(
        finding.failed
        for finding in Readiness(reconcile_probes(harness.settings), timeout=PATIENCE).findings()
    )
    (tmp_path / "occupied").write_text("a file")
    settings = Settings.model_validate(
        with_section(
            harness.settings.model_dump(include={"log", "warehouse", "reconcile"}),
            "reconcile",
            state_dir=f"{tmp_path}/occupied",
        )
        | {"log": f"kafka://127.0.0.1:{free_port()}"}
    )
    findings = {
        finding.check: finding
        for finding in Readiness(reconcile_probes(settings), timeout=PATIENCE).findings()
    }
    assert {name for name, finding in findings.items() if finding.failed} == {"log", "state_dir"}
    assert "reconcile.state_dir" in findings["state_dir"].detail


@pytest.mark.kafka
def test_a_broker_that_is_killed_under_a_running_consumer_is_told_until_it_is_back(
    kafka_tools: None,  # noqa: ARG001 - it skips
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    broker = Broker(fetch(), tmp_path_factory.mktemp("kafka"))
    port = free_port()
    tree = with_section(settings_tree(tmp_path), "consumer", admin_port=port) | {
        "log": f"kafka://{broker.servers[0]}",
        "kafka": {"partitions": 1, "replication_factor": 1},
    }
    command = CommandRunner(tmp_path, tree)

    def reasons() -> list[str] | None:
        response = get(f"http://127.0.0.1:{port}/readyz")
        answer: list[str] | None = response.json()["reasons"] if response else None
        return answer

    broker.start()
    try:
        with command.consuming():
            wait_for(lambda: reasons() == [], "it is ready")
            broker.kill()
            wait_for(
                lambda: any(reason.startswith("log: ") for reason in reasons() or ()),
                "it says that Kafka is gone",
            )
            broker.start()
            wait_for(lambda: reasons() == [], "it is ready again")
            with closing(command.settings.build_log().producer()) as producer:
                producer.append(TOPIC, [sample(1).to_record()]).result(PATIENCE)
            wait_for(lambda: command.lag() == 0, "it loads again")
    finally:
        broker.stop()
    assert query(command.settings, "select count(*) from booking_events").rows == [(1,)]
