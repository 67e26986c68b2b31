"""Tables of figures, printed and written into docs/benchmarks.md."""

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

import ingest
from tests.support.generated import replace_block

FILE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_PACKAGES = ("dlt", "duckdb", "pyarrow", "confluent-kafka", "uvicorn")
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Figures:
    """A table of figures: its title, the names of its columns, and its rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self) -> None:
        """Print the table."""
        table = Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        Console(width=130).print(table)

    def markdown(self) -> list[str]:
        """Return the table's lines as Markdown."""
        rule = ["---"] * len(self.columns)
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows)]
        return [f"{self.title}:", "", *lines, ""]


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that writes the figures into docs/benchmarks.md."""
    parser.add_argument("--write", action="store_true", help="also write the table into docs/benchmarks.md")


def show(block: str, tables: Sequence[Figures], *, write: bool) -> None:
    """Print tables, and write them into a block of docs/benchmarks.md if asked to."""
    for table in tables:
        table.print()
    if write:
        lines = [line for table in tables for line in table.markdown()]
        FILE.write_text(replace_block(FILE.read_text(), block, [*lines, f"{describe_machine()}."]))


def describe_machine() -> str:
    """Return when, on what machine, and with which versions something is measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores ({_processor()}),"
        f" {memory:.0f} GiB, {platform.system()} {platform.machine()}, Python {platform.python_version()},"
        f" bookings-ingest {ingest.__version__}, {packages}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"
