"""The servers of a test of faults.

These are Kafka brokers, each behind a proxy that can fail as a network does, and a PostgreSQL.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient

from tests.consumers.postgres import PostgresServer, running_postgres
from tests.faults.proxy import Proxy
from tests.kafka.broker import Broker, fetch
from tests.kafka.cluster import make_cluster, start_all
from tests.support.ports import free_port

_NODES = {"sqlite": 0, "kafka": 1, "cluster": 3}


@dataclass(frozen=True, slots=True)
class Servers:
    """The running servers, as far as the log and the warehouse need them.

    `proxies` are what the product connects to; each leads to the broker of the same index. Without brokers
    the log is embedded.
    """

    brokers: Sequence[Broker] = ()
    proxies: Sequence[Proxy] = ()
    postgres: PostgresServer | None = None

    @property
    def url(self) -> str:
        """Return the log's URL for the product's settings."""
        return "kafka://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)

    @property
    def direct_url(self) -> str:
        """Return the log's URL for connections that are not to be broken; "" for an embedded log."""
        return (
            "kafka://" + ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)
            if self.brokers
            else ""
        )

    @property
    def replication(self) -> int:
        """Return the replication factor: as many copies as there are brokers."""
        return len(self.brokers)

    def leader(self, topic: str) -> Broker:
        """Return the broker that leads the topic's first partition.

        Raises KafkaError.
        """
        servers = [server for broker in self.brokers for server in broker.servers]
        with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
            described: Any = admin.describe_topics([topic])
        number: int = described[0]["partitions"][0]["leader_id"]
        return self.brokers[number - 1]


@asynccontextmanager
async def serving(log: str, warehouse: str, folder: Path) -> AsyncIterator[Servers]:
    """Run the servers that these kinds of log and warehouse need, until the context is left."""
    async with AsyncExitStack() as ending:
        postgres = ending.enter_context(running_postgres()) if warehouse == "postgres" else None
        brokers, proxies = await _start_brokers(_NODES[log], folder, ending) if _NODES[log] else ((), ())
        yield Servers(brokers, proxies, postgres)


async def _start_brokers(
    count: int, folder: Path, ending: AsyncExitStack
) -> tuple[Sequence[Broker], Sequence[Proxy]]:
    ports = [free_port() for _ in range(count)]
    brokers = await asyncio.to_thread(lambda: make_cluster(fetch(), folder, ports))
    for broker in brokers:
        ending.callback(broker.kill)
    await asyncio.to_thread(start_all, brokers)
    proxies = [Proxy(port, broker.port) for port, broker in zip(ports, brokers, strict=True)]
    for proxy in proxies:
        ending.push_async_callback(proxy.stop)
        await proxy.start()
    return brokers, proxies
