"""What a pod of a receiver waits for before it goes."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "helm" / "bookings-ingest" / "files" / "drain.py"
TOKEN = "not-a-secret"


@contextmanager
def metrics(answers: list[float]) -> Iterator[str]:
    """Serve the numbers of spooled records, one for each request, to whoever has the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
            self.send_response(200 if allowed else 401)
            self.end_headers()
            if allowed:
                self.wfile.write(f"ingest_spool_records {answers.pop(0)}\n".encode())

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module that is quick."""
    spec = importlib.util.spec_from_file_location("drain", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for name, value in {"_AWAY_SECONDS": 0, "_POLL_SECONDS": 0.01, "_TOKEN": tmp_path / "token"}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sys.argv", ["drain.py", "60"])
    return module


def test_it_waits_until_the_spool_is_empty(drain: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [3.0, 1.0, 0.0, 5.0]
    with metrics(answers) as url:
        monkeypatch.setattr(drain, "_METRICS", url)
        drain.main()
    assert answers == [5.0]


def test_it_waits_as_long_as_it_may_when_it_is_refused(
    drain: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drain._TOKEN.write_text("another")
    monkeypatch.setattr("sys.argv", ["drain.py", "0.3"])
    with metrics([]) as url:
        monkeypatch.setattr(drain, "_METRICS", url)
        drain.main()
    assert capsys.readouterr().err.count("401") > 1


def test_it_ends_with_the_receiver(drain: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics([]) as url:
        pass
    monkeypatch.setattr(drain, "_METRICS", url)
    drain.main()
