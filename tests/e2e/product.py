"""`ingest up` in a folder of its own, with an account at each vendor, and the vendors that deliver to it."""

import asyncio
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.settings.sources import load_settings
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.sender import Chaos, DeliveryStats, Sender
from ingest.simulator.simulation import Pace, run_simulation
from ingest.simulator.vendor import load_simulated_vendor
from ingest.simulator.world import World
from ingest.warehouse.query import query
from tests.cli.command import COMMAND, PATIENCE, environment
from tests.e2e.processes import Process, descendants, eventually
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
[accounts.sales]
vendor = "calendly"
[accounts.support]
vendor = "oncehub"
[accounts.salon]
vendor = "appointedd"
webhook_header = "X-Webhook-Token"
[accounts.tours]
vendor = "bookeo"
timezone = "America/Panama"
"""
_ACCOUNTS = {"sales": "calendly", "support": "oncehub", "salon": "appointedd", "tours": "bookeo"}


class Product:
    """Settings, and what a run with them leaves behind."""

    def __init__(
        self, folder: Path, *, log: str = "sqlite:///data/log.db", name: str = "bookings", workers: int = 1
    ) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.accounts: Mapping[str, SimulatedAccount] = {
            name: load_simulated_vendor(vendor).account(f"{self.url}/webhooks/{vendor}/{name}", SECRET)
            for name, vendor in _ACCOUNTS.items()
        }
        (folder / "ingest.toml").write_text(_CONFIG.format(port=port, log=log, name=name, workers=workers))
        secrets = folder / "ingest.secrets.toml"
        secrets.touch(0o600)
        secrets.write_text(
            "".join(f'[accounts.{name}]\nwebhook_secrets = ["{SECRET}"]\n' for name in _ACCOUNTS)
        )

    @property
    def settings(self) -> Settings:
        """As a process finds them that was started in the folder, but with places that hold from anywhere."""
        places = {
            "INGEST_WAREHOUSE__CREDENTIALS": str(self.folder / "data" / "warehouse.duckdb"),
            "INGEST_WAREHOUSE__WORK_DIR": str(self.folder / "data" / "dlt"),
        }
        return load_settings(str(self.folder / "ingest.toml"), places)

    def world(self, seed: int = 1) -> World:
        """Of these accounts."""
        return World({name: dialect.capabilities for name, dialect in self.accounts.items()}, seed)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """Rows; none where there is no warehouse yet."""
        try:
            answer = query(self.settings, sql)
        except IngestError:
            return []
        return answer.dicts()

    def count(self, table: str) -> int:
        """Rows of a table."""
        found = self.ask(f"select count(*) as n from {table}")
        return found[0]["n"] if found else 0

    def launch(self) -> "Up":
        """Returns at once."""
        return Up(self)

    @contextmanager
    def running(self) -> Iterator["Up"]:
        """From accepting webhooks to a clean stop, which is checked: exit code 0, nothing left running."""
        up = self.launch()
        try:
            up.wait_until_accepting()
            yield up
            family = up.family()
            up.process.send_signal(signal.SIGTERM)
            assert up.process.wait(PATIENCE) == 0, up.said()
            assert [process for process in family if process.alive] == []
        finally:
            up.end()


class Up:
    """A running `ingest up`; what it logs is kept."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._log = product.folder / "up.log"
        with self._log.open("ab") as lines:
            self.process = subprocess.Popen(
                [*COMMAND, "up"],
                cwd=product.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
            )

    def wait_until_accepting(self) -> None:
        """And until the consumer is ready to load."""
        eventually(self._accepts, "the receiver answers")
        eventually(lambda: self._product.ask("select count(*) from bookings"), "the tables are made")

    def family(self) -> list[Process]:
        """All that it started, while it runs."""
        return descendants(self.process.pid) if self.process.poll() is None else []

    def child(self, command: str) -> Process | None:
        """The one that runs this command now."""
        return next((process for process in self.family() if f"-m ingest {command}" in process.command), None)

    def said(self) -> str:
        """The end of its log, for a failure's message."""
        return self._log.read_text(encoding="utf-8")[-5000:]

    def end(self) -> None:
        """Whatever happened, nothing of ours goes on. Its children leave when it is gone."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        eventually(lambda: not any(process.alive for process in family), "the children leave")

    def _accepts(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            return httpx.get(f"{self._product.url}/healthz").is_success
        except httpx.TransportError:
            return False


class Vendors:
    """All four, delivering from a thread of their own until they are stopped."""

    def __init__(self, product: Product, rate: float) -> None:
        self.world = product.world()
        self._sender = Sender(Chaos(duplicated=0.1, delayed=0.3, delay=1.0))
        self._product, self._rate = product, rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._deliver()), name="vendors")

    @property
    def stats(self) -> DeliveryStats:
        """What came of it so far."""
        return self._sender.stats

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def wait_for_more(self, count: int) -> None:
        """Until so many more were accepted."""
        enough = self.stats.webhooks + count
        eventually(lambda: self.stats.webhooks >= enough, f"{count} more webhooks are accepted")

    def stop(self) -> None:
        """Nothing new; returns when all that was sent was accepted or given up."""
        self._over.set()
        self._thread.join()

    async def _deliver(self) -> None:
        await run_simulation(
            self.world, self._product.accounts, self._sender, Pace(self._rate, seconds=240), self._over.is_set
        )
        await self._sender.close()


@contextmanager
def delivering(product: Product, rate: float = 20) -> Iterator[Vendors]:
    """Webhooks a second, of all that happens in a world, some twice and some late."""
    vendors = Vendors(product, rate)
    vendors.start()
    try:
        yield vendors
    finally:
        vendors.stop()
