"""MariaDB by dlt's SQLAlchemy destination: the way of a destination that is not in the tested list."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import create_connection
from tempfile import TemporaryDirectory
from typing import Any

from ingest.simulator.account import Row
from tests.destinations.destination import Destination
from tests.destinations.environments import python_packages, unavailable
from tests.support.polling import wait_for
from tests.support.ports import free_port
from tests.support.processes import ROOT, IngestProcess, environment


@contextmanager
def running_mariadb(folder: Path) -> Iterator[Destination]:
    """Run a server. Its folder is not under pytest's, which other users may not enter."""
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if not server:
        unavailable("MariaDB is not installed: install mariadb-server")
    packages = python_packages("mariadb", "pymysql==1.2.4", "sqlalchemy==2.1.9")
    port = free_port()
    with TemporaryDirectory(prefix="ingest-mariadb-") as home:
        user = _prepare(home)
        options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home}/socket", "--skip-log-bin"]
        options += ["--character-set-server=utf8mb4", "--innodb-flush-log-at-trx-commit=0"]
        command = [server, *_options(home, user), *options]
        with IngestProcess(folder, "mariadb", command, environment()) as process:

            def answers() -> bool:
                assert process.running, process.written()[-3000:]
                with suppress(OSError), create_connection(("127.0.0.1", port)):
                    return True
                return False

            wait_for(answers, "MariaDB answers")
            yield Destination(
                {"destination": "sqlalchemy", "untested": True},
                lambda table: _query(packages, port, f"select * from ingest.{table}"),
                {
                    "INGEST_WAREHOUSE__CREDENTIALS": f"mysql+pymysql://root@127.0.0.1:{port}/mysql",
                    "PYTHONPATH": f"{packages}:{ROOT}",
                },
                longest_text=65_535,
            )


def _prepare(home: str) -> str:
    """Make the server's tables, and return the user that it runs as."""
    user = pwd.getpwnam("mysql") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(home, user.pw_uid, user.pw_gid)
    further = ["--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(
        ["mariadb-install-db", *_options(home, user.pw_name), *further], check=True, capture_output=True
    )
    return user.pw_name


def _options(home: str, user: str) -> list[str]:
    return ["--no-defaults", f"--datadir={home}/data", f"--tmpdir={home}", f"--user={user}"]


def _query(packages: Path, port: int, sql: str) -> list[Row]:
    """Return the rows of a query by MariaDB's client, which has instants without their zone."""
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
    import pymysql
    from pymysql.cursors import DictCursor

    with closing(
        pymysql.connect(host="127.0.0.1", port=port, user="root", cursorclass=DictCursor)
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        return [{name: _with_zone(value) for name, value in row.items()} for row in cursor.fetchall()]


def _with_zone(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
