"""BigQuery by `bqemulator`, which keeps the tables in DuckDB.

It cannot show: quotas (1,500 loads of a table a day), prices, permissions, how long a load job waits for its
turn, and that one of two transactions that change the same table is refused.
"""

import json
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import python_packages, running_server
from tests.destinations.google import service_account, token_endpoint
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
        token_endpoint() as token_url,
    ):
        credentials = folder / "service-account.json"
        credentials.write_text(json.dumps(service_account(_PROJECT, token_url)))
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
            client_modules=("pandas",),
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
