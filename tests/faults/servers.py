"""The Kafka brokers of a test of faults: one node or three, each behind a proxy that can fail as a network does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient

from tests.faults.proxy import Proxy
from tests.kafka.broker import Broker, fetch, free_port
from tests.kafka.cluster import make_cluster, start_all

_NODES = {"sqlite": 0, "kafka": 1, "cluster": 3}


@dataclass(frozen=True, slots=True)
class Servers:
    """`proxies` are what the product knows; each leads to the broker of the same place."""

    brokers: Sequence[Broker]
    proxies: Sequence[Proxy]

    @property
    def url(self) -> str:
        """For the settings."""
        return "kafka://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)

    @property
    def replication(self) -> int:
        """As many copies as there are brokers."""
        return len(self.brokers)

    def leader(self, topic: str) -> Broker:
        """Of the topic's first partition. Raises KafkaError."""
        servers = [server for broker in self.brokers for server in broker.servers]
        with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
            described: Any = admin.describe_topics([topic])
        number: int = described[0]["partitions"][0]["leader_id"]
        return self.brokers[number - 1]


@asynccontextmanager
async def serving(log: str, folder: Path) -> AsyncIterator[Servers | None]:
    """What this kind of log needs, until it is left; None where it is embedded."""
    if not _NODES[log]:
        yield None
        return
    ports = [free_port() for _ in range(_NODES[log])]
    brokers = await asyncio.to_thread(lambda: make_cluster(fetch(), folder, ports))
    proxies = [Proxy(port, broker.port) for port, broker in zip(ports, brokers, strict=True)]
    try:
        await asyncio.to_thread(start_all, brokers)
        for proxy in proxies:
            await proxy.start()
        yield Servers(brokers, proxies)
    finally:
        for proxy in proxies:
            await proxy.stop()
        for broker in brokers:
            broker.kill()
