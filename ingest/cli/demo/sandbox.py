"""Prepares a folder with settings for simulated accounts, and runs `ingest` in it."""

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
from pathlib import Path

import httpx
import tomlkit

from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.locks import HeldLock, exclusive
from ingest.settings import Settings
from ingest.settings.sources import load_settings, secrets_path
from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.server import RestServer
from ingest.simulator.world import World
from ingest.vendors import vendor_names

_MARKER, _LOCK = "made-by-ingest-demo", "lock"
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_PRIVATE = 0o600


class Sandbox:
    """The settings of a demo: one account per vendor, named after it, on free ports."""

    def __init__(
        self, folder: Path, log: str = "", *, workers: int = 1, seed: int = 1, vendors: Sequence[str] = ()
    ) -> None:
        """Take the vendors to simulate, or all. Raises ConfigurationError when the folder has other files."""
        self.folder = folder.absolute()
        self._lock = _claim(self.folder)  # held until this process ends
        port, admin_port, consumer_port, reconcile_port, dashboard_port, vendors_port = _free_ports(6)
        url = f"http://127.0.0.1:{port}"
        simulated = {name: load_simulated_vendor(name) for name in vendors or vendor_names()}
        self.accounts: Mapping[str, SimulatedAccount] = {
            name: vendor.account(f"{url}/webhooks/{name}/{name}", secrets.token_urlsafe(24))
            for name, vendor in simulated.items()
        }
        self.world = World({name: account.capabilities for name, account in self.accounts.items()}, seed)
        apis = {
            name: vendor.api(self.accounts[name], self.world.meetings[name])
            for name, vendor in simulated.items()
        }
        self.server = RestServer(apis, port=vendors_port)
        self.config = self.folder / "ingest.toml"
        run = secrets.token_hex(4)
        self._write_settings(
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
                "dashboard": {"port": dashboard_port},
                "warehouse": {
                    "credentials": f"{self.folder}/warehouse.duckdb",
                    "work_dir": f"{self.folder}/dlt",
                },
                "reconcile": {
                    "lag": "0s",
                    "admin_port": reconcile_port,
                    "state_dir": f"{self.folder}/reconcile",
                },
            }
        )
        self.settings: Settings = load_settings(str(self.config), environ={})
        if outside := [
            name for name, path in self.settings.paths().items() if not path.is_relative_to(self.folder)
        ]:
            raise ConfigurationError(f"the demo would use files outside of its folder: {', '.join(outside)}")

    def _write_settings(self, sections: Mapping[str, object]) -> None:
        """Write the settings file with these sections and the accounts, and the file of secrets."""
        accounts, account_secrets = {}, {}
        for name, account in self.accounts.items():
            accounts[name] = {**account.settings(), "api_url": self.server.api_url(name)}
            account_secrets[name] = {
                "webhook_secrets": [account.secret],
                **self.server.apis[name].settings(),
            }
        self.config.write_text(tomlkit.dumps({**sections, "accounts": accounts}), encoding="utf-8")
        path = secrets_path(self.config)
        path.touch(_PRIVATE)
        path.write_text(tomlkit.dumps({"accounts": account_secrets}), encoding="utf-8")

    @contextmanager
    def running(self) -> Iterator["Processes"]:
        """Run the REST APIs, a consumer and a receiver; on entry webhooks are accepted."""
        processes = Processes(self.config, self.settings.public_url)
        with self.server.serving():
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


class Processes:
    """Runs `ingest` commands with one settings file; each logs to `<command>.log` beside it."""

    def __init__(self, config: Path, url: str) -> None:
        self._config = config
        self._url = url
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, command: str) -> None:
        """Start a command, which ends with this process, however this process ends."""
        with (self._config.parent / f"{command}.log").open("ab") as log:
            self._running[command] = subprocess.Popen(
                self._command_line(command, "--with-parent"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )

    def stop(self, command: str) -> None:
        """Stop a command cleanly and wait until it has ended."""
        if process := self._running.pop(command, None):
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """Kill all commands, because a demo that is given up has nothing to save."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command until it ends, and return its output."""
        return subprocess.run(
            self._command_line(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )

    def wait_until_accepting(self) -> None:
        """Wait until webhooks are accepted. Raises WarehouseUnavailable when a command did not start."""
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

    def _command_line(self, *command: str) -> list[str]:
        return [sys.executable, "-m", "ingest", *command, "--config", str(self._config)]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}


def _claim(folder: Path) -> HeldLock:
    """Empty a demo's folder and lock it for this process.

    Raises ConfigurationError for a folder that is not a demo's, and for one that another demo is using.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise ConfigurationError(f"{folder} is not a demo's folder: name an empty one with --folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = exclusive(
        folder / _LOCK,
        0,
        lambda _: ConfigurationError(
            f"another demo is running in {folder}: wait until it ends, or name another folder with --folder"
        ),
    )
    (folder / _MARKER).touch()
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in {_MARKER, _LOCK}:
            entry.unlink()
    return lock


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that the system gives to connections.

    A connection with the port of a receiver that is stopped would not let the receiver start again.
    """
    ports: list[int] = []
    candidates = iter(secrets.SystemRandom().sample(range(10_000, 20_000), 10_000))
    while len(ports) < count:
        port = next(candidates)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports
