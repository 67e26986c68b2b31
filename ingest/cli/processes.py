"""`receive`, `consume`, and `up`, which runs both."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import structlog
import typer

from ingest.cli.options import Config, settings_of
from ingest.cli.parent import WithParent, WithSettings, follow_parent, handed_settings
from ingest.settings.live import Live
from ingest.settings.sources import Snapshot, load_snapshot, watched_paths
from ingest.telemetry import configure_logging

log = structlog.get_logger()

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 30
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_WORKING_SECONDS = 20.0  # a child that lives for so long takes its settings
# Exit codes of children: a setting is wrong, or the consumer stopped itself at the dead-letter limit.
_REFUSED, _AT_LIMIT = 2, 4


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (up, receive, consume):
        app.command()(command)


def receive(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Take webhooks and append them to the log.

    Example:
        ingest receive --config ingest.toml
    """
    from receivers.server import serve

    settings = handed_settings(config, with_settings)
    configure_logging("receiver")
    follow_parent(with_parent)
    serve(settings)


def consume(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Load what is in the log into the warehouse.

    Example:
        ingest consume --config ingest.toml
    """
    from consumers.run import consume as run

    settings = handed_settings(config, with_settings)
    configure_logging("consumer")
    follow_parent(with_parent)
    run(settings)


def up(config: Config = None) -> None:
    """Run everything in one: receiver, consumer and reconciliation, each started again when it dies.

    Example:
        ingest up   # stop with Ctrl-C: what was accepted is kept, what was not loaded is loaded next time
    """
    from receivers.app import ready_accounts

    ready_accounts(settings_of(config))
    configure_logging("up")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    raise typer.Exit(Supervisor(Live(load_snapshot, watched_paths())).run(stop))


class Child:
    """A process of ours that is started again, more and more slowly, when it dies.

    It gets the last settings that were whole, and, when it refuses those, the last that it has worked with.
    """

    def __init__(self, settings: Live[Snapshot], *command: str, needed: bool = True) -> None:
        """What is `needed` takes `up` down when it cannot run at all."""
        self.name = command[0]
        self._settings = settings
        self._command = command
        self._needed = needed
        self._pause = _FIRST_PAUSE_SECONDS
        self._due = 0.0
        self._worked_with: Snapshot | None = None
        self._process = self._start(settings.current())

    def _start(self, snapshot: Snapshot) -> "subprocess.Popen[bytes]":
        self._started, self._started_with = time.monotonic(), snapshot
        command = [sys.executable, "-m", "ingest", *self._command, "--with-parent", "--with-settings"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        threading.Thread(
            target=_hand_over, args=(process, snapshot), daemon=True
        ).start()  # large ones wait until it reads
        return process

    def look(self) -> int | None:
        """None while all is well or will be; the exit code when starting again cannot help."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._started > _WORKING_SECONDS:
                self._worked_with = self._started_with
            return None
        if code == _AT_LIMIT or (code == _REFUSED and self._needed and not self._worked_with):
            return code
        if not self._due:
            self._plan_restart(code)
        elif time.monotonic() >= self._due:
            self._due = 0.0
            self._process = self._start(self._next_settings(code))
        return None

    def _next_settings(self, code: int) -> Snapshot:
        newest = self._settings.current()
        refused = code == _REFUSED and newest == self._started_with
        return self._worked_with if refused and self._worked_with else newest

    def _plan_restart(self, code: int) -> None:
        if code != _REFUSED:
            self._worked_with = self._worked_with or self._started_with  # it died of something else
        steady = time.monotonic() - self._started > _STEADY_SECONDS
        self._pause = _FIRST_PAUSE_SECONDS if steady else min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        goes_back = (
            code == _REFUSED and self._worked_with is not None and self._worked_with != self._started_with
        )
        pause = 0.0 if goes_back else self._pause
        self._due = time.monotonic() + pause
        why = (
            "it refuses these settings, as its last log line tells"
            if code == _REFUSED
            else "its last log lines tell"
        )
        log.error("up.child_died", child=self.name, exit_code=code, again_in_seconds=pause, why=why)

    def stop(self) -> None:
        """A clean stop; a kill when that takes too long, which loses nothing either."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("up.child_killed", child=self.name)
            self._process.kill()
            self._process.wait()


def _hand_over(process: "subprocess.Popen[bytes]", snapshot: Snapshot) -> None:
    """Write the settings to the child, and leave the pipe open: its end is the parent's."""
    if process.stdin:
        with suppress(OSError):  # it died before it had read them
            process.stdin.write(snapshot.encode() + b"\n")
            process.stdin.flush()


class Supervisor:
    """Runs the processes of `up`: consumer and receiver, and reconciliation from when an account has what that needs."""

    def __init__(self, settings: Live[Snapshot]) -> None:
        self._settings = settings
        self._children = [Child(settings, "consume"), Child(settings, "receive")]
        self._looked_at: Snapshot | None = None
        self._follow_accounts()
        if not self._is_reconciling():
            log.warning(
                "up.not_reconciling",
                why="no account has what reconciliation needs: what a vendor fails to deliver is not found",
            )

    def run(self, stop: threading.Event) -> int:
        """Until `stop` is set, or one that is needed cannot run at all: the exit code. All are stopped then, the receiver first."""
        code = self._supervise(stop)
        for child in reversed(self._children):  # nothing new comes in while the rest is loaded
            child.stop()
        return code

    def _supervise(self, stop: threading.Event) -> int:
        """A consumer at its limit stops alone, or webhooks would be refused and switched off."""
        limited = 0
        while not stop.wait(_LOOK_SECONDS):
            self._follow_accounts()
            for child in list(self._children):
                code = child.look()
                if code == _AT_LIMIT:
                    log.error(
                        "up.consumer_stopped",
                        why="the dead-letter limit; webhooks are still taken. Mend the cause, then start again",
                    )
                    self._children.remove(child)
                    limited = code
                elif code is not None:
                    return code
        return limited

    def _is_reconciling(self) -> bool:
        return any(child.name == "reconcile" for child in self._children)

    def _follow_accounts(self) -> None:
        """Start reconciliation with the first account that can be reconciled; those that come later it finds by itself."""
        snapshot = self._settings.current()
        if snapshot is self._looked_at or self._is_reconciling():
            return
        self._looked_at = snapshot
        if any(settings.can_reconcile() for settings in snapshot.settings().accounts.values()):
            self._children.append(Child(self._settings, "reconcile", "--watch", needed=False))
