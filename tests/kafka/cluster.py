"""Several nodes on loopback, every topic on all of them.

How many have to acknowledge is left to those who make topics.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.kafka.broker import Broker, new_cluster_id
from tests.support.ports import free_port

_OVERRIDES = """\
node.id={number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},INSIDE://127.0.0.1:{inside},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{known},INSIDE://127.0.0.1:{inside}
inter.broker.listener.name=INSIDE
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
default.replication.factor={nodes}
offsets.topic.replication.factor={nodes}
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={needed}
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
"""


def make_cluster(
    libs: Path, home: Path, known: Sequence[int], node_ports: Sequence[int] = ()
) -> list[Broker]:
    """Make a node for each port that clients are sent to, which may be that of a proxy.

    With `own` ports the nodes listen there. No node is started.
    """
    cluster_id, ports, controllers = (
        new_cluster_id(),
        node_ports or [free_port() for _ in known],
        [free_port() for _ in known],
    )
    voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1))
    nodes = []
    for number, (port, controller, advertised) in enumerate(zip(ports, controllers, known, strict=True), 1):
        folder = home / f"node-{number}"
        folder.mkdir()
        overrides = _OVERRIDES.format(
            number=number,
            voters=voters,
            port=port,
            inside=free_port(),
            controller=controller,
            known=advertised,
            nodes=len(known),
            needed=len(known) // 2 + 1,
        )
        nodes.append(Broker(libs, folder, port, overrides=overrides, cluster_id=cluster_id))
    return nodes


def start_all(nodes: Sequence[Broker]) -> None:
    """Side by side: none answers before most of them are there."""
    with ThreadPoolExecutor(len(nodes)) as threads:
        for started in [threads.submit(node.start) for node in nodes]:
            started.result()
