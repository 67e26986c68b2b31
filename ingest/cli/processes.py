"""`receive`, `consume`, and `up`, which runs both."""

import signal
import subprocess
import sys
import threading
import time

import structlog
import typer

from ingest.cli.options import Config, settings_of
from ingest.cli.parent import WithParent, follow_parent
from ingest.telemetry import configure_logging

log = structlog.get_logger()

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 30
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
# Exit codes that starting again cannot mend: a wrong setting, the dead-letter limit.
_AT_LIMIT = 4
_FINAL = {2, _AT_LIMIT}


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (up, receive, consume):
        app.command()(command)


def receive(config: Config = None, with_parent: WithParent = False) -> None:
    """Take webhooks and append them to the log.

    Example:
        ingest receive --config ingest.toml
    """
    from receivers.serve import serve

    settings = settings_of(config)
    configure_logging("receiver")
    follow_parent(with_parent)
    serve(settings)


def consume(config: Config = None, with_parent: WithParent = False) -> None:
    """Load what is in the log into the warehouse.

    Example:
        ingest consume --config ingest.toml
    """
    from consumers.run import consume as run

    settings = settings_of(config)
    configure_logging("consumer")
    follow_parent(with_parent)
    run(settings)


def up(config: Config = None) -> None:
    """Run everything in one: receiver, consumer and reconciliation, each started again when it dies.

    Example:
        ingest up   # stop with Ctrl-C: what was accepted is kept, what was not loaded is loaded next time
    """
    from receivers.app import ready_vendors

    settings = settings_of(config)
    configure_logging("up")
    ready_vendors(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children = [Child("consume"), Child("receive")]
    if any(account.can_reconcile() for account in settings.accounts.values()):
        children.append(Child("reconcile", "--watch", needed=False))
    else:
        log.warning("up.not_reconciling", why="no account has what reconciliation needs: what a vendor fails to deliver is not found")
    code = _supervise(children, stop)
    for child in reversed(children):  # nothing new comes in while the rest is loaded
        child.stop()
    raise typer.Exit(code)


class Child:
    """A process of ours that is started again, more and more slowly, when it dies. What is `needed` takes `up` down when it cannot run."""

    def __init__(self, *command: str, needed: bool = True) -> None:
        self._command = command
        self.needed = needed
        self._pause = _FIRST_PAUSE_SECONDS
        self._due = 0.0
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._started = time.monotonic()
        command = [sys.executable, "-m", "ingest", *self._command, "--with-parent"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def look(self) -> int | None:
        """None while all is well; the exit code when starting again cannot help."""
        code = self._process.poll()
        if code is None or code in _FINAL:
            return code
        if not self._due:
            self._plan_restart(code)
        elif time.monotonic() >= self._due:
            self._due = 0.0
            self._process = self._start()
        return None

    def _plan_restart(self, code: int) -> None:
        steady = time.monotonic() - self._started > _STEADY_SECONDS
        self._pause = _FIRST_PAUSE_SECONDS if steady else min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        self._due = time.monotonic() + self._pause
        log.error("up.child_died", child=self._command[0], exit_code=code, again_in_seconds=self._pause)

    def stop(self) -> None:
        """A clean stop; a kill when that takes too long, which loses nothing either."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("up.child_killed", child=self._command[0])
            self._process.kill()
            self._process.wait()


def _supervise(children: list[Child], stop: threading.Event) -> int:
    """Ends with the first child that cannot run; but a consumer at its limit stops alone, or webhooks would be refused and switched off."""
    limited = 0
    while not stop.wait(_LOOK_SECONDS):
        for child in list(children):
            code = child.look()
            if code == _AT_LIMIT:
                log.error("up.consumer_stopped", why="the dead-letter limit; webhooks are still taken. Mend the cause, then start again")
                children.remove(child)
                limited = code
            elif code is not None and not child.needed:
                log.error("up.reconcile_stopped", exit_code=code, why="its last log line tells; webhooks are still taken and loaded")
                children.remove(child)
            elif code is not None:
                return code
    return limited
