"""Deliveries through a real nginx, configured as the README says."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fuzz.accounts import ACCOUNTS, Sample, booking_sample, build_account, environment
from tests.receivers.in_process import stored
from tests.receivers.requests import Request
from tests.receivers.running import Receiver, post, unused_port
from tests.receivers.test_refusals import signed_for
from tests.support.polling import PATIENCE, wait_for

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
README = (Path(__file__).parents[2] / "README.md").read_text()
pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed")

PUBLIC_URL = "https://hooks.example.com/bookings"
LIVE = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {servers}
}}
"""


@contextmanager
def nginx(folder: Path, servers: str) -> Iterator[None]:
    """Run nginx with these servers, in a folder of its own."""
    folder.mkdir()
    (folder / "nginx.conf").write_text(LIVE.format(servers=servers))
    assert NGINX
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], stderr=stderr
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def from_readme(port: str, receiver: int) -> str:
    """Return the README's example without TLS, with the ports of a test."""
    (example,) = re.findall(r"```nginx\n(.*?)```", README, re.DOTALL)
    example = re.sub(r" *ssl_certificate.*\n", "", example)
    return str(
        example.replace("127.0.0.1:8080", f"127.0.0.1:{receiver}").replace(
            "listen 443 ssl", f"listen 127.0.0.1:{port}"
        )
    )


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    settings = environment() | {"INGEST_PUBLIC_URL": PUBLIC_URL, "INGEST_RECEIVER__HEAD_TIMEOUT": "1s"}
    with closing(Receiver(tmp_path_factory.mktemp("nginx"), **settings)) as running:
        yield running


def _deliver(client: httpx.Client, original: Sample, path: str, message_id: str) -> int:
    headers = signed_for(
        f"{PUBLIC_URL}{original.path}", original.account, original.query, original.body, message_id
    )
    return post(
        client, Request(path + original.path, tuple(headers), (original.body,), original.query)
    ).status_code


def _listens(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


PASSED_ON = "proxy_pass http://receiver;"
STRIPPED = "proxy_pass http://receiver/;"


@pytest.mark.parametrize("proxy_pass", [PASSED_ON, STRIPPED], ids=["passed-on", "stripped"])
def test_every_vendors_deliveries_arrive_whether_the_path_is_stripped_or_not(
    receiver: Receiver, tmp_path: Path, proxy_pass: str, request: pytest.FixtureRequest
) -> None:
    port = unused_port()
    servers = from_readme(port, receiver.port)
    assert PASSED_ON in servers
    with (
        nginx(tmp_path / "nginx", servers.replace(PASSED_ON, proxy_pass)),
        httpx.Client(timeout=PATIENCE) as client,
    ):
        client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        wait_for(lambda: _listens(port), "nginx listens")
        for table in ACCOUNTS.values():
            original = booking_sample(table["vendor"])
            before = len(stored(receiver.log, f"bookings.{table['vendor']}"))
            assert (table["vendor"], _deliver(client, original, "/bookings", request.node.callspec.id)) == (
                table["vendor"],
                202,
            )
            records = stored(receiver.log, f"bookings.{table['vendor']}")
            assert [record.value for record in records[before:]] == [original.body]
        assert client.get("/bookings/healthz").text == "ok\n"
        assert client.get("/bookings/metrics").status_code == 404
        assert client.get("/healthz").status_code == 404, "nginx passes on what is below the path only"


def test_a_connection_that_nginx_keeps_takes_a_delivery_after_the_time_that_a_head_may_take(
    receiver: Receiver, tmp_path: Path
) -> None:
    port = unused_port()
    original = booking_sample("calendly")
    with (
        nginx(tmp_path / "nginx", from_readme(port, receiver.port)),
        httpx.Client(timeout=PATIENCE) as client,
    ):
        client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        wait_for(lambda: _listens(port), "nginx listens")
        for _ in range(3):
            assert _deliver(client, original, "/bookings", "m1") == 202
            with socket.create_connection(("127.0.0.1", receiver.port), timeout=PATIENCE) as idle:
                assert idle.recv(1) == b"", "the time that a head may take is over"
    assert "upstream" not in (tmp_path / "nginx" / "stderr").read_text(), (
        "nginx had nothing to say of closed connections"
    )


def test_a_proxy_that_joins_or_doubles_slashes_is_told(receiver: Receiver, tmp_path: Path) -> None:
    port = unused_port()
    wrong = (
        from_readme(port, receiver.port)
        .replace("location /bookings/", "location /bookings")
        .replace(PASSED_ON, STRIPPED)
    )
    with nginx(tmp_path / "nginx", wrong), httpx.Client(timeout=PATIENCE) as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        wait_for(lambda: _listens(port), "nginx listens")
        assert _deliver(client, booking_sample("oncehub"), "/bookings", "m1") == 404
    assert build_account("support").source in receiver.written()
    assert "another slash" in receiver.written()
