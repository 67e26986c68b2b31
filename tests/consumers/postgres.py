"""A real PostgreSQL on the loopback, in a folder of its own, that can be stopped and started again."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from tests.support.ports import free_port

_PROGRAMS = ("initdb", "pg_ctl")
# In a zone of its own, so that nobody gets UTC by chance.
_OPTIONS = (
    "-c timezone=JST-9 -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=20 -c"
    " shared_buffers=32MB"
)


def _program(name: str) -> str | None:
    """Return the path of a program: on PATH, or the newest where Debian installs them."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


def missing_programs() -> list[str]:
    """Return the programs that are needed and not installed."""
    return [name for name in _PROGRAMS if _program(name) is None]


class PostgresServer:
    """A server, which runs as its own user for root, because PostgreSQL refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = _other_user()
        self.port = free_port()
        self.url = f"postgresql://ingest:any@127.0.0.1:{self.port}/postgres"
        if self._user:
            os.chown(folder, *self._user)
        self._call(
            "initdb", "--auth=trust", "--username=ingest", "--encoding=UTF8", "--locale=C", "--no-sync"
        )

    def start(self) -> None:
        """Start the server, and return when it answers."""
        options = f"{_OPTIONS} -p {self.port} -k {self._folder}"
        self._call("pg_ctl", "--wait", "--log", str(self._folder / "log"), "--options", options, "start")

    def stop(self) -> None:
        """Stop the server at once, as in a crash."""
        self._call("pg_ctl", "--wait", "--mode=immediate", "stop")

    def demand_password(self, user: str) -> None:
        """Demand a password from a user, once the server has read its configuration again."""
        file = self._folder / "data" / "pg_hba.conf"
        file.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{file.read_text()}")

    def _call(self, name: str, *arguments: str) -> None:
        user, group = self._user or (None, None)
        subprocess.run(
            [_program(name) or name, "-D", str(self._folder / "data"), *arguments],
            check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, user=user, group=group,
            extra_groups=[] if self._user else None,
        )  # fmt: skip


def _other_user() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: (entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server. Its folder is not under pytest's, which other users may not enter."""
    folder = Path(mkdtemp(prefix="ingest-postgres-"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
