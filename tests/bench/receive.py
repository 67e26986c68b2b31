"""The receiver's rate: `python -m tests.bench.receive [--seconds 8 --rounds 3 --connections 64]`.

Each receiver in turn has the first processor, and `wrk` and the broker have the second. `wrk` sends simulated
deliveries of Calendly over its connections, each as soon as the one before is answered. Receivers to compare
with are left out where they cannot be had: one in Go, and one of FastAPI and aiokafka.

Then one worker and two of ours have all processors in turn, together with `wrk` and the broker.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tomlkit
from kafka import KafkaAdminClient

from tests.bench.figures import Figures, add_write_option, show
from tests.bench.simulated import PUBLIC_URL, SECRET, deliveries, path_of
from tests.bench.usage import Usage, read_usage
from tests.kafka.broker import running_broker
from tests.support.ports import free_port
from tests.support.processes import ROOT

_PEERS = Path(__file__).parent / "peers"
_CACHE = ROOT / ".cache" / "bench"
_DELIVERIES = 4000
_WARM_UP_SECONDS = 2
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_FIRST, *_OTHERS = sorted(os.sched_getaffinity(0))
_RESULT = re.compile(r"rate=([\d.]+) median=([\d.]+) p99=([\d.]+) failed=(\d+)")

# What wrk runs: the deliveries one after the other, and the result in one line.
_SCRIPT = """
local deliveries, number = dofile(os.getenv("DELIVERIES")), 0
function init()
  for i, delivery in ipairs(deliveries) do
    local headers = {["Calendly-Webhook-Signature"] = delivery[1], ["Content-Type"] = "application/json"}
    deliveries[i] = wrk.format("POST", "%s", headers, delivery[2])
  end
end
function request() number = number + 1; return deliveries[number %% #deliveries + 1] end
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("rate=%%f median=%%f p99=%%f failed=%%d\\n",
    summary.requests * 1e6 / summary.duration,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver to measure: its command and its environment."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Round:
    """What a receiver did: requests a second, milliseconds until the answer, failures, and what it used."""

    rate: float
    median: float
    p99: float
    failed: int
    cpu_microseconds: float
    usage: Usage


def write_deliveries(file: Path) -> None:
    """Write signed deliveries of Calendly as a table of Lua."""
    lines = []
    for _, delivery in deliveries(_DELIVERIES, "calendly"):
        signature = delivery.headers.get_single("calendly-webhook-signature")
        body = "".join(map(_lua_character, delivery.body))
        lines.append(f'{{"{signature}","{body}"}},')
    file.write_text("\n".join(["return {", *lines, "}"]), encoding="ascii")


def _lua_character(byte: int) -> str:
    """Return a byte as Lua writes it between quotation marks."""
    return chr(byte) if chr(byte).isprintable() and byte < 127 and byte not in b'"\\' else f"\\{byte:03d}"


def ours(folder: Path, name: str, log: str, port: int, workers: int = 1) -> Receiver:
    """Return `ingest receive` over a log."""
    settings = {
        "public_url": PUBLIC_URL,
        "log": log,
        "topic_prefix": f"bench-{os.getpid()}",
        "receiver": {
            "port": port,
            "admin_port": free_port(),
            "spool_dir": str(folder / "spool"),
            "workers": workers,
        },
        "warehouse": {"credentials": str(folder / "warehouse.duckdb")},
        "accounts": {"calendly": {"vendor": "calendly"}},
    }
    config = folder / f"{name}.toml"
    config.write_text(tomlkit.dumps(settings), encoding="utf-8")
    secret = {"INGEST_ACCOUNTS__CALENDLY__WEBHOOK_SECRETS": SECRET}
    return Receiver(name, [sys.executable, "-m", "ingest", "receive", "--config", str(config)], secret)


def by_hand(name: str, brokers: str, port: int, python: str = sys.executable) -> Receiver:
    """Return a receiver of `tests.bench.peers.receivers`."""
    command = [python, "-m", "uvicorn", f"tests.bench.peers.receivers:{name}", "--port", str(port)]
    environ = {"SECRET": SECRET, "BROKERS": brokers, "TOPIC": _topic(name)}
    return Receiver(name, [*command, "--no-access-log", "--log-level", "error"], environ)


def _topic(name: str) -> str:
    return f"bench-{os.getpid()}-{name}"


def in_go(brokers: str, port: int) -> Receiver | None:
    """Return the receiver in Go; None where it cannot be built."""
    if shutil.which("go") is None:
        return None
    program = _CACHE / "peer"
    _CACHE.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(["go", "build", "-o", program, "."], cwd=_PEERS, check=False)
    command = [str(program), f"127.0.0.1:{port}", brokers, _topic("Go")]
    return Receiver("Go", command, {"SECRET": SECRET, "GOMAXPROCS": "1"}) if not built.returncode else None


def in_fastapi(brokers: str, port: int) -> Receiver | None:
    """Return the receiver of FastAPI and aiokafka; None where these cannot be installed."""
    python = _CACHE / "fastapi" / "bin" / "python"
    if not python.exists():
        packages = ["fastapi", "aiokafka", "uvicorn[standard]", "orjson"]
        commands = [
            [sys.executable, "-m", "venv", str(python.parents[1])],
            [str(python), "-m", "pip", "install", "-q", *packages],
        ]
        if any(subprocess.run(command, check=False).returncode for command in commands):
            shutil.rmtree(python.parents[1], ignore_errors=True)
            return None
    return by_hand("fastapi", brokers, port, str(python))


@contextmanager
def running(receiver: Receiver, port: int, processors: Collection[int]) -> Iterator[int]:
    """Run a receiver on some processors, and return its process id once it listens."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **receiver.environ}
    process = subprocess.Popen(
        receiver.command,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),  # noqa: PLW1509 - no threads are started here
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{receiver.name} does not listen")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(folder: Path, port: int, seconds: int, connections: int) -> tuple[float, float, float, int]:
    """Send deliveries; return requests a second, the median and p99 in milliseconds, and failed requests."""
    completed = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
            *("--latency", "--script", str(folder / "wrk.lua"), f"http://127.0.0.1:{port}"),
        ],
        env={**os.environ, "DELIVERIES": str(folder / "deliveries.lua")},
        capture_output=True,
        text=True,
        check=True,
    )
    result = _RESULT.search(completed.stdout)
    if result is None:
        raise RuntimeError(f"wrk says {completed.stdout}{completed.stderr}")
    rate, median, p99, failed = result.groups()
    return float(rate), float(median), float(p99), int(failed)


def measure_round(
    receiver: Receiver,
    folder: Path,
    port: int,
    seconds: int,
    connections: int,
    *,
    processors: Collection[int],
) -> Round:
    """Measure a receiver once, after it is warm."""
    with running(receiver, port, processors) as pid:
        send(folder, port, _WARM_UP_SECONDS, connections)
        before = read_usage(pid).cpu_seconds
        rate, median, p99, failed = send(folder, port, seconds, connections)
        usage = read_usage(pid)
    if not rate:
        raise RuntimeError(f"{receiver.name} answered nothing")
    return Round(rate, median, p99, failed, (usage.cpu_seconds - before) / (rate * seconds) * 1e6, usage)


def measure(rounds: int, seconds: int, connections: int) -> list[Figures]:
    """Measure all receivers in turn, several times, and then ours with one worker and with two."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-receive-")))
        write_deliveries(folder / "deliveries.lua")
        (folder / "wrk.lua").write_text(_SCRIPT % path_of("calendly"), encoding="ascii")
        os.sched_setaffinity(0, _OTHERS or [_FIRST])  # and so the broker and wrk
        brokers = ",".join(stack.enter_context(running_broker()).servers)
        with closing(KafkaAdminClient(bootstrap_servers=brokers)) as admin:
            topic = {"num_partitions": 6, "replication_factor": 1}
            admin.create_topics(dict.fromkeys(map(_topic, ("Go", "fastapi")), topic), wait_for_metadata=True)
        port = free_port()
        logs = {"Kafka": f"kafka://{brokers}", "embedded log": f"sqlite:///{folder}/log.db"}

        def results(
            receivers: Iterable[Receiver | None], processors: Collection[int]
        ) -> dict[str, list[Round]]:
            measured: dict[str, list[Round]] = {receiver.name: [] for receiver in receivers if receiver}
            for receiver in [*filter(None, receivers)] * rounds:
                result = measure_round(receiver, folder, port, seconds, connections, processors=processors)
                measured[receiver.name].append(result)
            return measured

        alone = results(
            [
                by_hand("ceiling", brokers, port),
                in_go(brokers, port),
                in_fastapi(brokers, port),
                *(ours(folder, f"ours, {name}", log, port) for name, log in logs.items()),
            ],
            {_FIRST},
        )
        shared = [_FIRST, *_OTHERS]
        os.sched_setaffinity(0, shared)
        several = [
            figures(
                f"Ours on all cores with the sender and the broker, {title}",
                results(
                    [
                        ours(folder, name, log, port, workers)
                        for name, workers in (("one worker", 1), ("two workers", 2))
                    ],
                    shared,
                ),
                "one worker",
            )
            for title, log in logs.items()
        ]
        return [figures("Receivers on one core, medians of all rounds", alone, "Go"), *several]


def figures(title: str, results: Mapping[str, Sequence[Round]], base: str) -> Figures:
    """Return the medians of all rounds, and how many times the requests of `base` each answers."""
    columns = [
        *("receiver", "requests/s", f"of {base}", "p50, ms", "p99, ms"),
        *("processor, µs", "memory, MiB", "failed"),
    ]
    rates = {name: statistics.median(result.rate for result in rounds) for name, rounds in results.items()}
    rows = [
        (
            name,
            f"{rates[name]:.0f}",
            f"{rates[name] / rates[base]:.2f}" if base in rates else "",
            f"{statistics.median(result.median for result in rounds):.1f}",
            f"{statistics.median(result.p99 for result in rounds):.1f}",
            f"{statistics.median(result.cpu_microseconds for result in rounds):.0f}",
            f"{max(result.usage.mebibytes for result in rounds):.0f}",
            str(sum(result.failed for result in rounds)),
        )
        for name, rounds in results.items()
    ]
    return Figures(title, columns, rows)


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of each round")
    parser.add_argument("--connections", type=int, default=64)
    add_write_option(parser)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed: install it, for example with `apt-get install wrk`")
    tables = measure(arguments.rounds, arguments.seconds, arguments.connections)
    show("receive", tables, write=arguments.write)


if __name__ == "__main__":
    main()
