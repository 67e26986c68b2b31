"""`ingest demo`: it finds the warehouse right when it is, and wrong when it is not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from pydantic import BaseModel

from ingest.cli.demo.report import DemoOptions, DemoReport, Reconciliation, WarehouseMonitor
from ingest.cli.demo.sandbox import Sandbox, _environment
from ingest.errors import IngestError
from ingest.settings import Settings, section_models
from ingest.settings.layers import variable_name
from ingest.settings.sources import load_settings
from ingest.simulator.account import Difference
from ingest.simulator.simulation import DeliveryStats, Pace
from ingest.warehouse.duckdb_file import warehouse_lock
from ingest.warehouse.query import query
from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import Result, ingest, refused, start_ingest


def check_right(result: Result) -> None:
    """Check the exit code and the figures of a demo of five seconds at ten webhooks a second."""
    assert (result.code, result.err) == (0, "")
    summary = result.json
    assert summary["right"] is True
    assert summary["webhooks"] == summary["events"] >= 40
    assert summary["bookings"] == summary["bookings_expected"] > 10
    assert summary["answers"]["202"] >= summary["webhooks"]
    assert (summary["differences"], summary["dead_letters"], summary["given_up"]) == (0, 0, 0)
    assert 0 < summary["first_row_seconds"] < PATIENCE
    for spread in (summary["answer_seconds"], summary["row_visible_seconds"]):
        assert 0 < spread["p50"] <= spread["p95"] <= spread["p99"] <= spread["max"]


def test_a_demo_is_right_and_leaves_its_warehouse_to_look_around_in(tmp_path: Path) -> None:
    result = ingest(tmp_path, "demo", "--seconds", "5", "--json", "--folder", "here")
    check_right(result)
    count = ingest(
        tmp_path, "query", "--config", "here/ingest.toml", "--json", "select count(*) as n from bookings"
    )
    assert count.json == [{"n": result.json["bookings"]}]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here" / "ingest.secrets.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.kafka
def test_a_demo_on_kafka_is_right(tmp_path: Path, kafka_servers: list[str]) -> None:
    check_right(
        ingest(
            tmp_path,
            "demo",
            "--seconds",
            "5",
            "--json",
            "--folder",
            "here",
            "--log",
            f"kafka://{','.join(kafka_servers)}",
        )
    )


def check_repaired(result: Result) -> None:
    """Check that exactly the webhooks given up in the outage were found missing and repaired."""
    assert (result.code, result.err) == (0, "")
    summary = result.json
    assert summary["right"] is True
    assert summary["given_up"] > 0
    assert summary["answers"]["ConnectError"] > 0
    reports = summary["reconciliations"]
    assert (
        sum(report["missed"] for report in reports)
        == sum(report["repaired"] for report in reports)
        == summary["lost"]
        > 0
    )
    assert sum(report["seen"] for report in reports) == summary["bookings"] == summary["bookings_expected"]
    assert summary["differences"] == 0


def test_a_demo_with_an_outage_finds_and_repairs_just_what_was_lost(tmp_path: Path) -> None:
    check_repaired(
        ingest(
            tmp_path, "demo", "--outage", "6", "--rate", "15", "--seconds", "1", "--json", "--folder", "here"
        )
    )


@pytest.mark.kafka
def test_a_demo_with_an_outage_on_kafka_finds_and_repairs_just_what_was_lost(
    tmp_path: Path, kafka_servers: list[str]
) -> None:
    log = f"kafka://{','.join(kafka_servers)}"
    check_repaired(
        ingest(
            tmp_path, "demo", "--outage", "6", "--seconds", "1", "--json", "--folder", "here", "--log", log
        )
    )


def test_a_demo_whose_rows_somebody_changes_while_it_runs_says_wrong_and_which(tmp_path: Path) -> None:
    with start_ingest(tmp_path, "demo", "--seconds", "6", "--rate", "20", "--folder", "here") as demo:
        wait_for((tmp_path / "here" / "ingest.secrets.toml").exists, "the sandbox is ready")
        settings = load_settings(str(tmp_path / "here" / "ingest.toml"), environ={})
        wait_for(lambda: cancelled(settings), "somebody cancels a booking, to which nothing newer happens")
        changed = change(settings, cancelled(settings))
        assert demo.wait() == 1
    assert f"WRONG: {len(changed)} differences" in demo.stdout()
    lines = [
        line
        for line in demo.stdout().splitlines()
        if line.endswith("found 'Somebody Else'") and "customer_name: expected" in line
    ]
    assert len(lines) == min(10, len(changed))
    assert all(any(booking_id in line for booking_id in changed) for line in lines)


def cancelled(settings: Settings) -> list[str]:
    try:
        return [
            row[0]
            for row in query(settings, "select booking_id from bookings where status = 'cancelled'").rows
        ]
    except IngestError:
        return []


def change(settings: Settings, booking_ids: list[str]) -> list[str]:
    """Change the bookings while holding the warehouse's lock, as any other program would have to."""
    with (
        warehouse_lock(settings.warehouse, PATIENCE),
        duckdb.connect(str(settings.warehouse.duckdb_file)) as connection,
    ):
        table = f"{settings.warehouse.dataset}.bookings"
        connection.execute(
            f"update {table} set customer_name = 'Somebody Else' where booking_id in ?", [booking_ids]
        )
    return booking_ids


def test_somebody_elses_folder_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "--folder" in refused(ingest(tmp_path, "demo", "--folder", "."))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def path_settings(model: type[BaseModel], *section: str) -> Iterator[tuple[str, ...]]:
    """Return the settings whose values are paths, which their validation shows."""
    for name, field in model.model_fields.items():
        inner = section_models().get(name) if not section else None
        if inner:
            yield from path_settings(inner, name)
        elif "absolute_path" in repr(field):
            yield (*section, name)


def test_every_path_of_a_demo_is_in_its_folder_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = list(path_settings(Settings))
    assert ("receiver", "spool_dir") in paths
    for path in paths:
        monkeypatch.setenv(variable_name(*path), str(tmp_path / "production"))
    monkeypatch.setenv("INGEST_LOG", f"sqlite:///{tmp_path}/production/log.db")
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "production.toml"))
    monkeypatch.chdir(tmp_path)
    sandbox = Sandbox(Path("own"))
    assert not [name for name in _environment() if name.startswith("INGEST_")]
    settings = load_settings(str(sandbox.config), environ=_environment())
    assert settings == sandbox.settings
    tables = settings.model_dump()
    configured = {".".join(path): tables[path[0]][path[1]] for path in paths if tables[path[0]][path[1]]}
    assert configured.items() <= {name: str(path) for name, path in settings.paths().items()}.items()
    assert {"log", "warehouse.credentials"} <= set(settings.paths())
    assert all(path.is_relative_to(tmp_path / "own") for path in settings.paths().values())


def stats(webhooks: int, given_up: int = 0) -> DeliveryStats:
    return DeliveryStats(given_up=given_up, accepted=set(range(webhooks)))


@pytest.fixture
def right(tmp_path: Path) -> DemoReport:
    """Return the report of a demo in which everything is right."""
    sandbox = Sandbox(tmp_path / "here")
    plan = DemoOptions(tmp_path / "here", Pace(rate=10, seconds=5))
    return DemoReport(plan, sandbox, stats(7), WarehouseMonitor(sandbox.settings, events=7), [], 3, 0, 7, 1.5)


def test_only_an_outcome_without_any_fault_is_right(right: DemoReport) -> None:
    assert right.right
    assert replace(
        right, differences=[Difference("sales", "one", "status", "cancelled", "confirmed")]
    ).faults() == ["1 differences"]
    assert replace(right, dead_letters=1).faults() == ["1 dead letters"]
    assert replace(right, stats=stats(7, given_up=1)).faults() == ["1 webhooks given up"]
    assert replace(right, stats=stats(8)).faults() == ["7 events of 8 webhooks"]
    assert not replace(right, stats=stats(6)).right


REPORT = {"outcome": "complete", "missed": 2, "repaired": 2}


@pytest.mark.parametrize("wrong", [{"missed": 3}, {"repaired": 1}, {"outcome": "failed"}])
def test_after_an_outage_only_what_was_lost_may_be_missed_and_all_of_it_is_repaired(
    right: DemoReport, wrong: dict[str, object]
) -> None:
    outage = replace(right, stats=stats(7, given_up=4), reconciliation=Reconciliation([REPORT], lost=2))
    assert outage.right
    assert not replace(outage, reconciliation=Reconciliation([REPORT | wrong], lost=2)).right
    assert not replace(outage, reconciliation=Reconciliation([REPORT], lost=3)).right
