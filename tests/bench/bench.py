"""The main job under load: `python -m tests.bench.bench [--rate 500 --seconds 60 --log kafka://…]`.

Runs simulated vendors against `ingest up`, samples the memory of its processes, and prints one table. The
sender shares the machine with what it measures.
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

from ingest.cli.demo.report import DemoOptions, DemoReport, percentiles
from ingest.cli.demo.run import run_demo
from ingest.simulator.simulation import Chaos, Pace
from tests.bench.usage import processor_seconds

_SAMPLE_SECONDS = 0.5
_MIB = 1024 * 1024


@dataclass(slots=True)
class ResourceUsage:
    """The largest resident memory and the processor time of `ingest` processes, by command."""

    rss: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def sample(self) -> None:
        """Read the figures of the processes that the demo started from /proc."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                if b"--with-parent" in arguments:
                    self._note(arguments[3].decode(), folder)
            except OSError:
                continue  # the process has ended

    def _note(self, name: str, folder: Path) -> None:
        pages = int((folder / "statm").read_text().split()[1])
        self.rss[name] = max(self.rss.get(name, 0), pages * os.sysconf("SC_PAGE_SIZE"))
        self.cpu[name] = processor_seconds(folder)


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500, help="webhooks a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--log", default="", help='"" for the embedded log, or kafka://host:port')
    arguments = parser.parse_args()
    usage, done = ResourceUsage(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(usage, done))
    sampler.start()
    with TemporaryDirectory(prefix="ingest-bench-") as folder:
        options = DemoOptions(Path(folder), Pace(arguments.rate, arguments.seconds), arguments.log)
        started = time.monotonic()
        report = uvloop.run(run_demo(options, quiet=True, chaos=Chaos(delayed=0.1, delay=1.0)))
        done.set()
        sampler.join()
        _print(report, usage, time.monotonic() - started)


def _sample(usage: ResourceUsage, done: threading.Event) -> None:
    while not done.wait(_SAMPLE_SECONDS):
        usage.sample()


def _print(report: DemoReport, usage: ResourceUsage, seconds: float) -> None:
    summary = report.summary()
    pace = report.options.pace
    responses = sum(report.stats.answers.values())
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    title = f"{pace.rate:g} webhooks/s for {pace.seconds:g} s, {machine}"
    table = Table("measure", "value", title=title)
    table.add_row("log", report.options.log or "embedded (SQLite)")
    table.add_row("distinct webhooks accepted", str(summary["webhooks"]))
    table.add_row(
        "requests answered", f"{responses} ({responses / pace.seconds:.0f}/s): {summary['answers']}"
    )
    table.add_row("POST to answer, s", _spread(percentiles(report.stats.latencies)))
    table.add_row("POST to row visible, s", _spread(percentiles(report.monitor.freshness)))
    for name in sorted(usage.rss):
        table.add_row(f"{name}: memory", f"{usage.rss[name] / _MIB:.0f} MiB at most")
        table.add_row(
            f"{name}: processor",
            f"{usage.cpu[name]:.1f} s, {usage.cpu[name] / responses * 1e6:.0f} µs a request",
        )
    cpu_seconds = time.process_time()
    table.add_row(
        "simulator and watcher: processor",
        f"{cpu_seconds:.1f} s, {cpu_seconds / responses * 1e6:.0f} µs a request",
    )
    wrong, expected = {difference.booking_id for difference in report.differences}, report.expected_bookings
    table.add_row("bookings right", f"{expected - len(wrong)} of {expected}")
    table.add_row("whole run", f"{seconds:.1f} s")
    Console(width=120).print(table)


def _spread(seconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in seconds.items())


if __name__ == "__main__":
    main()
