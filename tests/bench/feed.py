"""The feed of changes: `python -m tests.bench.feed [--rate 500 --subscribers 50 --events 100000]`.

First what it costs the consumer: simulated vendors' webhooks are loaded with the feed off and on. Then how
soon a change arrives: signed deliveries are sent to `ingest up`, and subscribers of `GET /api/changes` wait
for the changes that they make, beside one that never reads. All of them share the machine.
"""

import argparse
import asyncio
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette

from ingest.dashboard.api import routes
from ingest.settings import Settings
from tests.bench.consume import consume, filled_log
from tests.bench.figures import Figures, add_write_option, show
from tests.bench.freshness import request, send, settings_of, spread
from tests.bench.simulated import deliveries
from tests.bench.usage import read_usage
from tests.support.polling import get, is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.settings import CommandRunner, Tree

_QUIET_SECONDS = 5.0  # without a change, after which a subscriber has all

Arrivals = dict[str, list[float]]


def serve(tree: Tree, port: int) -> None:
    """Serve the API until the process is ended."""
    app = Starlette(routes=routes(Settings.model_validate(tree)))
    uvicorn.run(app, port=port, log_level="error", access_log=False, http="h11", lifespan="off")


def subscribe(port: int, subscribers: int) -> tuple[Arrivals, float]:
    """Return when each change arrived at each subscriber, by event id, and the processor time of that."""
    return uvloop.run(_subscribe(port, subscribers)), time.process_time()


async def _subscribe(port: int, subscribers: int) -> Arrivals:
    arrivals: Arrivals = defaultdict(list)

    async def connect() -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        writer.write(b"GET /api/changes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writers.append(writer)
        return reader

    async def read() -> None:
        reader, began = await connect(), False
        while True:
            try:
                async with asyncio.timeout(_QUIET_SECONDS if began else None):
                    line = await reader.readline()
            except TimeoutError:
                return
            if line.startswith(b"data: "):
                began = True
                arrivals[orjson.loads(line[6:])["data"]["last_event_id"]].append(time.monotonic())

    writers: list[asyncio.StreamWriter] = []
    await connect()  # which never reads
    await asyncio.gather(*(read() for _ in range(subscribers)))
    return dict(arrivals)


def measure_latency(folder: Path, rate: float, seconds: float, subscribers: int) -> Figures:
    """Send deliveries at a rate, and measure how long their changes take to each subscriber."""
    tree = settings_of(folder, "") | {"feed": {"enabled": True}}
    runner, port, spawn = CommandRunner(folder, tree), free_port(), multiprocessing.get_context("spawn")
    accounts = {account.vendor: account for account in runner.settings.build_accounts().values()}
    signed = list(deliveries(int(rate * seconds)))
    ids = [
        accounts[vendor].parse(accounts[vendor].verify(delivery, delivery.received_at)).id
        for vendor, delivery in signed
    ]
    requests = [request(*delivery) for delivery in signed]
    api = spawn.Process(target=serve, args=(tree, port), daemon=True)
    with runner.start("up"), ProcessPoolExecutor(2, spawn) as pool:
        receiver = runner.settings.receiver.port
        wait_for(lambda: is_healthy(f"http://127.0.0.1:{receiver}"), "the receiver listens")
        pool.submit(os.getpid).result()
        api.start()
        wait_for(lambda: get(f"http://127.0.0.1:{port}/api/schemas/booking.json"), "the API listens")
        subscribing = pool.submit(subscribe, port, subscribers)
        time.sleep(_QUIET_SECONDS)
        before = read_usage(api.pid or 0).cpu_seconds
        sent = pool.submit(send, receiver, requests, rate).result()
        arrivals, _ = subscribing.result()
        used = (read_usage(api.pid or 0).cpu_seconds - before) / sent.seconds
        api.terminate()
    sent_at = dict(zip(ids, (sent.sent_at[number] for number in range(len(ids))), strict=True))
    waits = [at - sent_at[event] for event, times in arrivals.items() for at in times if event in sent_at]
    row = [
        f"{len(ids) / sent.seconds:.0f}",
        str(subscribers),
        str(len(waits)),
        spread(waits, "{:.2f}"),
        f"{used:.2f}",
        str(sum(subscribers - len(times) for times in arrivals.values())),
    ]
    columns = ["sent, /s", "subscribers", "arrivals", "POST to subscriber, p50 and p99, s"]
    return Figures("`GET /api/changes`", [*columns, "cores of the API", "missing"], [row])


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
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--events", type=int, default=100_000, help="events of the consumer's cost")
    parser.add_argument("--logs", nargs="*", choices=("sqlite", "kafka"), default=["sqlite", "kafka"])
    add_write_option(parser)
    arguments = parser.parse_args()
    columns = ["log", "events/s, off", "processor, µs an event, off", "events/s, on"]
    rows = [measure_cost(log, arguments.events) for log in arguments.logs]
    cost = Figures(
        "`ingest consume` with the feed off and on", [*columns, "processor, µs an event, on"], rows
    )
    with TemporaryDirectory(prefix="bench-feed-") as folder:
        latency = measure_latency(Path(folder), arguments.rate, arguments.seconds, arguments.subscribers)
    show("feed", [cost, latency], write=arguments.write)


if __name__ == "__main__":
    main()
