"""`up`: receiver, consumer and reconciliation in one, each in a process of its own."""

import signal
import threading

import structlog
import typer

from ingest.cli.child_process import ChildProcess
from ingest.cli.exit_codes import ExitCode
from ingest.cli.options import Config, read_settings
from ingest.settings.sources import Live, Snapshot, load_snapshot, watched_paths
from ingest.telemetry import configure_logging

log = structlog.get_logger()

_POLL_SECONDS = 0.2
_AT_LIMIT = "the dead-letter limit; webhooks are still taken. Fix the cause, then start again"


def up(config: Config = None) -> None:
    """Run everything in one: receiver, consumer and reconciliation, each started again when it dies.

    Example:
        ingest up   # stop with Ctrl-C: what was accepted is kept, what was not loaded is loaded next time
    """
    from receivers.accounts import ready_accounts

    ready_accounts(read_settings(config))
    configure_logging("up")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    raise typer.Exit(Supervisor(Live(load_snapshot, watched_paths())).run(stop))


class Supervisor:
    """The processes of `up`: consumer, receiver, and reconciliation once an account has what it needs."""

    def __init__(self, settings: Live[Snapshot]) -> None:
        """Start the processes."""
        self._settings = settings
        self._children = [ChildProcess(settings, "consume"), ChildProcess(settings, "receive")]
        self._checked: Snapshot | None = None  # the last settings in which no account could be reconciled
        self._start_reconciliation()
        if not self._is_reconciling():
            log.warning(
                "up.not_reconciling",
                why="no account has what reconciliation needs: what a vendor fails to deliver is not found",
            )

    def run(self, stop: threading.Event) -> int:
        """Run until `stop` is set, or a required process cannot run at all.

        Returns the exit code, and stops them all, the receiver first.
        """
        code = self._supervise(stop)
        for child in reversed(self._children):  # nothing new comes in while the rest is loaded
            child.stop()
        return code

    def _supervise(self, stop: threading.Event) -> int:
        limit_code = 0
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
