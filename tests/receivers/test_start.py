"""How a receiver starts, and that one that cannot says why in one line, and what to do."""

import socket
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from ingest.settings import ReceiverSettings
from tests.receivers.requests import SECRET
from tests.receivers.running import ANYWHERE, Receiver, receiver_environment
from tests.support.processes import Result, ingest

OTHER = {"INGEST_ACCOUNTS__SUPPORT__VENDOR": "oncehub"}


def _refused(folder: Path, settings: Mapping[str, str], without: str = "") -> Result:
    variables = {
        name: value
        for name, value in receiver_environment(folder, settings).items()
        if not (without and name.startswith(without))
    }
    return ingest(folder, "receive", **variables)


def _error(result: Result) -> str:
    """Return the one line that is no log entry."""
    (line,) = [line for line in result.err.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert SECRET not in result.out + result.err
    return line


def test_without_an_account(tmp_path: Path) -> None:
    result = _refused(tmp_path, {}, without="INGEST_ACCOUNTS")
    assert result.code == 2
    assert "no account is configured" in _error(result)


def test_without_a_secret_for_every_account(tmp_path: Path) -> None:
    result = _refused(tmp_path, OTHER)
    assert result.code == 2
    assert "set INGEST_ACCOUNTS__SUPPORT__WEBHOOK_SECRETS" in _error(result)
    assert "SALES" not in _error(result)


def test_with_an_empty_secret(tmp_path: Path) -> None:
    result = _refused(tmp_path, {"INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": " , "})
    assert result.code == 2
    assert "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS" in _error(result)


@pytest.mark.parametrize(
    ("variable", "setting"),
    [("INGEST_RECEIVER__PORT", "receiver.port"), ("INGEST_RECEIVER__ADMIN_PORT", "receiver.admin_port")],
)
def test_with_a_port_that_is_taken(tmp_path: Path, variable: str, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = _refused(tmp_path, {variable: str(port)})
    assert result.code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in _error(result)
    assert f"choose another {setting}" in _error(result)


def test_with_an_admin_listener_that_others_reach_without_a_token(tmp_path: Path) -> None:
    result = _refused(tmp_path, {"INGEST_RECEIVER__ADMIN_HOST": ANYWHERE})
    assert result.code == 2
    assert "the admin listener on 0.0.0.0 needs receiver.admin_token" in _error(result)


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
    result = _refused(tmp_path, {f"INGEST_RECEIVER__{name}": value for name, value in receiver.items()})
    assert result.code == 2
    assert f"error: {culprit}: is less than twice receiver.body_limit" in _error(result)
    assert f"raise receiver.in_flight_limit to at least {least}, or lower receiver.body_limit" in _error(
        result
    )


def test_with_just_enough_room_for_bodies() -> None:
    assert ReceiverSettings(body_limit=16 * 1024 * 1024).in_flight_limit == 32 * 1024 * 1024


def test_with_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"this is no database, but something that was here before" * 100)
    result = _refused(tmp_path, {"INGEST_RECEIVER__WORKERS": "2"})
    assert result.code == 3
    assert "log.db failed: file is not a database" in _error(result)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
def test_a_receiver_for_both_families_takes_deliveries_by_both(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path, INGEST_RECEIVER__HOST="[::]", INGEST_RECEIVER__ADMIN_HOST="::1")
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{receiver.port}/healthz").status_code == httpx.codes.OK
        assert httpx.get(f"http://[::1]:{receiver.admin_port}/readyz").status_code == httpx.codes.OK
    finally:
        receiver.close()
