"""The commands of long tests: a folder that stays after a failure, and results as table or JSON."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table


class Outcome(Protocol):
    """What is reported."""

    def faults(self) -> object:
        """Empty when all is right."""

    def summary(self) -> dict[str, Any]:
        """Everything worth knowing, by name."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of `carry_out`."""
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--keep", action="store_true", help="the folder, with all logs, also when all was right"
    )


def carry_out(name: str, options: argparse.Namespace, run: Callable[[Path], Outcome]) -> int:
    """Return the exit code; 1 when something was wrong."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="ingest-long-run-"))
    right = False
    try:
        outcome = run(folder)
        right = not outcome.faults()
        _show(f"{name}: {'all right' if right else 'WRONG'}", outcome.summary(), as_json=options.json)
    finally:
        if right and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"settings, logs and data are in {folder}", file=sys.stderr)
    return 0 if right else 1


def _show(title: str, summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    table = Table("", "", title=title)
    for name, value in summary.items():
        parts = [f"{key}: {count}" for key, count in value.items()] if isinstance(value, dict) else value
        table.add_row(
            name,
            "\n".join(map(str, parts)) if isinstance(parts, list) else str(parts),
            end_section=isinstance(value, dict),
        )
    Console(width=140).print(table, markup=False)
