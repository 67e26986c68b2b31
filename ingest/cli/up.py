"""`receive`, `consume`, and `up`, which runs them, the dashboard and reconciliation as processes."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import structlog
import typer

from ingest.cli import ExitCode
from ingest.cli.options import (
    Config,
    WithParent,
    WithSettings,
    read_settings,
    receive_settings,
    stop_with_parent,
)
from ingest.settings.sources import Live, Snapshot, load_snapshot, watched_paths
from ingest.telemetry import configure_logging

log = structlog.get_logger()

_POLL_SECONDS = 0.2
_STOP_SECONDS = 30
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_WORKING_SECONDS = 20.0  # a child that lives for so long takes its settings
_AT_LIMIT = "the dead-letter limit; webhooks are still taken. Fix the cause, then start again"


def receive(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Take webhooks and append them to the log.

    Example:
        ingest receive --config ingest.toml
    """
    from receivers.server import serve

    settings = receive_settings(config, with_settings)
    configure_logging("receiver")
    stop_with_parent(with_parent)
    serve(settings)


def consume(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Load what is in the log into the warehouse.

    Example:
        ingest consume --config ingest.toml
    """
    from consumers.run import consume as run_consumer

    settings = receive_settings(config, with_settings)
    configure_logging("consumer")
    stop_with_parent(with_parent)
    run_consumer(settings)


def up(config: Config = None) -> None:
    """Run receiver, consumer, reconciliation and dashboard together, and start each again if it dies.

    Example:
        ingest up   # Ctrl-C stops it and loses nothing: what is not loaded yet is loaded next time
    """
    from receivers.accounts import ready_accounts

    ready_accounts(read_settings(config))
    configure_logging("up")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    raise typer.Exit(Supervisor(Live(load_snapshot, watched_paths())).run(stop))


class Supervisor:
    """The processes of `up`: consumer, receiver, dashboard, and reconciliation once an account can use it."""

    def __init__(self, settings: Live[Snapshot]) -> None:
        """Start the processes."""
        self._settings = settings
        receiver = ChildProcess(settings, "receive")  # first, for vendors do not wait
        self._children = [ChildProcess(settings, "consume"), receiver]
        self._children.append(ChildProcess(settings, "dashboard", required=False))
        self._checked: Snapshot | None = None  # the last settings in which no account could be reconciled
        self._start_reconciliation()
        if not self._is_reconciling():
            log.warning(
                "up.not_reconciling",
                why="no account has REST credentials, so what a vendor fails to deliver is not found",
            )

    def run(self, stop: threading.Event) -> int:
        """Run until `stop` is set, or a required process cannot run at all.

        Returns the exit code, and stops them all, the receiver first.
        """
        limit_code = 0
        try:
            while not stop.wait(_POLL_SECONDS):
                self._start_reconciliation()
                for child in list(self._children):
                    code = child.poll()
                    if code == ExitCode.DEAD_LETTER_LIMIT:
                        # It stops alone: vendors would switch off webhooks that no receiver takes.
                        log.error("up.consumer_stopped", why=_AT_LIMIT)
                        self._children.remove(child)
                        limit_code = code
                    elif code is not None:
                        return code
            return limit_code
        finally:
            for child in reversed(self._children):  # nothing new comes in while the rest is loaded
                child.stop()

    def _is_reconciling(self) -> bool:
        return any(child.name == "reconcile" for child in self._children)

    def _start_reconciliation(self) -> None:
        """Start reconciliation for the first account that has what it needs; it finds later ones itself."""
        snapshot = self._settings.current()
        if snapshot is self._checked or self._is_reconciling():
            return
        self._checked = snapshot
        if any(account.can_reconcile() for account in snapshot.settings().accounts.values()):
            self._children.append(ChildProcess(self._settings, "reconcile", "--watch", required=False))


class ChildProcess:
    """A command of `ingest` in a process that is restarted, more and more slowly, when it dies.

    It gets the last settings that could be read, and, when it refuses those, the last that it has worked
    with. It ends when this process does.
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

        def send_settings() -> None:
            """Write the settings to the child's standard input, and leave that open while we live."""
            if process.stdin:
                with suppress(OSError):  # the child died before it had read them
                    process.stdin.write(snapshot.encode() + b"\n")
                    process.stdin.flush()

        # In a thread, because settings larger than the pipe's buffer wait until the child reads them.
        threading.Thread(target=send_settings, daemon=True).start()
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
            snapshot = self._settings.current()
            if code == ExitCode.REFUSED and snapshot == self._started_with and self._working_settings:
                snapshot = self._working_settings
            self._process = self._start(snapshot)
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
