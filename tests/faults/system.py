"""Everything that runs in a test of faults, in one folder.

This is the product's processes, their disks and clocks, and the log's brokers.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import tomlkit

from ingest.cli.demo.sandbox import Sandbox
from ingest.errors import LogUnavailable, WarehouseUnavailable
from ingest.settings import Settings
from ingest.settings.sources import load_settings, secrets_path
from ingest.simulator.account import Difference, differences
from ingest.warehouse.gaps import Gap, read_gaps
from ingest.warehouse.query import query
from receivers.spool.folder import spool_states
from tests.faults.clock import Clock, find_library
from tests.faults.disk import Disk, can_mount
from tests.faults.faulty_ingest import ORDERS, SHORT_HOURS, STEPS
from tests.faults.plan import CLOCKS, Kind
from tests.faults.servers import Servers
from tests.faults.supervised_process import SupervisedProcess
from tests.support.processes import environment

_LOOK_SECONDS = 0.05
_START_SECONDS = 120.0
_SETTLE_SECONDS = 300.0
_FOUND_SECONDS = 30.0
_REPAIR_SECONDS = 240.0  # a gap is closed when its last minute is over
_WORKERS = 2
_LOOKBACK = "30m"  # longer than a run


class System:
    """The running product, started in an empty folder.

    `consumers` are by their instance names.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        servers: Servers,
        ending: ExitStack,
        *,
        clocks: bool,
        reconcile: bool = False,
    ) -> None:
        self.folder, self.servers, self._ending = folder, servers, ending
        self.sandbox = Sandbox(folder, "", workers=_WORKERS, seed=seed)
        self.orders = {command: folder / f"orders.{command}" for command in STEPS}
        self.clocks = {command: Clock(folder / f"clock.{command}") for command in ("consume", "receive")}
        self._library = find_library() if clocks else None
        self._reconciles = reconcile
        self.disks = self._make_disks()
        self.settings = self._write_settings()
        self._chance = random.Random(seed)
        self._ended: list[SupervisedProcess] = []
        self.consumers = {"": self._start("consume")}
        self.receiver = self._start("receive")
        self.reconciliation: SupervisedProcess | None = None
        if reconcile:
            ending.enter_context(self.sandbox.server.serving())
            self.reconciliation = self._start("reconcile", "--watch")

    def impossible(self) -> frozenset[Kind]:
        """Return the kinds of faults that cannot happen here, for want of rights or a library."""
        disks = {Kind.FULL_LOG_DISK, Kind.FULL_WAREHOUSE_DISK} if not self.disks else set()
        return frozenset(disks | (CLOCKS if self._library is None else set()))

    def join(self, instance: str) -> None:
        """Start one more consumer of the group."""
        self.consumers[instance] = self._start("consume", INGEST_CONSUMER__INSTANCE=instance)

    def leave(self, instance: str) -> None:
        """Stop this consumer cleanly; it is not started again."""
        consumer = self.consumers.pop(instance)
        consumer.stop()
        self._ended.append(consumer)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Start any process again that dies, until the context is left."""
        supervision = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            supervision.cancel()
            with suppress(asyncio.CancelledError):
                await supervision

    async def wait_until_accepting(self) -> None:
        """Wait until the receiver answers.

        Raises TimeoutError when it does not.
        """
        async with asyncio.timeout(_START_SECONDS), httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.settings.public_url}/healthz")).is_success:
                        return
                await asyncio.sleep(_LOOK_SECONDS)

    async def drain(self) -> None:
        """Wait until the spools are empty and all of the log is loaded, or a long time has passed."""
        deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
        while await asyncio.to_thread(self._busy) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - other processes end it
            await asyncio.sleep(1.0)

    async def wait_until_repaired(self) -> None:
        """Wait until gaps led to the repair of everything and are closed, or for long.

        Where reconciliation does not run, return at once.
        """
        if not self.reconciliation:
            return
        loop = asyncio.get_running_loop()
        # A receiver that was killed just now is missed after a few signs only.
        least, deadline = loop.time() + _FOUND_SECONDS, loop.time() + _REPAIR_SECONDS
        while loop.time() < deadline:
            with suppress(WarehouseUnavailable):
                is_done = await asyncio.to_thread(self._is_repaired)
                if is_done and loop.time() > least:
                    return
            await asyncio.sleep(1.0)

    def gaps(self) -> list[Gap]:
        """Return all gaps that were found. Raises WarehouseUnavailable."""
        return read_gaps(self.settings, datetime.fromtimestamp(0, UTC))

    def not_repaired(self) -> list[Difference]:
        """Return what the warehouse has wrong. Raises WarehouseUnavailable."""
        stored = query(self.settings, "select * from bookings").dicts()
        return differences(self.sandbox.world, self.sandbox.accounts, stored)

    def _is_repaired(self) -> bool:
        return not any(gap.is_open for gap in self.gaps()) and not self.not_repaired()

    def lag(self) -> int:
        """Return how many records of the log are not loaded.

        Raises LogUnavailable.
        """
        return sum(entry.lag for entry in self.settings.build_log().backlog())

    def spooled(self) -> int:
        """Return how many records wait in the receiver's spools.

        Raises LogUnavailable.
        """
        return sum(state.records for state in spool_states(self.settings))

    async def stop(self) -> Counter[int]:
        """Stop all processes cleanly, start nothing again, and count their exit codes.

        The receiver's last sign of life is loaded before the consumers stop. The count has the exit codes of
        the clean stops, and of all processes that ended by themselves before.
        """
        first = [*filter(None, [self.reconciliation]), self.receiver]
        codes = Counter([await asyncio.to_thread(child.stop) for child in first])
        await self.drain()
        consumers = list(self.consumers.values())
        codes.update([await asyncio.to_thread(consumer.stop) for consumer in consumers])
        for child in (*first, *consumers, *self._ended):
            codes.update(child.exits)
        return codes

    def keep(self) -> None:
        """Copy what is on the disks, which are gone when the test ends."""
        for name, disk in self.disks.items():
            disk.keep(self.folder / f"{name}-kept")

    def _busy(self) -> bool:
        try:
            return bool(self.spooled() or self.lag())
        except LogUnavailable:
            return True

    async def _supervise(self) -> None:
        while True:
            for child in (self.receiver, *self.consumers.values(), *filter(None, [self.reconciliation])):
                child.look()
            await asyncio.sleep(_LOOK_SECONDS)

    def _start(self, command: str, *options: str, **variables: str) -> SupervisedProcess:
        clock: Mapping[str, str] = {}
        if self._library and command in self.clocks:
            clock = self.clocks[command].environ(self._library)
        short = {SHORT_HOURS: "1"} if self._reconciles else {}
        environ = environment(**{ORDERS: str(self.orders[command])}, **short, **clock, **variables)
        child = SupervisedProcess(
            self.folder, [command, *options, "--config", str(self.sandbox.config)], environ, self._chance
        )
        self._ending.callback(child.end)
        return child

    def _make_disks(self) -> Mapping[str, Disk]:
        if not can_mount(self.folder):
            return {}
        disks = {name: Disk(self.folder / name) for name in ("log", "warehouse")}
        for disk in disks.values():
            self._ending.callback(disk.close)
        self._ending.push(lambda *failure: self.keep() if failure[0] else None)
        return disks

    def _add_secret(self, section: str, **values: str) -> None:
        with secrets_path(self.sandbox.config).open("a", encoding="utf-8") as file:
            file.write(tomlkit.dumps({section: values}))

    def _write_settings(self) -> Settings:
        tree = tomlkit.parse(self.sandbox.config.read_text(encoding="utf-8")).unwrap()
        log, warehouse, postgres = self.folder / "log", self.folder / "warehouse", self.servers.postgres
        tree["log"] = self.servers.url if self.servers.brokers else f"sqlite:///{log}/log.db"
        tree["kafka"] = {"replication_factor": self.servers.replication} if self.servers.brokers else {}
        tree["receiver"]["admin_port"] = tree["consumer"]["admin_port"] = 0
        # Nothing but gaps leads to comparisons.
        tree["reconcile"] |= {"admin_port": 0, "every": "24h", "jitter": "24h"}
        if self._reconciles:
            tree["reconcile"]["lookback"] = _LOOKBACK
        tree["consumer"]["max_records"] = 200  # so that a backlog has many batches, which are read ahead
        tree["feed"] = {"enabled": True}
        tree["receiver"]["spool_dir"] = f"{log}/spool"
        tree["warehouse"] = {"work_dir": f"{warehouse}/dlt"}
        if postgres:
            tree["warehouse"]["destination"] = "postgres"
            self._add_secret("warehouse", credentials=postgres.url)
        else:
            tree["warehouse"]["credentials"] = f"{warehouse}/warehouse.duckdb"
        self.sandbox.config.write_text(tomlkit.dumps(tree), encoding="utf-8")
        return load_settings(str(self.sandbox.config), environ={})
