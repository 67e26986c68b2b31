"""Where commands look for settings and data: beside the settings file. Reading makes no files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from ingest.cli.commands import app
from ingest.errors import ConfigurationError
from tests.ingest.cli.run_commands import tree
from tests.receivers.subscriptions.installation import Installation, open_installation
from tests.support.polling import PATIENCE
from tests.support.processes import environment, ingest, refused

# Commands that only read, with the exit codes they may have in a product that has not run yet.
READING = {
    "status": {1},
    "check": {0, 1},
    "query": {3},
    "dead-letters list": {0, 3},
    "dead-letters show abc": {2, 3},
    "dead-letters redrive --all --dry-run": {0, 3},
    "reconcile --dry-run": {0, 1},
    "webhooks plan": {2},
    "webhooks list": {0},
    "replay --dry-run": {0, 3},
}
NEEDS_SETTINGS = [
    *READING,
    "up",
    "receive",
    "consume",
    "reconcile",
    "sync",
    "webhooks apply",
    "webhooks remove sales",
]
SALES = '[accounts.sales]\nvendor = "calendly"\n'
BOOKINGS = """
create schema ingest;
create table ingest.bookings (
  vendor text, account text, booking_id text, updated_at timestamptz, loaded_at timestamptz
);
insert into ingest.bookings (vendor, account, booking_id) values ('calendly', 'sales', 'one');
"""
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Installation]:
    """Return an installation with an account that REST can read, in which nothing has run."""
    with open_installation(tmp_path / "product", "oncehub") as installation:
        yield installation


def arguments(command: str) -> list[str]:
    return [*command.split(), *(["select count(*) from bookings"] if command == "query" else [])]


def run_all(folder: Path, commands: list[str]) -> list[dict[str, Any]]:
    """Return each command's exit code, and the folder after it."""
    completed = subprocess.run(
        [sys.executable, "-m", "tests.ingest.cli.run_commands"],
        cwd=folder,
        env=environment(PYTHONPATH=str(_ROOT)),
        input=json.dumps([arguments(command) for command in commands]),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(completed.stdout)
    return answers


def make_warehouse(folder: Path) -> None:
    """Make a warehouse with one booking, as if it had been copied: without locks."""
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute(BOOKINGS)


def test_run_commands_make_no_file_where_nothing_has_run(product: Installation) -> None:
    before = tree(product.folder)
    for command, answer in zip(READING, run_all(product.folder, list(READING)), strict=True):
        assert answer["tree"] == before, command
        assert answer["code"] in READING[command], command


def test_run_commands_make_no_file_beside_a_warehouse_that_was_copied_here(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(SALES)
    make_warehouse(tmp_path / "data")
    before = tree(tmp_path)
    commands = ["status", "query", "dead-letters list"]
    for command, answer in zip(commands, run_all(tmp_path, commands), strict=True):
        assert answer["tree"] == before, command
        assert answer["code"] in {0, 1}, command


@pytest.mark.parametrize("command", NEEDS_SETTINGS)
def test_without_settings_a_command_says_where_it_looked_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INGEST_CONFIG", raising=False)
    error = CliRunner().invoke(app, arguments(command)).exception
    assert isinstance(error, ConfigurationError)
    for part in (f"no file {tmp_path}/ingest.toml", "--config", "INGEST_CONFIG", "`ingest init`"):
        assert part in str(error)
    assert tree(tmp_path) == {}


def test_a_command_without_settings_ends_with_exit_code_2(tmp_path: Path) -> None:
    assert "there are no settings" in refused(
        ingest(tmp_path, "status", INGEST_SERVICE_HOST="10.96.0.10", INGEST_TEST_KAFKA="host:9092")
    )


@pytest.mark.parametrize("command", ["--version", "--help", "status --help"])
def test_some_commands_need_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, command.split()).exit_code == 0


def test_a_command_started_elsewhere_reads_the_same_data(tmp_path: Path) -> None:
    make_warehouse(tmp_path / "product" / "data")
    (tmp_path / "product" / "ingest.toml").write_text(SALES)
    (tmp_path / "elsewhere").mkdir()
    result = ingest(
        tmp_path / "elsewhere",
        "query",
        "select booking_id from bookings",
        "--csv",
        "--config",
        "../product/ingest.toml",
    )
    assert result.out.split() == ["booking_id", "one"], result
    assert tree(tmp_path / "elsewhere") == {}


def test_settings_wholly_from_the_environment_have_their_data_in_the_working_folder(tmp_path: Path) -> None:
    make_warehouse(tmp_path / "data")
    result = ingest(
        tmp_path,
        "query",
        "select booking_id from bookings",
        "--csv",
        INGEST_ACCOUNTS__SALES__VENDOR="calendly",
    )
    assert result.out.split() == ["booking_id", "one"], result
