"""How commands end: at once, whatever still waits, and without a traceback after Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.polling import PATIENCE
from tests.support.processes import COMMAND, environment

# A thread of a pool, as those that sit out a vendor's pause, and then how the command ends.
WAITING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from ingest.cli import commands, main

def run():
    ThreadPoolExecutor(1).submit(Event().wait)
    print("told", end="")
    {end}

commands.run = run
main()
"""
# Imports nothing that is not there yet, for ever.
IMPORTING = """
import sys

class Slow:
    def find_spec(self, name, *_):
        if name == "ingest.cli.commands":
            print("importing", flush=True)
            while True:
                pass

sys.meta_path.insert(0, Slow())
from ingest.cli import main
main()
"""

BUSY = """
from ingest.cli import commands, main

@commands.app.command()
def busy() -> None:
    {body}

import sys
sys.argv = ["ingest", "busy"]
main()
"""


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        ("return 3", 3, ""),
        ("raise KeyboardInterrupt", 130, "stopped"),
        ("raise ValueError('odd')", 1, "ValueError: odd"),
    ],
)
def test_a_thread_that_waits_holds_no_command(end: str, code: int, last: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", WAITING.format(end=end)]
    completed = subprocess.run(
        program,
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (completed.returncode, completed.stdout, completed.stderr.strip().rpartition("\n")[2]) == (
        code,
        "told",
        last,
    )


def test_an_interrupt_while_the_commands_are_imported_shows_no_traceback(tmp_path: Path) -> None:
    assert interrupted(IMPORTING, "importing", tmp_path) == (130, "stopped\n")


@pytest.mark.parametrize(
    "body",
    [
        "import time; print('busy', flush=True); time.sleep(300)",
        # a library that waits in its own code, and never comes back to Python to look for a signal
        (
            "import ctypes; print('busy', flush=True); ctypes.PyDLL(None).sleep(300); "
            "ctypes.CDLL(None).sleep(300)"
        ),
        (
            "import duckdb; print('busy', flush=True); duckdb.execute('select count(*) from "
            "range(100000000) a, range(100000000) b where a.range + b.range = 7').fetchall()"
        ),
    ],
    ids=["sleeping", "in a library", "in a query"],
)
def test_an_interrupt_ends_a_command_wherever_it_is(body: str, tmp_path: Path) -> None:
    assert interrupted(BUSY.format(body=body), "busy", tmp_path) == (130, "stopped\n")


def test_what_cannot_be_written_is_one_line_and_a_failure(tmp_path: Path) -> None:
    for arguments in (["--version"], ["query", "--help"]):
        with Path("/dev/full").open("w") as full:
            completed = subprocess.run(
                [*COMMAND, *arguments],
                cwd=tmp_path,
                env=surroundings(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        assert completed.returncode == 1
        assert completed.stderr.count("\n") == 1, completed.stderr
        assert "No space left on device" in completed.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"], ["init", "--schema"], ["--version"]])
def test_help_and_the_like_end_quietly_when_nobody_reads_them(arguments: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        completed = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=surroundings(),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (completed.returncode, completed.stderr) == (141, b"")


def interrupted(program: str, word: str, folder: Path) -> tuple[int, str]:
    """Return exit code and standard error of a program that is interrupted once it has printed the word."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=folder, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == f"{word}\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, errors


def surroundings() -> dict[str, str]:
    """Return an environment in which the project can be imported."""
    return environment(PYTHONPATH=str(Path(__file__).parents[3]))
