"""The main job under load: `python -m tests.bench.bench [--rate 500 --seconds 60 --log kafka://…]`.

Runs simulated vendors against `ingest up`, samples the memory of its processes, and prints one table. The sender shares
the machine with what it measures.
"""

import argparse
import os
import platform
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from rich.console import Console
from rich.table import Table

from ingest.cli.demo.report import Outcome, Plan, percentiles
from ingest.cli.demo.run import run_demo
from ingest.simulator.rehearsal import Pace
from ingest.simulator.sender import Chaos

_SAMPLE_SECONDS = 0.5
_MIB = 1024 * 1024


@dataclass(slots=True)
class Processes:
    """The largest resident memory and the processor time of `ingest receive` and `ingest consume`, by what they run."""

    rss: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def sample(self) -> None:
        """Reads /proc for this user's processes started by the demo."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                if b"--with-parent" in arguments:
                    self._note(arguments[3].decode(), folder)
            except OSError:
                continue  # gone meanwhile

    def _note(self, name: str, folder: Path) -> None:
        pages = int((folder / "statm").read_text().split()[1])
        times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        self.rss[name] = max(self.rss.get(name, 0), pages * os.sysconf("SC_PAGE_SIZE"))
        self.cpu[name] = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures once and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500, help="webhooks a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--log", default="", help='"" for the embedded log, or kafka://host:port')
    asked = parser.parse_args()
    processes, done = Processes(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(processes, done))
    sampler.start()
    with TemporaryDirectory(prefix="ingest-bench-") as folder:
        plan = Plan(Path(folder), Pace(asked.rate, asked.seconds), asked.log)
        started = time.monotonic()
        outcome = uvloop.run(run_demo(plan, quiet=True, chaos=Chaos(delayed=0.1, delay=1.0)))
        done.set()
        sampler.join()
        _print(outcome, processes, time.monotonic() - started)


def _sample(processes: Processes, done: threading.Event) -> None:
    while not done.wait(_SAMPLE_SECONDS):
        processes.sample()


def _print(outcome: Outcome, processes: Processes, seconds: float) -> None:
    summary = outcome.summary()
    asked = outcome.plan.pace
    answered = sum(outcome.sent.answers.values())
    table = Table(
        "measure",
        "value",
        title=f"{asked.rate:g} webhooks/s for {asked.seconds:g} s, {os.cpu_count()} cores, Python {platform.python_version()}",
    )
    table.add_row("log", outcome.plan.log or "embedded (SQLite)")
    table.add_row("distinct webhooks accepted", str(summary["webhooks"]))
    table.add_row("requests answered", f"{answered} ({answered / asked.seconds:.0f}/s): {summary['answers']}")
    table.add_row("POST to answer, s", _spread(percentiles(outcome.sent.latencies)))
    table.add_row("POST to row visible, s", _spread(percentiles(outcome.watch.freshness)))
    for name in sorted(processes.rss):
        table.add_row(f"{name}: memory", f"{processes.rss[name] / _MIB:.0f} MiB at most")
        table.add_row(
            f"{name}: processor",
            f"{processes.cpu[name]:.1f} s, {processes.cpu[name] / answered * 1e6:.0f} µs a request",
        )
    own = time.process_time()
    table.add_row("simulator and watcher: processor", f"{own:.1f} s, {own / answered * 1e6:.0f} µs a request")
    table.add_row(
        "bookings right",
        f"{outcome.truth - len({wrong.booking_id for wrong in outcome.wrong})} of {outcome.truth}",
    )
    table.add_row("whole run", f"{seconds:.1f} s")
    Console(width=120).print(table)


def _spread(seconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in seconds.items())


if __name__ == "__main__":
    main()
