"""Sets the stage: a folder with settings for four accounts, the world their vendors tell of, and `ingest` running in it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import httpx
import tomlkit

from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.locks import HeldLock, exclusive
from ingest.settings import Settings
from ingest.settings.sources import load_settings, secrets_path
from ingest.simulator.api import load_rest_dialect
from ingest.simulator.dialect import Dialect, load_dialect
from ingest.simulator.server import RestServer
from ingest.simulator.world import World
from ingest.vendors import vendor_names

_MARK, _LOCK = "made-by-ingest-demo", "lock"
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_PRIVATE = 0o600


class Stage:
    """One account per vendor, named after it; ports and secrets of its own, so that demos do not meet."""

    def __init__(
        self, folder: Path, log: str = "", *, workers: int = 1, seed: int = 1, vendors: Sequence[str] = ()
    ) -> None:
        """Accounts of these vendors, or of all. Raises ConfigurationError when the folder is somebody else's."""
        self.folder = folder.absolute()
        self._lock = _claim(self.folder)  # held until this process ends
        port, admin_port, consumer_port, reconcile_port, vendors_port = _free_ports(5)
        url = f"http://127.0.0.1:{port}"
        self.dialects: Mapping[str, Dialect] = {
            vendor: load_dialect(vendor)(f"{url}/webhooks/{vendor}/{vendor}", secrets.token_urlsafe(24))
            for vendor in vendors or vendor_names()
        }
        self.world = World({name: dialect.habits for name, dialect in self.dialects.items()}, seed)
        self.vendors = RestServer(
            {
                name: load_rest_dialect(name)(dialect, self.world.meetings[name])
                for name, dialect in self.dialects.items()
            },
            port=vendors_port,
        )
        self.config = self.folder / "ingest.toml"
        run = secrets.token_hex(4)
        self._write(
            {
                "public_url": url,
                "log": log or f"sqlite:///{self.folder}/log.db",
                "topic_prefix": f"demo-{run}",
                "receiver": {
                    "port": port,
                    "admin_port": admin_port,
                    "workers": workers,
                    "spool_dir": f"{self.folder}/spool",
                },
                "consumer": {"admin_port": consumer_port, "group": f"demo-{run}"},
                "warehouse": {
                    "credentials": f"{self.folder}/warehouse.duckdb",
                    "work_dir": f"{self.folder}/dlt",
                },
                "reconcile": {
                    "lag": "0s",
                    "admin_port": reconcile_port,
                    "state_dir": f"{self.folder}/reconcile",
                },
                "accounts": {
                    name: {**dialect.settings(), "api_url": self.vendors.api_url(name)}
                    for name, dialect in self.dialects.items()
                },
            }
        )
        self.settings: Settings = load_settings(str(self.config), environ={})
        if strays := [
            name for name, path in self.settings.paths().items() if not path.is_relative_to(self.folder)
        ]:
            raise ConfigurationError(f"the demo would use files outside of its folder: {', '.join(strays)}")

    @contextmanager
    def running(self) -> Iterator["Processes"]:
        """The vendors' REST sides, a consumer and a receiver, from accepting webhooks to a clean stop."""
        processes = Processes(self.config, self.settings.public_url)
        with self.vendors.serving():
            try:
                processes.start("consume")
                processes.start("receive")
                processes.wait_until_accepting()
                yield processes
            except BaseException:
                processes.kill()
                raise
            processes.stop("receive")
            processes.stop("consume")

    def _write(self, settings: Mapping[str, object]) -> None:
        own = {
            name: {"webhook_secrets": [dialect.secret], **self.vendors.accounts[name].settings()}
            for name, dialect in self.dialects.items()
        }
        self.config.write_text(tomlkit.dumps(settings), encoding="utf-8")
        private = secrets_path(self.config)
        private.touch(_PRIVATE)
        private.write_text(tomlkit.dumps({"accounts": own}), encoding="utf-8")


class Processes:
    """`ingest` commands with one settings file; what they log goes to `<command>.log` beside it."""

    def __init__(self, config: Path, url: str) -> None:
        self._config = config
        self._url = url
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, command: str) -> None:
        """Returns at once. It ends with us, whatever becomes of us."""
        with (self._config.parent / f"{command}.log").open("ab") as lines:
            self._running[command] = subprocess.Popen(
                self._line(command, "--with-parent"),
                stdin=subprocess.PIPE,
                stdout=lines,
                stderr=lines,
                env=_environment(),
                start_new_session=True,
            )

    def stop(self, command: str) -> None:
        """A clean stop, waited for."""
        if process := self._running.pop(command, None):
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """End all of them at once: a demo that is given up has nothing to keep."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """To its end; what it says is in the result."""
        return subprocess.run(
            self._line(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )

    def wait_until_accepting(self) -> None:
        """Raises WarehouseUnavailable when one of them did not start."""
        deadline = time.monotonic() + _START_SECONDS
        while (
            all(process.poll() is None for process in self._running.values()) and time.monotonic() < deadline
        ):
            try:
                if httpx.get(f"{self._url}/healthz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise WarehouseUnavailable(
            f"the receiver or the consumer did not start; the logs in {self._config.parent} say why"
        )

    def _line(self, *command: str) -> list[str]:
        return [sys.executable, "-m", "ingest", *command, "--config", str(self._config)]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}


def _claim(folder: Path) -> HeldLock:
    """Empty a demo's folder and keep it for this process. Raises ConfigurationError for a folder of anybody else's, another demo's included."""
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise ConfigurationError(f"{folder} is not a demo's folder: name an empty one with --folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = exclusive(
        folder / _LOCK,
        0,
        lambda _: ConfigurationError(
            f"another demo is running in {folder}: wait until it ends, or name another folder with --folder"
        ),
    )
    (folder / _MARK).touch()
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in {_MARK, _LOCK}:
            entry.unlink()
    return lock


def _free_ports(count: int) -> list[int]:
    """Below those the system gives to connections: one with the port of a receiver that is away would not let it come back."""
    ports = secrets.SystemRandom().sample(range(10_000, 20_000), 10_000)
    return list(islice(filter(_is_free, ports), count))


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
