"""The API on a real listener."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import uvicorn
from starlette.applications import Starlette

from ingest.dashboard.api import routes
from ingest.settings import Settings
from tests.support.polling import PATIENCE, wait_for


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the API on a port of the system's choice."""
    app = Starlette(routes=routes(settings))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for(lambda: server.started, "the API listens")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
