"""The findings of `check` about the public URL, the clock, ports, disks and folders, with real servers."""

import os
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import httpx
import pytest

from ingest import sockets
from ingest.cli.check.checks import (
    check_clock,
    check_disk,
    check_folders,
    check_listeners,
    check_public_url,
    judge_answer,
    judge_clock,
)
from ingest.errors import ConfigurationError
from ingest.files import find_unusable_file
from ingest.readiness import Finding, State
from ingest.settings import Settings
from receivers.app import site_of
from tests.receivers.running import on_linux
from tests.support.ports import free_port
from tests.support.simulated_vendor import simulated

_NOBODY = 65534
PUBLIC = "https://hooks.example.com"


def settings(**values: object) -> Settings:
    return Settings.model_validate({"public_url": PUBLIC, "receiver": {"port": 0}, **values})


def answer(status: int, text: str = "", **headers: str) -> httpx.Response:
    return httpx.Response(
        status, text=text, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    ("heard", "state", "expected"),
    [
        (
            answer(301, location="https://www.example.com/healthz"),
            State.FAILED,
            "redirects to https://www.example.com/healthz",
        ),
        (answer(308, location="/healthz/"), State.FAILED, "lose what they post to a redirect"),
        (answer(502), State.WARNING, "start `ingest up`"),
        (answer(503), State.WARNING, "its proxy does not reach the receiver"),
        (answer(404, "not here"), State.WARNING, "answers 404 for /healthz"),
        (answer(403), State.WARNING, "answers 403"),
        (answer(200, "<html>welcome</html>"), State.WARNING, "not as a receiver does"),
        (answer(200, "ok\n"), State.WARNING, "does not say that it is this installation"),
    ],
)
def test_what_another_answer_of_the_public_url_means_is_told(
    heard: httpx.Response, state: State, expected: str
) -> None:
    finding = judge_answer(settings(), heard)
    assert finding.state is state
    assert expected in finding.sentence


def test_a_proxy_that_does_not_reach_a_receiver_that_runs_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as running:
        port = running.getsockname()[1]
        finding = judge_answer(settings(receiver={"port": port}), answer(502))
    assert finding.failed
    assert f"let the proxy hand on to 127.0.0.1:{port}" in finding.remedy


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a self-signed certificate for 127.0.0.2."""
    pem = tmp_path / "both.pem"
    names = ["-subj", "/CN=127.0.0.2", "-addext", "subjectAltName=IP:127.0.0.2"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        *names,
        "-keyout",
        str(pem),
        "-out",
        str(tmp_path / "cert.pem"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())
    return pem


def test_a_certificate_that_nobody_trusts_is_a_failure(certificate: Path) -> None:
    """127.0.0.2 is this machine too, and not taken for a try on one machine."""
    port = free_port()
    server = f"""
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(("127.0.0.2", {port}), http.server.BaseHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain({str(certificate)!r})
server.socket = context.wrap_socket(server.socket, server_side=True)
print("there", flush=True)
server.serve_forever()
"""
    with subprocess.Popen(
        [sys.executable, "-c", server], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        [finding] = check_public_url(settings(public_url=f"https://127.0.0.2:{port}"))
        process.kill()
    assert finding.failed
    assert "signed by itself, or by an authority that is not trusted here" in finding.detail


@pytest.mark.parametrize(
    ("url", "state", "expected"),
    [
        ("https://127.0.0.2:{port}", State.WARNING, "cannot be reached from here"),
        ("https://nowhere.invalid", State.WARNING, "the name nowhere.invalid cannot be resolved here"),
        ("http://hooks.example.com", State.FAILED, "vendors deliver to https only"),
        ("http://127.0.0.1:8080", State.WARNING, "fine for a try on one machine"),
    ],
)
def test_a_public_url_that_cannot_be_reached_says_why(url: str, state: State, expected: str) -> None:
    [finding] = check_public_url(settings(public_url=url.format(port=free_port())))
    assert finding.state is state
    assert expected in finding.sentence


@pytest.mark.parametrize(
    ("ahead", "state", "expected"),
    [
        (0.0, State.OK, "agrees with api.example.com"),
        (42.0, State.WARNING, "42 s ahead of that of api.example.com"),
        (-42.0, State.WARNING, "42 s behind"),
        (-400.0, State.FAILED, "as if sent in the future, and are refused"),
        (4000.0, State.FAILED, "look old"),
    ],
)
def test_how_far_the_clock_is_off_is_told(ahead: float, state: State, expected: str) -> None:
    finding = judge_clock("api.example.com", timedelta(seconds=ahead))
    assert finding.state is state
    assert expected in finding.detail


def test_the_clock_is_compared_with_a_vendors(tmp_path: Path) -> None:
    with simulated("calendly", tmp_path) as side:
        account = {
            "vendor": "calendly",
            "api_url": side.server.api_url("sales"),
            "api_token": "for tests",
            "webhook_secrets": ["for tests"],
        }
        [finding] = check_clock(settings(accounts={"sales": account}))
    assert finding == Finding("clock", State.OK, "it agrees with 127.0.0.1")
    assert check_clock(settings())[0].state is State.SKIPPED


@on_linux
def test_another_programs_port_is_named_with_its_command() -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(port)], stderr=subprocess.DEVNULL
    ) as other:
        try:
            while sockets.find_port_owner(port) is None:
                assert other.poll() is None
            [finding] = check_listeners(settings(receiver={"port": port}))
        finally:
            other.kill()
    assert finding.failed
    assert f"receiver.port {port} is used by pid {other.pid} (" in finding.detail
    assert f"-m http.server -b 127.0.0.1 {port})" in finding.detail


def test_a_host_that_is_not_this_machines_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 203\.0\.113\.1"):
        check_listeners(settings(receiver={"host": "203.0.113.1", "port": free_port()}))


@pytest.mark.parametrize(
    ("free", "state", "expected"),
    [
        (50 << 30, State.OK, "50.0 GiB free"),
        (500 << 20, State.WARNING, "500 MiB free"),
        (5 << 20, State.FAILED, "deliveries are refused"),
    ],
)
def test_a_disk_that_is_nearly_full_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: State, expected: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    [finding] = check_disk(settings(log=f"sqlite:///{tmp_path}/log.db"))
    assert finding.state is state
    assert expected in finding.sentence


def test_a_folder_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"reconcile\.state_dir .*occupied"):
        check_folders(settings(reconcile={"state_dir": f"{tmp_path}/occupied"}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_a_run_as_root_left_behind_is_told_to_who_runs_it_now() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        leftover = Path(folder) / "sales.json"
        leftover.touch(mode=0o600)
        assert find_unusable_file(Path(folder)) is None
        os.seteuid(_NOBODY)
        try:
            finding = find_unusable_file(Path(folder))
        finally:
            os.seteuid(0)
    assert finding == leftover


def test_sites_differ_by_what_makes_them_one() -> None:
    assert site_of(settings()) == site_of(settings(receiver={"port": 1}))
    assert (
        len(
            {
                site_of(settings()),
                site_of(settings(topic_prefix="other")),
                site_of(settings(public_url="https://a.example.com")),
            }
        )
        == 3
    )
