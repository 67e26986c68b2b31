"""Deliveries over TLS through real proxies, configured by the files in deploy/proxy."""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.tools import python_tool
from tests.fuzz.accounts import ACCOUNTS, Sample, booking_sample, environment
from tests.receivers.in_process import stored
from tests.receivers.running import Receiver
from tests.receivers.test_refusals import signed_for
from tests.support.polling import PATIENCE, wait_for
from tests.support.ports import free_port
from tests.support.processes import IngestProcess
from tests.support.processes import environment as process_environment

FOLDER = Path(__file__).parents[2] / "deploy" / "proxy"
HOST = "hooks.example.com"
PROXIES = ("nginx", "caddy", "traefik")
PATHS = {"": "no-path", "/bookings": "path"}


@dataclass(frozen=True, slots=True)
class Site:
    """A receiver behind a proxy, and the client that reaches it as a vendor does."""

    receiver: Receiver
    client: httpx.Client
    url: str
    proxy: IngestProcess

    def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        """Send a request to the proxy."""
        request = self.client.build_request(method, path, **options)  # type: ignore[arg-type]
        request.headers["Host"] = HOST
        request.extensions["sni_hostname"] = HOST
        return self.client.send(request)

    def deliver(self, sample: Sample, message_id: str, body: bytes = b"") -> int:
        """Deliver a vendor's sample, or another body from the same vendor, and return the status."""
        body = body or sample.body
        signed = signed_for(f"{self.url}{sample.path}", sample.account, sample.query, body, message_id)
        target = httpx.URL(self.url).path.rstrip("/") + sample.path
        query = f"?{sample.query}" if sample.query else ""
        return self.ask("POST", f"{target}{query}", headers=signed, content=body).status_code


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a self-signed certificate for the host, hooks.pem, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}"),
        *("-addext", f"subjectAltName=DNS:{HOST}", "-keyout", "hooks.key", "-out", "hooks.pem"),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=[(proxy, path) for proxy in PROXIES for path in PATHS], ids=str)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Path
) -> Iterator[Site]:
    name, path = request.param
    folder = tmp_path_factory.mktemp(name)
    url = f"https://{HOST}{path}"
    settings = environment() | {
        "INGEST_PUBLIC_URL": url,
        "INGEST_RECEIVER__HEAD_TIMEOUT": "1s",
        "INGEST_RECEIVER__KEEP_ALIVE": "2s",
    }
    with ExitStack() as running:
        receiver = running.enter_context(closing(Receiver(folder, **settings)))
        port = free_port()
        command = _CONFIGURE[name](folder, certificate, path, {"443": port, "8080": receiver.port})
        proxy = running.enter_context(
            IngestProcess(folder, name, command, process_environment(HOME=str(folder)))
        )
        context = ssl.create_default_context(cafile=certificate / "hooks.pem")
        client = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=PATIENCE)
        site = Site(receiver, running.enter_context(client), url, proxy)
        wait_for(lambda: _is_healthy(site, path), f"{name} passes on")
        yield site


def _is_healthy(site: Site, path: str) -> bool:
    assert site.proxy.running, site.proxy.written()
    try:
        return site.ask("GET", f"{path}/healthz").is_success
    except httpx.TransportError:
        return False


def _nginx(folder: Path, certificate: Path, path: str, ports: dict[str, int]) -> list[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    text = (FOLDER / "nginx.conf").read_text()
    text = text.replace("location /webhooks/", f"location {path}/webhooks/")
    text = text.replace("location = /healthz", f"location = {path}/healthz")
    text = text.replace("/etc/ssl", str(certificate)).replace("127.0.0.1:8080", f"127.0.0.1:{ports['8080']}")
    text = text.replace("listen 443", f"listen 127.0.0.1:{ports['443']}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}"
        f" http {{ access_log off; {paths} {text} }}"
    )
    return [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]


def _caddy(folder: Path, certificate: Path, path: str, ports: dict[str, int]) -> list[str]:
    program = shutil.which("caddy")
    if not program:
        pytest.skip("caddy is not installed")
    text = (FOLDER / "Caddyfile").read_text()
    text = text.replace("path /webhooks/* /healthz", f"path {path}/webhooks/* {path}/healthz")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{ports['8080']}")
    text = text.replace(
        "{\n\tservers", "{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n\tservers"
    )
    tls = f"tls {certificate / 'hooks.pem'} {certificate / 'hooks.key'}"
    text = text.replace(f"\n{HOST} {{\n", f"\nhttps://{HOST}:{ports['443']} {{\n\t{tls}\n")
    (folder / "Caddyfile").write_text(text)
    return [program, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


def _traefik(folder: Path, certificate: Path, path: str, ports: dict[str, int]) -> list[str]:
    static = yaml.safe_load((FOLDER / "traefik.yaml").read_text())
    static["entryPoints"]["websecure"]["address"] = f"127.0.0.1:{ports['443']}"
    static["providers"]["file"]["filename"] = str(folder / "routes.yaml")
    del static["certificatesResolvers"]
    text = (FOLDER / "traefik-bookings.yaml").read_text()
    text = text.replace("(`/webhooks", f"(`{path}/webhooks").replace("(`/healthz", f"(`{path}/healthz")
    routes = yaml.safe_load(text.replace("127.0.0.1:8080", f"127.0.0.1:{ports['8080']}"))
    routes["http"]["routers"]["bookings"]["tls"] = {}
    files = {"certFile": str(certificate / "hooks.pem"), "keyFile": str(certificate / "hooks.key")}
    routes["tls"] = {"stores": {"default": {"defaultCertificate": files}}}
    (folder / "traefik.yaml").write_text(json.dumps(static))  # which is YAML
    (folder / "routes.yaml").write_text(json.dumps(routes))
    return [str(python_tool("traefik", "proxy")), "--configFile=traefik.yaml"]


_CONFIGURE = {"nginx": _nginx, "caddy": _caddy, "traefik": _traefik}


def test_every_vendors_deliveries_arrive_byte_for_byte(site: Site) -> None:
    for table in ACCOUNTS.values():
        sample, topic = booking_sample(table["vendor"]), f"bookings.{table['vendor']}"
        before = len(stored(site.receiver.log, topic))
        assert (table["vendor"], site.deliver(sample, "m1")) == (table["vendor"], 202)
        assert [record.value for record in stored(site.receiver.log, topic)[before:]] == [sample.body]


def test_nothing_else_is_passed_on(site: Site) -> None:
    path = httpx.URL(site.url).path.rstrip("/")
    for other in ("/", "/metrics", "/readyz", f"{path}/metrics", "/elsewhere/webhooks/calendly/sales"):
        assert (other, site.ask("GET", other).status_code) == (other, 404)
    assert "request.refused" not in site.receiver.written(), "the proxy answered"


def test_the_receiver_itself_refuses_a_body_that_is_too_large(site: Site) -> None:
    sample = booking_sample("calendly")
    assert site.deliver(sample, "m2", b" " * 1024**2) == 202, "as large as allowed: a dead letter"
    assert site.deliver(sample, "m3", b" " * (1024**2 + 1)) == 413
    assert site.receiver.logged("delivery.too_large")


def test_a_delivery_arrives_after_the_receiver_has_closed_idle_connections(site: Site) -> None:
    sample = booking_sample("calendly")
    assert site.deliver(sample, "m4") == 202
    with socket.create_connection(("127.0.0.1", site.receiver.port), timeout=PATIENCE) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: idle.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 200"), "the receiver has closed connections that were idle so long"
    assert site.deliver(sample, "m5") == 202
