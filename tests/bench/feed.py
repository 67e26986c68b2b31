"""The feed of changes: `python -m tests.bench.feed [--rate 500 --subscribers 50 --events 100000]`.

First what it costs the consumer: simulated vendors' webhooks are loaded with the feed off and on. Then how
soon a change arrives: signed deliveries are sent to `ingest up`, and subscribers of `GET /api/changes` wait
for the changes that they make, beside one that never reads. All of them share the machine, so subscribers
only look for the event's id in what they read.
"""

import argparse
import asyncio
import multiprocessing
import re
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import uvloop

from ingest.vendors import Delivery
from tests.bench.consume import consume, filled_log
from tests.bench.figures import Figures, add_write_option, show
from tests.bench.freshness import request, send, settings_of, spread
from tests.bench.simulated import deliveries
from tests.bench.usage import processor_seconds
from tests.support.polling import get, is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.settings import CommandRunner

_JOIN_SECONDS = 5.0  # in which all subscribers have joined
_QUIET_SECONDS = 5.0  # without a change, after which subscribers have all that was loaded
_LOOK_SECONDS = 0.2
_REQUEST = b"GET /api/changes HTTP/1.1\r\nHost: localhost\r\n\r\n"
_EVENT_ID = re.compile(rb'"last_event_id":"([^"]*)"')


@dataclass(slots=True)
class Arrivals:
    """When each change arrived at each subscriber, by event id, and how many subscribers were dropped."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    last: float = 0.0
    dropped: int = 0
    cpu_seconds: float = 0.0


class _Subscriber(asyncio.Protocol):
    """A connection that notes when changes arrive."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals, self._rest = arrivals, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(_REQUEST)  # uvloop's is none of its subclasses

    def data_received(self, data: bytes) -> None:
        now, text = time.monotonic(), self._rest + data
        end = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        events, self._rest = text[:end], text[end:]
        for event in _EVENT_ID.findall(events):
            self._arrivals.times[event.decode()].append(now)
            self._arrivals.last = now
        self._arrivals.dropped += b"event: dropped" in events


def subscribe(port: int, subscribers: int, loaded: Path) -> Arrivals:
    """Return what arrived, once the file `loaded` exists and nothing has come for a while."""
    return uvloop.run(_subscribe(port, subscribers, loaded))


async def _subscribe(port: int, subscribers: int, loaded: Path) -> Arrivals:
    arrivals, loop, used = Arrivals(), asyncio.get_running_loop(), time.process_time()
    with socket.create_connection(("127.0.0.1", port)) as never_read:
        never_read.sendall(_REQUEST)
        for _ in range(subscribers):
            await loop.create_connection(lambda: _Subscriber(arrivals), "127.0.0.1", port)
        while not loaded.exists() or time.monotonic() < arrivals.last + _QUIET_SECONDS:  # noqa: ASYNC110, ASYNC240 - a file says it
            await asyncio.sleep(_LOOK_SECONDS)
    arrivals.cpu_seconds = time.process_time() - used
    return arrivals


def measure_latency(folder: Path, rate: float, seconds: float, subscribers: int) -> Sequence[str]:
    """Send deliveries at a rate, and return how long their changes take to each subscriber."""
    port = free_port()
    tree = settings_of(folder, "") | {"feed": {"enabled": True}, "dashboard": {"port": port}}
    runner, spawn = CommandRunner(folder, tree), multiprocessing.get_context("spawn")
    accounts = {account.vendor: account for account in runner.settings.build_accounts().values()}
    signed = list(deliveries(int(rate * seconds)))

    def event_id(vendor: str, delivery: Delivery) -> str:
        return accounts[vendor].parse(accounts[vendor].verify(delivery, delivery.received_at)).id

    ids = [event_id(vendor, delivery) for vendor, delivery in signed]
    requests = [request(*delivery) for delivery in signed]
    with runner.start("up") as process, ProcessPoolExecutor(2, spawn) as pool:
        receiver = runner.settings.receiver.port
        wait_for(lambda: is_healthy(f"http://127.0.0.1:{receiver}"), "the receiver listens")
        wait_for(lambda: get(f"http://127.0.0.1:{port}/healthz"), "the dashboard listens")
        subscribing = pool.submit(subscribe, port, subscribers, folder / "loaded")
        time.sleep(_JOIN_SECONDS)
        dashboard = _child(process.pid, b"dashboard")
        before = processor_seconds(dashboard)
        sent = pool.submit(send, receiver, requests, rate).result()
        log = runner.settings.build_log()
        wait_for(lambda: not any(entry.lag for entry in log.backlog()), "everything is loaded")
        (folder / "loaded").touch()
        arrivals = subscribing.result()
        used = processor_seconds(dashboard) - before
    sent_at = {event: sent.sent_at[number] for number, event in enumerate(ids)}
    times = {event: times for event, times in arrivals.times.items() if event in sent_at}
    waits = [at - sent_at[event] for event, of_event in times.items() for at in of_event]
    return [
        f"{len(ids) / sent.seconds:.0f}",
        str(subscribers),
        f"{len(times)} of {len(ids)}",
        str(len(waits)),
        str(sum(subscribers - len(of_event) for of_event in times.values())),
        str(arrivals.dropped),
        spread(waits, "{:.2f}"),
        f"{used / sent.seconds:.2f}",
        f"{arrivals.cpu_seconds / sent.seconds:.2f}",
    ]


def _child(pid: int, command: bytes) -> Path:
    """Return the folder in /proc of a child of a process, by a word of its command line."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    folders = [Path("/proc") / child for child in children]
    return next(folder for folder in folders if command in (folder / "cmdline").read_bytes().split(b"\0"))


def measure_cost(log: str, events: int) -> Sequence[str]:
    """Return what an event costs the consumer with the feed off and on."""
    cells = [log]
    for publishes in (False, True):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-feed-")))
            warehouse = ("duckdb", f"{folder}/warehouse.duckdb")
            settings = stack.enter_context(filled_log(folder, log, events, warehouse, publishes=publishes))
            rate = consume(folder, settings, events)
        cells += [f"{rate.per_second:.0f}", f"{rate.cpu_microseconds:.0f}"]
    return cells


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500, help="webhooks a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--subscribers", type=int, nargs="*", default=[1, 50])
    parser.add_argument("--events", type=int, default=100_000, help="events of the consumer's cost")
    parser.add_argument("--logs", nargs="*", choices=("sqlite", "kafka"), default=["sqlite", "kafka"])
    add_write_option(parser)
    arguments = parser.parse_args()
    tables = []
    if arguments.logs:
        columns = [
            *("log", "events/s, off", "processor, µs an event, off"),
            *("events/s, on", "processor, µs an event, on"),
        ]
        costs = [measure_cost(log, arguments.events) for log in arguments.logs]
        tables.append(Figures("`ingest consume` with the feed off and on", columns, costs))
    if arguments.subscribers:
        columns = [
            *("sent, /s", "subscribers", "changes of events", "arrivals", "missing", "dropped"),
            *("POST to subscriber, p50 and p99, s", "cores of the dashboard", "cores of the subscribers"),
        ]
        latencies = []
        for subscribers in arguments.subscribers:
            with TemporaryDirectory(prefix="bench-feed-") as folder:
                latency = measure_latency(Path(folder), arguments.rate, arguments.seconds, subscribers)
            latencies.append(latency)
        tables.append(Figures("`GET /api/changes`", columns, latencies))
    show("feed", tables, write=arguments.write)


if __name__ == "__main__":
    main()
