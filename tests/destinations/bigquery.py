"""BigQuery by `bqemulator`, which keeps the tables in DuckDB.

It cannot show: quotas (1,500 loads of a table a day), prices, permissions, how long a load job waits for its
turn, and that one of two transactions that change the same table is refused.
"""

import json
import platform
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import python_packages, running_server
from tests.support.ports import free_port
from tests.support.processes import ROOT

_PROJECT = "emulated"
_DUCKDB = "1.5.5"
_PACKAGES = ("bqemulator==1.4.0", f"duckdb=={_DUCKDB}", f"duckdb-extension-spatial=={_DUCKDB}")


@contextmanager
def running_bigquery(folder: Path) -> Iterator[Destination]:
    """Run the emulator, and the endpoint where Google's client asks for a token."""
    packages = python_packages("bqemulator", *_PACKAGES)
    port, grpc_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.destinations.programs.bqemulator", "start", "--project", _PROJECT]
    command += ["--rest-port", str(port), "--grpc-port", str(grpc_port)]
    environ = {"PYTHONPATH": f"{packages}:{ROOT}", "HOME": str(_home_with_extension(folder, packages))}
    with (
        running_server(folder, "bqemulator", command, f"{url}/healthz", **environ),
        _token_endpoint() as token_url,
    ):
        credentials = _service_account(folder, token_url)
        yield Destination(
            {"destination": "bigquery"},
            lambda table: _read(url, table),
            {
                "BIGQUERY_EMULATOR_HOST": url,
                "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
                "GOOGLE_CLOUD_PROJECT": _PROJECT,
                # A job that is asked for again after 15 s would be done again here, unlike in BigQuery.
                "DESTINATION__BIGQUERY__HTTP_TIMEOUT": "300",
            },
        )


def _read(url: str, table: str) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own affair
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        with bigquery.Client(
            _PROJECT, AnonymousCredentials(), client_options={"api_endpoint": url}
        ) as client:
            rows = client.query_and_wait(f"SELECT * FROM ingest.{table}")
            return [dict(row.items()) for row in rows]


def _home_with_extension(folder: Path, packages: Path) -> Path:
    """Return a home in which DuckDB finds its extension, which it would download."""
    machine = {"aarch64": "arm64"}.get(platform.machine(), "amd64")
    home = folder / "home"
    extensions = home / f".duckdb/extensions/v{_DUCKDB}/linux_{machine}"
    extensions.mkdir(parents=True)
    name = "spatial.duckdb_extension"
    (extensions / name).symlink_to(packages / f"duckdb_extension_spatial/extensions/v{_DUCKDB}/{name}")
    return home


def _service_account(folder: Path, token_url: str) -> Path:
    """Write the key of a service account whose tokens come from this URL."""
    key = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True).stdout
    file = folder / "service-account.json"
    account = {"type": "service_account", "project_id": _PROJECT, "client_email": "ingest@example.com"}
    file.write_text(json.dumps({**account, "private_key": key, "token_uri": token_url}))
    return file


@contextmanager
def _token_endpoint() -> Iterator[str]:
    """Give every client a token, and return the URL."""

    class Tokens(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b'{"access_token": "any", "expires_in": 3600, "token_type": "Bearer"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        thread = threading.Thread(target=server.serve_forever, name="tokens")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()
