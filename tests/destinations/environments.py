"""Packages that only one destination or emulator needs, installed once, each set in a folder of its own.

They are not among the development tools, because emulators need other versions than the product.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

from tests.support.polling import get, wait_for
from tests.support.processes import ROOT, IngestProcess, environment

REQUIRED = "INGEST_TEST_REQUIRE_DESTINATIONS"
_CACHE = ROOT / ".cache" / "destinations"
_INSTALL_SECONDS = 400


def unavailable(reason: str) -> NoReturn:
    """Skip the test; fail it where the environment requires destinations."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def python_packages(name: str, *requirements: str) -> Path:
    """Return a folder for PYTHONPATH with these packages and all that they need.

    Without a package index the test is skipped.
    """
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", *requirements]
    return _installed(name, [*command, "--target"], sys.version)


def npm_packages(name: str, *requirements: str) -> Path:
    """Return a folder with these packages of npm in its `node_modules`; skip the test without npm."""
    command = ["npm", "install", "--no-fund", "--no-audit", "--ignore-scripts", *requirements]
    return _installed(name, [*command, "--prefix"])


def _installed(name: str, command: Sequence[str], version: str = "") -> Path:
    """Run the command, which ends with the option for the folder, unless it was run before."""
    digest = hashlib.sha256(f"{command} {version}".encode()).hexdigest()[:12]
    folder = _CACHE / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                target = Path(unfinished) / "packages"
                target.mkdir()
                try:
                    subprocess.run(
                        [*command, str(target)],
                        check=True,
                        cwd=ROOT,
                        capture_output=True,
                        text=True,
                        timeout=_INSTALL_SECONDS,
                    )
                except FileNotFoundError as error:
                    unavailable(f"{name} cannot be installed: {error}")
                except subprocess.SubprocessError as error:
                    unavailable(f"{name} cannot be installed: {getattr(error, 'stderr', '') or error}")
                target.rename(folder)
    return folder


@contextmanager
def running_server(
    folder: Path, name: str, command: Sequence[str], url: str, **environ: str
) -> Iterator[IngestProcess]:
    """Run an emulator until the context is left; on entry it answers at this URL."""
    with IngestProcess(folder, name, command, environment(**environ)) as process:

        def answers() -> bool:
            assert process.running, process.written()[-3000:]
            return get(url) is not None

        wait_for(answers, f"{name} answers")
        yield process
