"""`python -m ingest` in a folder and an environment of one's own."""

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
    """What a command said, where, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, all of it, as one JSON document."""
        return json.loads(self.out)


def environment(**extra: str) -> dict[str, str]:
    """The surroundings of every command: nothing of ours, no colour, wide lines."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    return {**own, "COLUMNS": "250", **extra}


def ingest(folder: Path, *arguments: str, **environ: str) -> Result:
    """Runs a command to its end."""
    done = subprocess.run(
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
    return Result(done.returncode, done.stdout, done.stderr)


def refused(result: Result, code: int = 2) -> str:
    """The one thing that is said when a command will not: a message, no traceback, nothing on standard output."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    return result.err.removeprefix("error: ").rstrip("\n")
