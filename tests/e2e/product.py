"""`ingest up` in a folder of its own with an account at each vendor, and the vendors that deliver to it."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.settings.sources import load_settings
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.simulation import Chaos, DeliveryStats, Pace, Sender, run_simulation
from ingest.simulator.world import World
from ingest.vendors import vendor_names
from ingest.warehouse.query import query
from tests.support.accounts import SECRET, simulated_account
from tests.support.polling import is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.processes import COMMAND, IngestProcess, environment
from tests.support.settings import write_settings


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
            account_name(vendor): simulated_account(vendor, self.url, account_name(vendor))
            for vendor in vendor_names()
        }
        tree = {
            "public_url": self.url,
            "log": log,
            "topic_prefix": name,
            "receiver": {"port": port, "admin_port": 0, "workers": workers},
            "consumer": {"admin_port": 0, "group": name},
            "dashboard": {"port": 0},
        }
        tables = {
            name: {**account.settings(), "webhook_secrets": [SECRET]}
            for name, account in self.accounts.items()
        }
        write_settings(folder, tree | {"accounts": tables})

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
            assert up.stop() == 0, up.log_tail()
            assert [process for process in family if process.alive] == []
        finally:
            up.close()


class Up(IngestProcess):
    """A running `ingest up`."""

    def __init__(self, product: Product) -> None:
        self._product = product
        super().__init__(product.folder, "up", [*COMMAND, "up"], environment())

    def wait_until_accepting(self) -> None:
        """Wait until the receiver answers and the consumer has made its tables."""
        wait_for(self._accepts, "the receiver answers")
        wait_for(lambda: self._product.query("select count(*) from bookings"), "the tables are made")

    def log_tail(self) -> str:
        """Return the end of its log, for the message of a failure."""
        return self.stderr()[-5000:]

    def _accepts(self) -> bool:
        assert self.running, self.log_tail()
        return is_healthy(self._product.url)


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
        wait_for(lambda: self.stats.webhooks >= enough, f"{count} more webhooks are accepted")

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
