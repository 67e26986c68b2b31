"""The program that carries out a plan of faults.

Each fault comes at its time and is healed after its time, whatever else is broken just then.
"""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kafka.errors import KafkaError

from ingest.errors import LogUnavailable, WarehouseUnavailable
from ingest.vendors import vendor_names
from tests.faults.clock import replace, withdraw
from tests.faults.history import (
    checkpoint_log,
    copy_log,
    copy_warehouse,
    delete_topic,
    events_in_log,
    restore_warehouse,
)
from tests.faults.load import EventKey, Vendors
from tests.faults.plan import Fault, Kind, Plan
from tests.faults.proxy import Proxy
from tests.faults.supervised_process import SupervisedProcess, signal_to
from tests.faults.system import System
from tests.kafka.broker import Broker
from tests.kafka.cluster import start_all
from tests.support.processes import Process

_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 20.0
_HOLDER_SECONDS = 60.0
_JUMPS = (-365 * 86_400, -86_400, -7_000, -120, 120, 7_000, 86_400, 365 * 86_400)
_SLOW_SECONDS = 0.3
_ANSWER_SECONDS = 0.5
_LARGEST_CUT = 0.5  # of the newest segment
_JOINER = "second"
_LARGE_BODIES = 30

T = TypeVar("T")


def _choose(candidates: Sequence[T], fault: Fault) -> T:
    return candidates[int(fault.chance * len(candidates))]


class Breaker:
    """Breaks what a plan names, and counts what it broke.

    `done` and `missed` count faults. A fault is missed when there was nothing to break in time; `unreached`
    counts the steps among the missed faults.
    """

    def __init__(self, system: System, vendors: Vendors) -> None:
        self.done: Counter[Kind] = Counter()
        self.missed: Counter[Kind] = Counter()
        self.unreached: Counter[str] = Counter()
        self.cut = frozenset[EventKey]()  # accepted, and taken out of the log after that
        self._system = system
        self._vendors = vendors
        self._turns: defaultdict[object, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def kills(self) -> int:
        """Return how many kills happened."""
        return sum(count for kind, count in self.done.items() if kind.kills)

    async def follow(self, plan: Plan) -> None:
        """Carry out every fault of the plan, and return when all is healed."""
        started = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as faults:
            for fault in plan.faults:
                faults.create_task(self._carry_out(fault, started))

    async def _carry_out(self, fault: Fault, started: float) -> None:
        await asyncio.sleep(started + fault.at - asyncio.get_running_loop().time())
        happened = await _METHODS[fault.kind](self, fault)
        (self.done if happened else self.missed)[fault.kind] += 1

    async def kill_consumer(self, fault: Fault) -> bool:
        """Kill a consumer at any moment, also while it starts."""
        return await self._kill(_choose(list(self._system.consumers.values()), fault))

    async def kill_receiver(self, _: Fault) -> bool:
        """Kill the receiver's parent.

        Its workers are to notice, and to let go of the port.
        """
        return await self._kill(self._system.receiver)

    async def kill_worker(self, fault: Fault) -> bool:
        """Kill a worker of the receiver.

        Its parent is to start another.
        """
        worker = await self._worker(fault)
        return worker is not None and signal_to(worker, signal.SIGKILL)

    async def kill_consumer_at_step(self, fault: Fault) -> bool:
        """Kill the consumer that reaches the fault's step first."""
        return await self._order("consume", signal.SIGKILL, fault.moment)

    async def kill_worker_at_step(self, fault: Fault) -> bool:
        """Kill the worker that reaches the fault's step first."""
        return await self._order("receive", signal.SIGKILL, fault.moment)

    async def kill_reconciliation_at_step(self, fault: Fault) -> bool:
        """Kill reconciliation at the fault's step of finding and closing gaps."""
        return await self._order("reconcile", signal.SIGKILL, fault.moment)

    async def freeze_consumer(self, fault: Fault) -> bool:
        """Freeze a consumer for the fault's seconds.

        When that is long enough, other consumers take over what it was reading.
        """
        consumer = _choose(list(self._system.consumers.values()), fault)
        consumer.freeze()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            consumer.thaw()
        return True

    async def freeze_consumer_at_step(self, fault: Fault) -> bool:
        """Freeze the consumer that reaches the fault's step first.

        What it knew then may be wrong by the time it goes on.
        """
        if not await self._order("consume", signal.SIGSTOP, fault.moment):
            return False
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            for consumer in self._system.consumers.values():
                consumer.thaw()
        return True

    async def freeze_worker(self, fault: Fault) -> bool:
        """Freeze a worker of the receiver.

        Connections to it wait.
        """
        worker = await self._worker(fault)
        if worker is None or not signal_to(worker, signal.SIGSTOP):
            return False
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            signal_to(worker, signal.SIGCONT)
        return True

    async def fill_log_disk(self, fault: Fault) -> bool:
        """Fill the disk of the log, so that there is no room for new records.

        Its -wal is not deleted meanwhile: what is in it could not be saved, and would be gone with the last
        process that has it open, which a kill may end.
        """
        async with self._turns["log's file"]:
            return await self._fill("log", fault)

    async def fill_warehouse_disk(self, fault: Fault) -> bool:
        """Fill the disk of the warehouse, so that there is no room for rows or for dlt's packages."""
        return await self._fill("warehouse", fault)

    async def hold_warehouse(self, fault: Fault) -> bool:
        """Hold the warehouse with a program that reads or writes it."""
        postgres, file = self._system.servers.postgres, self._system.settings.warehouse.duckdb_file
        warehouse = postgres.url if postgres else str(file)
        command = [
            sys.executable,
            "-m",
            "tests.faults.holder",
            warehouse,
            _choose(("reads", "writes"), fault),
            str(fault.seconds),
        ]
        holder = await asyncio.create_subprocess_exec(
            *command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(_HOLDER_SECONDS):
                return await holder.wait() == 0
        except TimeoutError:
            return False
        finally:
            if holder.returncode is None:
                holder.kill()

    async def send_large_bodies(self, _: Fault) -> bool:
        """Send more large bodies than fit into one batch."""
        self._vendors.large = _LARGE_BODIES
        return bool(await self._wait_for(lambda: not self._vendors.large))

    async def break_settings(self, fault: Fault) -> bool:
        """Put a mistake into the settings file.

        What runs goes on with the settings it has. What is killed meanwhile starts when the file is right
        again.
        """
        config = self._system.sandbox.config
        async with self._turns["settings"]:
            text = config.read_text(encoding="utf-8")
            config.write_text(f"{text}\nlog_retention = forever\n", encoding="utf-8")
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                config.write_text(text, encoding="utf-8")
        return True

    async def down_warehouse(self, fault: Fault) -> bool:
        """Stop the warehouse's server as a crash does, with whatever it was loading."""
        async with self._turns["warehouse's server"]:
            if not (server := self._system.servers.postgres):
                return False
            await asyncio.to_thread(server.stop)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                await asyncio.to_thread(server.start)
        return True

    async def kill_broker(self, fault: Fault) -> bool:
        """Kill any one of the brokers."""
        return await self._down([_choose(self._system.servers.brokers, fault)], fault)

    async def kill_leader(self, fault: Fault) -> bool:
        """Kill the broker that a vendor's events go to."""
        topic = self._system.settings.topic(_choose(vendor_names(), fault))
        try:
            leader = await asyncio.to_thread(self._system.servers.leader, topic)
        except KafkaError:
            return False
        return await self._down([leader], fault)

    async def down_brokers(self, fault: Fault) -> bool:
        """Kill all brokers at once."""
        return await self._down(self._system.servers.brokers, fault)

    async def freeze_broker(self, fault: Fault) -> bool:
        """Freeze a broker: connections to it stay open, and nothing is answered."""
        broker = _choose(self._system.servers.brokers, fault)
        return await self._hold("brokers", fault, broker.freeze, broker.thaw)

    async def cut_network(self, fault: Fault) -> bool:
        """Cut the network to one broker."""
        return await self._fail_proxy(fault, Proxy.cut)

    async def silence_network(self, fault: Fault) -> bool:
        """Silence the network to one broker."""
        return await self._fail_proxy(fault, Proxy.silence)

    async def slow_network(self, fault: Fault) -> bool:
        """Slow the network to one broker."""
        return await self._fail_proxy(fault, lambda proxy: proxy.slow(_SLOW_SECONDS))

    async def join_consumer(self, fault: Fault) -> bool:
        """Let one more consumer join for a while.

        It takes over some partitions, and gives them back.
        """
        async with self._turns[_JOINER]:
            self._system.join(_JOINER)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                await asyncio.to_thread(self._system.leave, _JOINER)
        return True

    async def cut_log(self, fault: Fault) -> bool:
        """Make all brokers lose power together, with whatever they had not synced.

        What one of several brokers still has, the others get from it.
        """
        async with self._turns["brokers"]:
            for broker in self._system.servers.brokers:
                broker.kill()
            for broker in self._system.servers.brokers:
                broker.lose_tail(self._system.settings.topics(), fault.chance * _LARGEST_CUT)
            accepted = await self._vendors.accepted_by_now()
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(start_all, self._system.servers.brokers)
            return await self._note_cut(accepted)

    async def make_topic_anew(self, fault: Fault) -> bool:
        """Delete a topic; the next program that appends to it makes it again."""
        async with self._turns["brokers"]:
            servers = [server for broker in self._system.servers.brokers for server in broker.servers]
            try:
                if not await asyncio.to_thread(
                    delete_topic, servers, self._system.settings.topic(_choose(vendor_names(), fault))
                ):
                    return False
            except KafkaError:
                return False
            return await self._note_cut(await self._vendors.accepted_by_now())

    async def restore_log(self, fault: Fault) -> bool:
        """Restore the log's file from an older copy, under all programs that use it."""
        path = self._system.settings.build_log().file
        async with self._turns["log's file"]:
            try:
                copy = await asyncio.to_thread(copy_log, path) if path and path.exists() else None
            except sqlite3.Error:
                return False
            if copy is None or path is None:
                return False
            await asyncio.sleep(fault.seconds)
            copy.replace(path)
            return await self._note_cut(await self._vendors.accepted_by_now())

    async def overwrite_log(self, fault: Fault) -> bool:
        """Overwrite the log's file in place with an older copy, under all programs that use it.

        Afterwards the -wal and -shm are deleted, as the log's error tells an operator to do.
        """
        path = self._system.settings.build_log().file
        async with self._turns["log"], self._turns["log's file"]:  # a full disk would leave half a copy
            try:
                copy = await asyncio.to_thread(copy_log, path) if path and path.exists() else None
            except sqlite3.Error:
                return False
            if copy is None or path is None:
                return False
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(checkpoint_log, path)  # from here on the -wal is of another time
            await asyncio.sleep(_ANSWER_SECONDS)
            copying = await asyncio.create_subprocess_exec("cp", str(copy), str(path))
            if await copying.wait():
                return False
            accepted = await self._vendors.accepted_by_now()
            await asyncio.sleep(fault.seconds)
            for kind in ("wal", "shm"):
                path.with_name(f"{path.name}-{kind}").unlink(missing_ok=True)
            return await self._note_cut(accepted)

    async def delete_wal(self, _: Fault) -> bool:
        """Delete the log's -wal file, under all programs that use it."""
        path = self._system.settings.build_log().file
        async with self._turns["log's file"]:
            wal = path.with_name(f"{path.name}-wal") if path else None
            if wal is None or not wal.exists():
                return False
            wal.unlink(missing_ok=True)
            return await self._note_cut(await self._vendors.accepted_by_now())

    async def restore_warehouse(self, fault: Fault) -> bool:
        """Restore the warehouse's file from an older copy.

        All that was loaded since is in the log.
        """
        async with self._turns["warehouse's file"]:
            try:
                copy = await asyncio.to_thread(copy_warehouse, self._system.settings)
                await asyncio.sleep(fault.seconds)
                await asyncio.to_thread(restore_warehouse, self._system.settings, copy)
            except (OSError, WarehouseUnavailable):
                return False
        return True

    async def _note_cut(self, accepted: frozenset[EventKey]) -> bool:
        """Add to `cut` those of the accepted events that the log does not have now."""
        settings = self._system.settings.model_copy(
            update={"log": self._system.servers.direct_url or self._system.settings.log}
        )
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while True:
            try:
                self.cut |= accepted - await asyncio.to_thread(events_in_log, settings)
            except LogUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_ANSWER_SECONDS)
            else:
                return True

    async def shift_consumers_clock(self, fault: Fault) -> bool:
        """Shift the clock that all consumers share."""
        return await self._shift("consume", fault)

    async def shift_receivers_clock(self, fault: Fault) -> bool:
        """Shift the clock that all workers of the receiver share."""
        return await self._shift("receive", fault)

    async def _down(self, brokers: Sequence[Broker], fault: Fault) -> bool:
        """Kill the brokers, wait for the fault's seconds, and start them again.

        Only one fault has brokers down at a time: with two of three away no broker starts.
        """
        async with self._turns["brokers"]:
            for broker in brokers:
                broker.kill()
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(start_all, brokers)
        return True

    async def _fail_proxy(self, fault: Fault, fail: Callable[[Proxy], None]) -> bool:
        proxy = _choose(self._system.servers.proxies, fault)
        return await self._hold(proxy, fault, lambda: fail(proxy), proxy.heal)

    async def _kill(self, child: SupervisedProcess) -> bool:
        if not await self._wait_for(lambda: child.alive):
            return False
        await asyncio.to_thread(child.kill)
        return True

    async def _worker(self, fault: Fault) -> Process | None:
        workers = await self._wait_for(self._system.receiver.workers)
        return _choose(workers, fault) if workers else None

    async def _order(self, command: str, number: signal.Signals, moment: str) -> bool:
        """Order a signal at a step, and withdraw the order where no process gets there in time."""
        orders = self._system.orders[command]
        async with self._turns[orders]:
            replace(orders, f"{number.name} {moment}")
            obeyed = bool(await self._wait_for(lambda: not orders.exists()))
            withdraw(orders)
            if not obeyed:
                self.unreached[moment] += 1
            return obeyed

    async def _fill(self, name: str, fault: Fault) -> bool:
        disk = self._system.disks[name]
        return await self._hold(name, fault, disk.fill, disk.empty)

    async def _shift(self, command: str, fault: Fault) -> bool:
        clock = self._system.clocks[command]
        return await self._hold(clock, fault, lambda: clock.jump(_choose(_JUMPS, fault)), clock.set_right)

    async def _hold(
        self, turn: object, fault: Fault, begin: Callable[[], None], end: Callable[[], None]
    ) -> bool:
        async with self._turns[turn]:
            begin()
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                end()
        return True

    async def _wait_for(self, condition: Callable[[], T]) -> T | None:
        """Call `look` until it returns something and return that; None when that takes too long."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while not (result := condition()):
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(_LOOK_SECONDS)
        return result


_METHODS: Mapping[Kind, Callable[[Breaker, Fault], Awaitable[bool]]] = {
    Kind.KILL_CONSUMER: Breaker.kill_consumer,
    Kind.KILL_CONSUMER_AT_STEP: Breaker.kill_consumer_at_step,
    Kind.KILL_WORKER: Breaker.kill_worker,
    Kind.KILL_WORKER_AT_STEP: Breaker.kill_worker_at_step,
    Kind.KILL_RECEIVER: Breaker.kill_receiver,
    Kind.KILL_RECONCILIATION_AT_STEP: Breaker.kill_reconciliation_at_step,
    Kind.FREEZE_CONSUMER: Breaker.freeze_consumer,
    Kind.FREEZE_CONSUMER_AT_STEP: Breaker.freeze_consumer_at_step,
    Kind.FREEZE_WORKER: Breaker.freeze_worker,
    Kind.FULL_LOG_DISK: Breaker.fill_log_disk,
    Kind.FULL_WAREHOUSE_DISK: Breaker.fill_warehouse_disk,
    Kind.WAREHOUSE_LOCKED: Breaker.hold_warehouse,
    Kind.LARGE_BODIES: Breaker.send_large_bodies,
    Kind.SETTINGS_BROKEN: Breaker.break_settings,
    Kind.WAREHOUSE_DOWN: Breaker.down_warehouse,
    Kind.KILL_BROKER: Breaker.kill_broker,
    Kind.KILL_LEADER: Breaker.kill_leader,
    Kind.FREEZE_BROKER: Breaker.freeze_broker,
    Kind.BROKERS_DOWN: Breaker.down_brokers,
    Kind.NETWORK_CUT: Breaker.cut_network,
    Kind.NETWORK_SILENT: Breaker.silence_network,
    Kind.NETWORK_SLOW: Breaker.slow_network,
    Kind.CONSUMER_JOINS: Breaker.join_consumer,
    Kind.LOG_CUT: Breaker.cut_log,
    Kind.TOPIC_ANEW: Breaker.make_topic_anew,
    Kind.LOG_RESTORED: Breaker.restore_log,
    Kind.LOG_OVERWRITTEN: Breaker.overwrite_log,
    Kind.WAL_DELETED: Breaker.delete_wal,
    Kind.WAREHOUSE_RESTORED: Breaker.restore_warehouse,
    Kind.CONSUMER_CLOCK: Breaker.shift_consumers_clock,
    Kind.RECEIVER_CLOCK: Breaker.shift_receivers_clock,
}
