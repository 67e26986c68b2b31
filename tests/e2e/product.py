"""`ingest up` in a folder of its own with an account at each vendor, and the vendors that deliver to it."""

import asyncio
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import tomlkit

from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.settings.sources import load_settings
from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.simulation import Chaos, DeliveryStats, Pace, Sender, run_simulation
from ingest.simulator.world import World
from ingest.vendors import vendor_names
from ingest.warehouse.query import query
from tests.e2e.processes import Process, descendants, eventually
from tests.ingest.cli.command import COMMAND, PATIENCE, environment
from tests.kafka.broker import free_port

SECRET = "one-that-only-these-tests-use"

_CONFIG = """\
public_url = "http://127.0.0.1:{port}"
log = "{log}"
topic_prefix = "{name}"
[receiver]
port = {port}
admin_port = 0
workers = {workers}
[consumer]
admin_port = 0
group = "{name}"
"""


def account_name(vendor: str) -> str:
    """Return the name of the account at a vendor."""
    return f"{vendor}_sales"


class Product:
    """An installation: its settings, with one account per vendor, and its warehouse."""

    def __init__(
        self, folder: Path, *, log: str = "sqlite:///data/log.db", name: str = "bookings", workers: int = 1
    ) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.accounts: Mapping[str, SimulatedAccount] = {
            account_name(vendor): load_simulated_vendor(vendor).account(
                f"{self.url}/webhooks/{vendor}/{account_name(vendor)}", SECRET
            )
            for vendor in vendor_names()
        }
        config = _CONFIG.format(port=port, log=log, name=name, workers=workers)
        tables = (
            f"[accounts.{name}]\n{tomlkit.dumps(account.settings())}"
            for name, account in self.accounts.items()
        )
        (folder / "ingest.toml").write_text(config + "".join(tables))
        secrets = folder / "ingest.secrets.toml"
        secrets.touch(0o600)
        secrets.write_text(
            "".join(f'[accounts.{name}]\nwebhook_secrets = ["{SECRET}"]\n' for name in self.accounts)
        )

    @property
    def settings(self) -> Settings:
        """The settings of a process that is started in the folder, with absolute paths."""
        paths = {
            "INGEST_WAREHOUSE__CREDENTIALS": str(self.folder / "data" / "warehouse.duckdb"),
            "INGEST_WAREHOUSE__WORK_DIR": str(self.folder / "data" / "dlt"),
        }
        return load_settings(str(self.folder / "ingest.toml"), paths)

    def world(self, seed: int = 1) -> World:
        """Return a world of these accounts."""
        return World({name: account.capabilities for name, account in self.accounts.items()}, seed)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query; none while there is no warehouse."""
        try:
            answer = query(self.settings, sql)
        except IngestError:
            return []
        return answer.dicts()

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        rows = self.query(f"select count(*) as n from {table}")
        return rows[0]["n"] if rows else 0

    def launch(self) -> "Up":
        """Start `ingest up` without waiting for it."""
        return Up(self)

    @contextmanager
    def running(self) -> Iterator["Up"]:
        """Run `ingest up`, and check that it stops cleanly: exit code 0, and no process left."""
        up = self.launch()
        try:
            up.wait_until_accepting()
            yield up
            family = up.family()
            up.process.send_signal(signal.SIGTERM)
            assert up.process.wait(PATIENCE) == 0, up.log_tail()
            assert [process for process in family if process.alive] == []
        finally:
            up.end()


class Up:
    """A running `ingest up`, which logs to `up.log`."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._log = product.folder / "up.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "up"],
                cwd=product.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until_accepting(self) -> None:
        """Wait until the receiver answers and the consumer has made its tables."""
        eventually(self._accepts, "the receiver answers")
        eventually(lambda: self._product.query("select count(*) from bookings"), "the tables are made")

    def family(self) -> list[Process]:
        """Return all processes that it started, while it runs."""
        return descendants(self.process.pid) if self.process.poll() is None else []

    def child(self, command: str) -> Process | None:
        """Return the process that runs this command now."""
        return next((process for process in self.family() if f"-m ingest {command}" in process.command), None)

    def log_tail(self) -> str:
        """Return the end of its log, for the message of a failure."""
        return self._log.read_text(encoding="utf-8")[-5000:]

    def end(self) -> None:
        """Kill it, and wait until its children, which end when it is gone, have ended."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        eventually(lambda: not any(process.alive for process in family), "the children leave")

    def _accepts(self) -> bool:
        assert self.process.poll() is None, self.log_tail()
        try:
            return httpx.get(f"{self._product.url}/healthz").is_success
        except httpx.TransportError:
            return False


class DeliveringVendors:
    """Simulated vendors that deliver from another thread until they are stopped."""

    def __init__(self, product: Product, rate: float) -> None:
        self.world = product.world()
        self._sender = Sender(Chaos(duplicated=0.1, delayed=0.3, delay=1.0))
        self._product, self._rate = product, rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._deliver()), name="vendors")

    @property
    def stats(self) -> DeliveryStats:
        """The results so far."""
        return self._sender.stats

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more webhooks were accepted."""
        enough = self.stats.webhooks + count
        eventually(lambda: self.stats.webhooks >= enough, f"{count} more webhooks are accepted")

    def stop(self) -> None:
        """Make no more changes, and wait until every webhook was accepted or given up."""
        self._stopping.set()
        self._thread.join()

    async def _deliver(self) -> None:
        await run_simulation(
            self.world,
            self._product.accounts,
            self._sender,
            Pace(self._rate, seconds=240),
            self._stopping.is_set,
        )
        await self._sender.close()


@contextmanager
def delivering(product: Product, rate: float = 20) -> Iterator[DeliveringVendors]:
    """Deliver the webhooks of a world at this rate a second, some twice and some late."""
    vendors = DeliveringVendors(product, rate)
    vendors.start()
    try:
        yield vendors
    finally:
        vendors.stop()
