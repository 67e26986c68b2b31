"""From a webhook to its row: `python -m tests.bench.freshness [--rates 10 500 2000 --stored 10000000]`.

Runs `ingest up` with accounts of all vendors, sends signed deliveries at each rate, and asks the warehouse
for new rows all the time, as a reader of it would. Then it does the same with a warehouse that already has
many rows. With `--browsers 0 3` it does all of that without the dashboard, and again while so many pages of
it are open in Chromium. The sender, the reader and Chromium share the machine with what is measured.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from ingest.cli.demo.report import WarehouseMonitor
from ingest.vendors import Delivery
from tests.bench.figures import Figures, add_write_option, show
from tests.bench.growth import fill
from tests.bench.simulated import PUBLIC_URL, account_settings, deliveries, path_of
from tests.bench.usage import Usage, read_usage
from tests.consumers.harness import open_consumer
from tests.ingest.dashboard.chromium import started_chromium
from tests.support.polling import is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.settings import CommandRunner, Tree, settings_tree

_CONNECTIONS = 32
_POLL_SECONDS = 0.1
_STALLED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """What was measured at one rate, in seconds.

    `answered` is from the sending of a request to its answer, `visible` from its receipt to the first query
    that returned its row. `usage` is that of `ingest up` with its children.
    """

    rate: float
    sent_per_second: float
    answers: Counter[int]
    answered: Sequence[float]
    visible: Sequence[float]
    missing: int
    usage: Usage
    processor_share: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sender saw: seconds in all, statuses, and the seconds until each answer.

    `sent_at` has the time of each request, by the monotonic clock, by its number.
    """

    seconds: float
    answers: Counter[int]
    answered: list[float]
    sent_at: dict[int, float]


def send(port: int, requests: Sequence[bytes], rate: float) -> Sent:
    """Send requests at a rate, over connections that stay open."""
    return uvloop.run(_send(port, requests, rate))


async def _send(port: int, requests: Sequence[bytes], rate: float) -> Sent:
    started, numbers = time.monotonic(), iter(range(len(requests)))
    sent = Sent(0.0, Counter(), [], {})

    async def use_connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            await asyncio.sleep(started + number / rate - time.monotonic())
            sent.sent_at[number] = sent_at = time.monotonic()
            writer.write(requests[number])
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            sent.answers[int(head[9:12])] += 1
            sent.answered.append(time.monotonic() - sent_at)
        writer.close()

    await asyncio.gather(*(use_connection() for _ in range(_CONNECTIONS)))
    return replace(sent, seconds=time.monotonic() - started)


def request(vendor: str, delivery: Delivery) -> bytes:
    """Return the bytes of an HTTP request with a delivery."""
    target = path_of(vendor) + (f"?{delivery.query}" if delivery.query else "")
    lines = {"host": "hooks.example.com", "content-length": str(len(delivery.body))}
    lines |= dict(delivery.headers.lines)
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + delivery.body


def measure(
    folder: Path, rate: float, seconds: float, log: str, stored: int = 0, *, browsers: int = 0
) -> Freshness:
    """Run `ingest up` in an empty folder, with a warehouse that has `stored` events, and measure it.

    So many browsers show the dashboard meanwhile.
    """
    tree = settings_of(folder, log)
    if stored:
        with open_consumer(tree) as harness:
            harness.warehouse.prepare()
            fill(harness, stored, stored // 2)
    runner = CommandRunner(folder, tree)
    receiver = runner.settings.receiver
    url = f"http://127.0.0.1:{receiver.port}"
    requests = [request(*signed) for signed in deliveries(int(rate * seconds))]
    spawn = multiprocessing.get_context("spawn")
    with runner.start("up") as process, ProcessPoolExecutor(1, spawn) as pool:
        wait_for(lambda: is_healthy(url), "the receiver listens")
        pool.submit(os.getpid).result()  # the sender has started
        with _watching(f"http://127.0.0.1:{runner.settings.dashboard.port}", browsers):
            before = read_usage(process.pid).cpu_seconds
            sending = pool.submit(send, receiver.port, requests, rate)
            monitor = _watch(WarehouseMonitor(runner.settings, loaded_until=datetime.now(UTC)), sending)
            sent, usage = sending.result(), read_usage(process.pid)
    return Freshness(
        rate,
        len(requests) / sent.seconds,
        sent.answers,
        sent.answered,
        monitor.freshness,
        sent.answers[202] - monitor.events,
        usage,
        (usage.cpu_seconds - before) / sent.seconds,
    )


@contextmanager
def _watching(address: str, browsers: int) -> Iterator[None]:
    """Show the dashboard in so many browsers: the first screen, what is live, and an account."""
    if not browsers:
        yield
        return
    wait_for(lambda: is_healthy(address), "the dashboard listens")
    with started_chromium() as chromium:
        for number in range(browsers):
            paths = ("/", "/live", f"/account?name={next(iter(account_settings()))}")
            chromium.new_page().goto(address + paths[number % len(paths)])
        yield


def settings_of(folder: Path, log: str) -> Tree:
    """Return the settings of `ingest up` in a folder; "" is the embedded log."""
    tree = settings_tree(folder)
    del tree["consumer"]["linger"]  # as it is by default
    return {
        **tree,
        "public_url": PUBLIC_URL,
        "log": log or tree["log"],
        "topic_prefix": f"bench-{folder.name}",
        "receiver": {"port": free_port(), "admin_port": free_port()},
        "reconcile": {"admin_port": free_port()},
        "dashboard": {"port": free_port()},
        "feed": {"enabled": True},
        "accounts": account_settings(),
    }


def _watch(monitor: WarehouseMonitor, sending: "Future[Sent]") -> WarehouseMonitor:
    """Poll the warehouse until it has all accepted events, or none has come for long."""
    seen, seen_at = 0, time.monotonic()
    while not sending.done() or monitor.events < sending.result().answers[202]:
        monitor.poll(details=False)
        if monitor.events > seen:
            seen, seen_at = monitor.events, time.monotonic()
        if time.monotonic() - seen_at > _STALLED_SECONDS:
            break
        time.sleep(_POLL_SECONDS)
    return monitor


def figures(results: Sequence[tuple[str, int, Freshness]]) -> Figures:
    """Return the table of all results, each with the words for its warehouse, and the number of browsers."""
    columns = [
        *("warehouse", "browsers", "asked for, /s", "sent, /s", "answers", "POST to answer, p50 and p99, ms"),
        *("receipt to visible row, p50 and p99, s", "cores", "memory, MiB", "missing rows"),
    ]
    rows = [
        (
            warehouse,
            str(browsers),
            f"{result.rate:g}",
            f"{result.sent_per_second:.0f}",
            ", ".join(f"{status}: {count}" for status, count in sorted(result.answers.items())),
            spread([1000 * seconds for seconds in result.answered], "{:.1f}"),
            spread(result.visible, "{:.2f}"),
            f"{result.processor_share:.2f}",
            f"{result.usage.mebibytes:.0f}",
            str(result.missing),
        )
        for warehouse, browsers, result in results
    ]
    return Figures("`ingest up`, from a webhook to its row", columns, rows)


def spread(values: Sequence[float], form: str) -> str:
    """Write the median and the 99th percentile of values."""
    if len(values) < 2:
        return "none"
    percentiles = statistics.quantiles(values, n=100)
    return f"{form.format(percentiles[49])} and {form.format(percentiles[98])}"


def main() -> None:
    """Measure once at each rate and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 500, 2000], help="webhooks a second")
    parser.add_argument("--seconds", type=float, default=20, help="at each rate")
    parser.add_argument(
        "--stored", type=int, default=10_000_000, help="events of the large warehouse, 0 for none"
    )
    parser.add_argument(
        "--browsers", type=int, nargs="+", default=[0], help="that show the dashboard meanwhile"
    )
    parser.add_argument("--log", default="", help='"" for the embedded log, or kafka://host:port')
    add_write_option(parser)
    arguments = parser.parse_args()
    results = []
    for stored, rate, browsers in product(
        dict.fromkeys((0, arguments.stored)), arguments.rates, arguments.browsers
    ):
        with TemporaryDirectory(prefix="ingest-freshness-") as folder:
            result = measure(Path(folder), rate, arguments.seconds, arguments.log, stored, browsers=browsers)
        results.append((f"{stored:,} events" if stored else "empty", browsers, result))
    block = "watched" if any(arguments.browsers) else "freshness"
    show(block, [figures(results)], write=arguments.write)
    sys.exit(any(result.missing for *_, result in results))


if __name__ == "__main__":
    main()
