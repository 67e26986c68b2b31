"""The dashboard on a real listener."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import uvicorn

from ingest.dashboard.app import build_app
from ingest.settings import Settings
from tests.support.polling import PATIENCE, wait_for


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the dashboard on a port of the system's choice, and yield its address."""
    config = uvicorn.Config(build_app(settings), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for(lambda: server.started, "the dashboard listens")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
