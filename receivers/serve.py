"""The receiver's processes: one, or several workers sharing a socket, and the admin listener beside them."""

import os
import signal
import sys
import tempfile
from types import FrameType

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from ingest.admin import serve_admin
from ingest.listening import bind
from ingest.opening import probe
from ingest.settings import Settings
from receivers.app import create_app, ready_vendors

log = structlog.get_logger()

# Longer than a delivery may wait for the log, so that a stop never cuts one off; shorter than orchestrators wait to kill.
_GRACEFUL_SECONDS = 15
_WORKER_START_SECONDS = 30


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what was accepted. Raises ConfigurationError, LogUnavailable."""
    ready_vendors(settings)
    receiver = settings.receiver
    if receiver.workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="ingest-metrics-")
    config = uvicorn.Config(
        "receivers.app:create_app" if receiver.workers > 1 else create_app,
        factory=True,
        host=receiver.host,
        port=receiver.port,
        workers=receiver.workers,
        http="httptools",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=receiver.connection_limit,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_worker_healthcheck=_WORKER_START_SECONDS,
    )
    sock = bind(receiver.host, receiver.port, "receiver.port")
    serve_admin(receiver.admin_host, receiver.admin_port, receiver.admin_token, lambda: probe(settings))
    log.info("receiver.listening", host=receiver.host, port=sock.getsockname()[1], workers=receiver.workers)
    signal.signal(signal.SIGTERM, _exit_cleanly)
    if receiver.workers > 1:
        Multiprocess(config, [sock]).run()
    else:
        uvicorn.Server(config).run([sock])
    log.info("receiver.stopped")


def _exit_cleanly(_: int, __: FrameType | None) -> None:
    """Uvicorn raises the signal once more after its graceful stop; that is a success, not a death by signal."""
    sys.exit(0)
