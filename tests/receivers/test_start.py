"""A receiver that cannot start says why in one line, and what to do."""

import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from ingest.settings import ReceiverSettings
from tests.receivers.requests import SECRET
from tests.receivers.running import ANYWHERE, PATIENCE, command_line, environment

OTHER = {"INGEST_ACCOUNTS__SUPPORT__VENDOR": "oncehub"}


def _refused(
    folder: Path, settings: Mapping[str, str], without: str = ""
) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value
        for name, value in environment(folder, settings).items()
        if not (without and name.startswith(without))
    }
    return subprocess.run(
        command_line("receive"),
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _error(completed: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that is no log entry."""
    (line,) = [line for line in completed.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert SECRET not in completed.stdout + completed.stderr
    return line


def test_without_an_account(tmp_path: Path) -> None:
    completed = _refused(tmp_path, {}, without="INGEST_ACCOUNTS")
    assert completed.returncode == 2
    assert "no account is configured" in _error(completed)


def test_without_a_secret_for_every_account(tmp_path: Path) -> None:
    completed = _refused(tmp_path, OTHER)
    assert completed.returncode == 2
    assert "set INGEST_ACCOUNTS__SUPPORT__WEBHOOK_SECRETS" in _error(completed)
    assert "SALES" not in _error(completed)


def test_with_an_empty_secret(tmp_path: Path) -> None:
    completed = _refused(tmp_path, {"INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": " , "})
    assert completed.returncode == 2
    assert "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS" in _error(completed)


@pytest.mark.parametrize(
    ("variable", "setting"),
    [("INGEST_RECEIVER__PORT", "receiver.port"), ("INGEST_RECEIVER__ADMIN_PORT", "receiver.admin_port")],
)
def test_with_a_port_that_is_taken(tmp_path: Path, variable: str, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        completed = _refused(tmp_path, {variable: str(port)})
    assert completed.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in _error(completed)
    assert f"choose another {setting}" in _error(completed)


def test_with_an_admin_listener_that_others_reach_without_a_token(tmp_path: Path) -> None:
    completed = _refused(tmp_path, {"INGEST_RECEIVER__ADMIN_HOST": ANYWHERE})
    assert completed.returncode == 2
    assert "the admin listener on 0.0.0.0 needs receiver.admin_token" in _error(completed)


@pytest.mark.parametrize(
    ("receiver", "culprit", "least"),
    [
        ({"BODY_LIMIT": "16777217"}, "receiver.in_flight_limit", 33554434),
        ({"IN_FLIGHT_LIMIT": "2097151"}, "INGEST_RECEIVER__IN_FLIGHT_LIMIT", 2097152),
    ],
)
def test_with_less_room_for_bodies_than_the_largest_takes(
    tmp_path: Path, receiver: dict[str, str], culprit: str, least: int
) -> None:
    completed = _refused(tmp_path, {f"INGEST_RECEIVER__{name}": value for name, value in receiver.items()})
    assert completed.returncode == 2
    assert f"error: {culprit}: is less than twice receiver.body_limit" in _error(completed)
    assert f"raise receiver.in_flight_limit to {least} at least, or lower receiver.body_limit" in _error(
        completed
    )


def test_with_just_enough_room_for_bodies() -> None:
    assert ReceiverSettings(body_limit=16 * 1024 * 1024).in_flight_limit == 32 * 1024 * 1024


def test_with_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"this is no database, but something that was here before" * 100)
    completed = _refused(tmp_path, {"INGEST_RECEIVER__WORKERS": "2"})
    assert completed.returncode == 3
    assert "log.db failed: file is not a database" in _error(completed)
