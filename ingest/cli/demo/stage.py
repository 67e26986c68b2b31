"""Sets the stage: a folder with settings for four accounts, and `ingest up` running in it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import tomlkit

from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.settings import Settings
from ingest.settings.sources import load_settings, secrets_path
from ingest.simulator.dialect import Dialect, load_dialect
from ingest.vendors import vendor_names

_MARK = "made-by-ingest-demo"
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_PRIVATE = 0o600


class Stage:
    """One account per vendor, named after it; ports and secrets of its own, so that demos do not meet."""

    def __init__(self, folder: Path, log: str = "", *, workers: int = 1) -> None:
        """Raises ConfigurationError when the folder is somebody else's."""
        self.folder = folder.absolute()
        _empty(self.folder)
        port, admin_port, consumer_port = _free_ports(3)
        url = f"http://127.0.0.1:{port}"
        self.dialects: Mapping[str, Dialect] = {
            vendor: load_dialect(vendor)(f"{url}/webhooks/{vendor}/{vendor}", secrets.token_urlsafe(24)) for vendor in vendor_names()
        }
        self.config = self.folder / "ingest.toml"
        run = secrets.token_hex(4)
        self._write(
            {
                "public_url": url,
                "log": log or f"sqlite:///{self.folder}/log.db",
                "topic_prefix": f"demo-{run}",
                "receiver": {"port": port, "admin_port": admin_port, "workers": workers},
                "consumer": {"admin_port": consumer_port, "group": f"demo-{run}"},
                "warehouse": {"credentials": f"{self.folder}/warehouse.duckdb", "work_dir": f"{self.folder}/dlt"},
                "accounts": {name: dict(dialect.settings()) for name, dialect in self.dialects.items()},
            }
        )
        self.settings: Settings = load_settings(str(self.config), environ={})

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """`ingest up`, from accepting webhooks to a clean stop; its log lines go to `up.log`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
        with (self.folder / "up.log").open("wb") as lines:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest", "up", "--config", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=lines, stderr=lines, env=environment, start_new_session=True,
            )  # fmt: skip
            try:
                self._wait_until_accepting(process)
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(_STOP_SECONDS)

    def _wait_until_accepting(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.settings.public_url}/healthz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise WarehouseUnavailable(f"the receiver did not start; {self.folder}/up.log says why")

    def _write(self, settings: Mapping[str, object]) -> None:
        own = {name: {"webhook_secrets": [dialect.secret]} for name, dialect in self.dialects.items()}
        self.config.write_text(tomlkit.dumps(settings), encoding="utf-8")
        private = secrets_path(self.config)
        private.touch(_PRIVATE)
        private.write_text(tomlkit.dumps({"accounts": own}), encoding="utf-8")


def _empty(folder: Path) -> None:
    """Only what a demo made, or nothing at all, may be emptied."""
    mark = folder / _MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise ConfigurationError(f"{folder} is not a demo's folder: name an empty one with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    mark.touch()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
