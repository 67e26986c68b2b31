"""Runs `python -m ingest` in a folder and an environment of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "ingest"]
PATIENCE = 120.0  # long, for a slow machine; a test that passes never waits for it

# What would choose other settings, or colour the output.
_NOT_OURS = (
    "INGEST_",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "PY_COLORS",
    "CLICOLOR",
    "NO_COLOR",
    "COLUMNS",
    "PYTHONWARNINGS",
)


@dataclass(frozen=True, slots=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of every command: no settings of ours, no colour, wide lines."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    return {**variables, "COLUMNS": "250", **extra}


def ingest(folder: Path, *arguments: str, **environ: str) -> Result:
    """Run a command to its end."""
    completed = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(**environ),
        umask=0,  # so that what is private is so by our doing
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(completed.returncode, completed.stdout, completed.stderr)


def refused(result: Result, code: int = 2) -> str:
    """Return the only message of a command that refuses: no traceback, nothing on standard output."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    return result.err.removeprefix("error: ").rstrip("\n")
