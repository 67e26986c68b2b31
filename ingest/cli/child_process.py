"""Child processes of `up`, which get the settings of their parent and end when it does."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Annotated

import structlog
import typer

from ingest.cli.exit_codes import ExitCode
from ingest.cli.options import read_settings
from ingest.errors import ConfigurationError
from ingest.private_file import remove_left_copies
from ingest.settings import Settings
from ingest.settings.sources import Live, Snapshot, current_secrets_path

log = structlog.get_logger()

WithParent = Annotated[
    bool, typer.Option("--with-parent", hidden=True, help="Stop when standard input closes.")
]
WithSettings = Annotated[
    bool,
    typer.Option(
        "--with-settings", hidden=True, help="Take the settings from the first line of standard input."
    ),
]

_READ_BYTES = 1 << 16
_STOP_SECONDS = 30
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_WORKING_SECONDS = 20.0  # a child that lives for so long takes its settings


class ChildProcess:
    """A command of `ingest` in a process that is restarted, more and more slowly, when it dies.

    It gets the last settings that could be read, and, when it refuses those, the last that it has worked
    with.
    """

    def __init__(self, settings: Live[Snapshot], *command: str, required: bool = True) -> None:
        """Start the process.

        When it is `required` and refuses the only settings there are, `poll` returns its exit code.
        """
        self.name = command[0]
        self._settings = settings
        self._command = command
        self._required = required
        self._pause = _FIRST_PAUSE_SECONDS
        self._restart_at: float | None = None
        self._working_settings: Snapshot | None = None
        self._process = self._start(settings.current())

    def _start(self, snapshot: Snapshot) -> "subprocess.Popen[bytes]":
        self._started_at, self._started_with = time.monotonic(), snapshot
        command = [sys.executable, "-m", "ingest", *self._command, "--with-parent", "--with-settings"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        # In a thread, because settings larger than the pipe's buffer wait until the child reads them.
        threading.Thread(target=_send_settings, args=(process, snapshot), daemon=True).start()
        return process

    def poll(self) -> int | None:
        """Restart the process where that is due.

        Returns its exit code when a restart cannot help, else None.
        """
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._started_at > _WORKING_SECONDS:
                self._working_settings = self._started_with
            return None
        is_refused = code == ExitCode.REFUSED and self._required and not self._working_settings
        if code == ExitCode.DEAD_LETTER_LIMIT or is_refused:
            return code
        if self._restart_at is None:
            self._schedule_restart(code)
        elif time.monotonic() >= self._restart_at:
            self._restart_at = None
            self._process = self._start(self._next_settings(code))
        return None

    def _schedule_restart(self, code: int) -> None:
        if code != ExitCode.REFUSED:  # it took its settings, and died of something else
            self._working_settings = self._working_settings or self._started_with
        was_steady = time.monotonic() - self._started_at > _STEADY_SECONDS
        self._pause = _FIRST_PAUSE_SECONDS if was_steady else min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        pause, why = self._pause, "its last log lines tell"
        if code == ExitCode.REFUSED:
            why = "it refuses these settings, as its last log line tells"
            if self._working_settings and self._working_settings != self._started_with:
                pause = 0.0  # it goes back to settings that worked
        self._restart_at = time.monotonic() + pause
        log.error("up.child_died", child=self.name, exit_code=code, again_in_seconds=pause, why=why)

    def _next_settings(self, code: int) -> Snapshot:
        newest = self._settings.current()
        if code == ExitCode.REFUSED and newest == self._started_with and self._working_settings:
            return self._working_settings
        return newest

    def stop(self) -> None:
        """Stop the process cleanly; kill it when that takes too long, which loses nothing either."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("up.child_killed", child=self.name)
            self._process.kill()
            self._process.wait()


def _send_settings(process: "subprocess.Popen[bytes]", snapshot: Snapshot) -> None:
    """Write the settings to the child's standard input, and leave it open for as long as the parent lives."""
    if process.stdin:
        with suppress(OSError):  # the child died before it had read them
            process.stdin.write(snapshot.encode() + b"\n")
            process.stdin.flush()


def receive_settings(config: str | None, with_settings: bool) -> Settings:
    """Return the settings that the parent writes to standard input, or those of the files.

    Raises ConfigurationError.

    They hold secrets, so they come through a pipe that nobody else can read, and not in arguments or the
    environment. Files with secrets that a killed process left behind are removed.
    """
    settings = _read_sent_settings() if with_settings else read_settings(config)
    remove_left_copies(current_secrets_path().resolve())
    return settings


def _read_sent_settings() -> Settings:
    line = bytearray()
    while not line.endswith(b"\n") and (part := os.read(sys.stdin.fileno(), _READ_BYTES)):
        line += part
    try:
        return Snapshot.decode(bytes(line)).settings()
    except (ValueError, KeyError, TypeError):  # another version's, or cut off by the parent's end
        raise ConfigurationError("the settings that the parent process handed over cannot be read") from None


def stop_with_parent(with_parent: bool) -> None:
    """Stop this process when its parent ends, also by a crash: the parent holds our standard input open."""

    def wait_for_end() -> None:
        # Returns at the end of the file. Unbuffered, so that no lock is held when Python exits.
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    if with_parent:
        threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
