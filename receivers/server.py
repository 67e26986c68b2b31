"""The receiver's processes: one, or several workers that share a socket, and the admin listener."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from math import ceil
from socket import socket

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from ingest.admin import registry, serve_admin
from ingest.files import scratch_folder
from ingest.log_probes import AppendProbe
from ingest.readiness import Finding, failed
from ingest.service_manager import exit_cleanly, notify_ready
from ingest.settings import Settings
from ingest.settings.sources import Live, load_settings, watched_paths
from ingest.sockets import bind
from ingest.times import describe_duration
from ingest.traces import require_traces
from receivers import clock
from receivers.accounts import ready_accounts
from receivers.app import create_app
from receivers.http_protocol import HttpConfig
from receivers.spool.folder import drain_leftovers, readiness, require_own_spool

log = structlog.get_logger()

# Longer than a delivery may wait for the log, so that a stop never cuts one off; shorter than orchestrators
# wait to kill.
_GRACEFUL_SECONDS = 15
_WORKER_START_SECONDS = 10


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Raises ConfigurationError, LogUnavailable.
    """
    # What cannot work is reported once, here, and not by every worker.
    ready_accounts(settings)
    require_own_spool(settings)
    require_traces(settings)
    if not settings.uses_spool:
        settings.build_log().producer().close()
    receiver = settings.receiver
    listening = threading.Event()
    live = Live(load_settings, watched_paths(), first=settings)
    probe = AppendProbe(settings)
    admin_port = serve_admin(
        receiver,
        "receiver",
        {"receiver": lambda: [*_readiness(settings, probe, listening), *live.findings()]},
    )
    if not settings.uses_spool:
        drain_leftovers(settings)
    sock = bind(receiver.host, receiver.port, "receiver.port")
    listening.set()
    port: int = sock.getsockname()[1]
    log.info(
        "receiver.listening", host=receiver.host, port=port, admin_port=admin_port, workers=receiver.workers
    )
    signal.signal(signal.SIGTERM, exit_cleanly)
    notify_ready()
    try:
        if receiver.workers > 1:
            _run_workers(settings, WorkerApp(live), sock)
        else:
            uvicorn.Server(_http_config(settings, partial(create_app, settings))).run([sock])
    finally:  # a single process leaves uvicorn by a signal that uvicorn raises again
        log.info("receiver.stopped")


class WorkerApp:
    """The factory of a worker's application, with the settings as they were when the worker started.

    So a worker that dies comes back even while a file has a mistake in it.
    """

    def __init__(self, live: Live[Settings]) -> None:
        self._live = live

    def __reduce__(self) -> tuple[Callable[[Settings], Callable[[], Starlette]], tuple[Settings]]:
        """Pickle the current settings for a new process."""
        return _worker_factory, (self._live.current(),)

    def __call__(self) -> Starlette:
        """Create the application in the process that starts the workers."""
        return create_app(self._live.current())


def _worker_factory(settings: Settings) -> Callable[[], Starlette]:
    return partial(_create_worker_app, settings)


def _create_worker_app(settings: Settings) -> Starlette:
    # A worker stops with the process that started it: it would go on holding the port.
    threading.Thread(target=_stop_after_parent, name="parent", daemon=True).start()
    return create_app(settings)


def _readiness(settings: Settings, probe: AppendProbe, listening: threading.Event) -> Sequence[Finding]:
    if not listening.is_set():
        return [
            failed(
                "receiver",
                "records that wait in the spool are moved into the log before anything newer is taken",
            )
        ]
    return [*readiness(settings, probe), *_judge_unacknowledged(settings), clock.readiness(settings)]


def _judge_unacknowledged(settings: Settings) -> list[Finding]:
    """Return a failure where appends have waited, or failed, for longer than a delivery may take."""
    seconds = registry().get_sample_value("ingest_oldest_undone_seconds") or 0.0
    if seconds <= settings.receiver.append_timeout.total_seconds():
        return []
    waited = describe_duration(timedelta(seconds=seconds))
    return [
        failed(
            "undone",
            f"the log has not acknowledged what was delivered {waited} ago, and deliveries are answered 503",
            "the receiver's log says why (delivery.unavailable)",
        )
    ]


def _run_workers(settings: Settings, app: WorkerApp, sock: socket) -> None:
    with scratch_folder("ingest-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        Multiprocess(_http_config(settings, app), [sock]).run()


def _http_config(settings: Settings, app: Callable[[], Starlette]) -> HttpConfig:
    receiver = settings.receiver
    return HttpConfig(
        app,
        factory=True,
        host=receiver.host,
        port=receiver.port,
        workers=receiver.workers,
        ws="none",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        # X-Forwarded-* is whatever a caller writes there, and nothing here depends on it
        proxy_headers=False,
        limit_concurrency=receiver.connection_limit,
        head_timeout=receiver.head_timeout.total_seconds(),
        timeout_keep_alive=ceil(receiver.keep_alive.total_seconds()),
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_worker_healthcheck=_WORKER_START_SECONDS,
    )


def _stop_after_parent() -> None:
    """Wait for the process that started this worker, then stop."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
