"""Each admin listener is for this machine, or for whoever has its token."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from starlette.types import ASGIApp

from ingest.admin import AllowedHosts, build_admin, check_admin
from ingest.errors import ConfigurationError
from ingest.readiness import ok
from ingest.settings import ReceiverSettings, Settings
from tests.receivers.requests import SECRET
from tests.receivers.running import ANYWHERE, Receiver, receiver_environment
from tests.security.raw import exchange
from tests.support.polling import PATIENCE, get, wait_for
from tests.support.ports import free_port
from tests.support.processes import IngestProcess, ingest, start_ingest

TOKEN = "a-token-of-the-admin-tests"
LISTENERS = {"receiver": ["receive"], "consumer": ["consume"], "reconcile": ["reconcile", "--watch"]}


def _settings(folder: Path, section: str, port: int, **beside: str) -> dict[str, str]:
    """Return settings with an account that reconciliation can ask, in vain, and an open admin listener."""
    return receiver_environment(folder, {
        "INGEST_ACCOUNTS__SALES__API_TOKEN": SECRET,
        "INGEST_ACCOUNTS__SALES__API_URL": "http://127.0.0.1:9",
        f"INGEST_{section.upper()}__ADMIN_HOST": ANYWHERE,
        f"INGEST_{section.upper()}__ADMIN_PORT": str(port),
        **beside,
    })  # fmt: skip


@contextmanager
def _running(folder: Path, section: str, port: int) -> Iterator[IngestProcess]:
    variables = _settings(folder, section, port, **{f"INGEST_{section.upper()}__ADMIN_TOKEN": TOKEN})
    with start_ingest(folder, *LISTENERS[section], **variables) as process:
        wait_for(
            lambda: not process.running or get(f"http://127.0.0.1:{port}/readyz") is not None,
            "the admin listener answers",
        )
        assert process.running, process.written()
        yield process


@pytest.mark.parametrize("section", LISTENERS)
def test_it_does_not_start_where_others_reach_it_without_a_token(tmp_path: Path, section: str) -> None:
    result = ingest(tmp_path, *LISTENERS[section], **_settings(tmp_path, section, 0))
    assert result.code == 2, result.err
    assert f"error: the admin listener on {ANYWHERE} needs {section}.admin_token" in result.err


@pytest.mark.parametrize("section", LISTENERS)
def test_it_tells_nothing_without_its_token(tmp_path: Path, section: str) -> None:
    port = free_port()
    with (
        _running(tmp_path, section, port) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client,
    ):
        wrong = [
            "",
            TOKEN,
            f"Bearer {TOKEN} ",
            f"bearer{TOKEN}",
            f"Bearer {TOKEN}\t",
            f"Basic {TOKEN}",
            "Bearer",
            f"Bearer {TOKEN[:-1]}",
        ]
        for path in ("/readyz", "/metrics"):
            refused = [
                client.get(path),
                client.get(f"{path}?token={TOKEN}"),
                client.get(path, headers={"Cookie": f"token={TOKEN}"}),
            ]
            refused += [
                client.get(path, headers={"Authorization": value})
                for value in wrong
                if value == value.strip()
            ]
            twice = [("Authorization", "Bearer no"), ("Authorization", f"Bearer {TOKEN}")]
            refused.append(client.get(path, headers=twice))
            assert {answer.status_code for answer in refused} == {401}
            assert {answer.text for answer in refused} == {"give the admin token as a bearer token\n"}
            assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code in {200, 503}
        for path in (
            "/",
            "/healthz",
            "/metrics/",
            "/%6detrics/..",
            "/webhooks/calendly/sales",
            "/debug",
            "/readyz/x",
            "//metrics",
        ):
            assert client.get(path).status_code in {401, 404}
    assert TOKEN not in process.written()


@pytest.mark.parametrize(
    "host",
    [
        ANYWHERE,
        "::",
        "0",
        "192.0.2.1",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "127.1",
        "::ffff:192.0.2.1",
        "LOCALHOST.",
        "2130706433",
    ],
)
def test_only_what_is_surely_this_machine_needs_no_token(host: str) -> None:
    with pytest.raises(ConfigurationError, match="admin_token"):
        check_admin(ReceiverSettings(admin_host=host), "receiver")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_this_machine_does_not(host: str) -> None:
    check_admin(ReceiverSettings(admin_host=host), "receiver")


LOOPBACK = [
    "localhost",
    "LOCALHOST:8081",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:8081",
    "[::1]",
    "[::1]:8081",
    "10.1.2.3:8081",
    "[2001:db8::1]:8081",
]
STRANGE = [
    "elsewhere.example", "elsewhere.example:8081", "localhost.elsewhere.example",
    "127.0.0.1.elsewhere.example", "2130706433", "0x7f000001",
    "127.1", "localhost@elsewhere.example", "localhost:80:80", "localhost,elsewhere.example", "",
    "[::1].elsewhere.example", "[localhost]",
    "receiver", "a b", "1.2.3.4.5", "xn--localhost", "localhost/", "localhost:x",
]  # fmt: skip


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_host_that_is_not_its_own_is_answered_421_and_told_nothing(token: str | None) -> None:
    """A page in a browser can reach a loopback listener through a name that points there."""
    app = _listener(token, ["monitoring.example.com"])
    body = "the host name in the URL is not allowed here: add it to consumer.admin_hosts\n"
    for path in ("/readyz", "/metrics", "/"):
        answers = {host: _asked(app, path, host) for host in STRANGE}
        assert answers == dict.fromkeys(STRANGE, (421, body))
    assert _asked(app, "/readyz", "localhost", "elsewhere.example") == (421, body)


def test_its_own_names_any_address_and_those_of_the_settings_are_answered() -> None:
    app = _listener(None, ["monitoring.example.com", "Receiver"])
    for host in (
        *LOOPBACK,
        "monitoring.example.com:8081",
        "MONITORING.example.com",
        "receiver",
        "receiver:8081",
    ):
        status, _ = _asked(app, "/readyz", host)
        assert (host, status) == (host, 200)


def _listener(token: str | None, names: list[str]) -> ASGIApp:
    app = build_admin(lambda: [ok("log", "fine")], SecretStr(token) if token else None)
    return AllowedHosts(app, names, "consumer.admin_hosts")


def _asked(app: ASGIApp, path: str, *hosts: str) -> tuple[int, str]:
    """Return status and body, asked with the token."""
    headers = [*(("Host", host) for host in hosts), ("Authorization", f"Bearer {TOKEN}")]

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            return await client.get(path, headers=headers)

    answer = asyncio.run(ask())
    return answer.status_code, answer.text


@pytest.mark.parametrize("section", LISTENERS)
def test_the_names_are_a_list_in_the_settings_of_each_listener(section: str) -> None:
    settings = Settings.model_validate({section: {"admin_hosts": "monitoring.example.com, receiver"}})
    assert getattr(settings, section).admin_hosts == ("monitoring.example.com", "receiver")
    with pytest.raises(ValidationError, match="not a host"):
        Settings.model_validate({section: {"admin_hosts": ["http://monitoring.example.com"]}})


def test_a_running_listener_knows_its_names(tmp_path: Path) -> None:
    variables = {
        "INGEST_RECEIVER__ADMIN_HOST": "localhost",
        "INGEST_RECEIVER__ADMIN_HOSTS": "receiver.internal",
    }
    with closing(Receiver(tmp_path, **variables)) as receiver:
        for host, status in {
            "receiver.internal": 200,
            "localhost": 200,
            "127.0.0.1": 200,
            "elsewhere.example": 421,
        }.items():
            assert receiver.admin.get("/readyz", headers={"Host": host}).status_code == status
        assert exchange(receiver.admin_port, b"GET /readyz HTTP/1.0\r\n\r\n").came.startswith(b"HTTP/1.1 200")
        public = httpx.get(f"http://127.0.0.1:{receiver.port}/readyz", headers={"Host": "localhost"})
        assert public.status_code == 404
