"""Tests of the reasons that are given for real failures to reach a vendor."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.errors import VendorUnavailable, VendorUnreachable
from ingest.rest import RetryBudget
from tests.ingest.rest.test_adapter import LABEL, opened
from tests.support.ports import free_port

# A certificate that nobody trusts.
# It was made for these tests, with `openssl req -x509 -newkey ec -nodes -days 36500`.
SELF_SIGNED = Path(__file__).with_name("self-signed.pem")
PATIENT = RetryBudget(busy=60, failing=600, answer=5)  # a test that tried again for as long would not end


@contextmanager
def listening(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server that does one thing with each connection, and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        serve(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


class Serve:
    """What a server does with a connection, and how often it did it."""

    def __init__(self, context: ssl.SSLContext | None = None, says: bytes = b"") -> None:
        self.context, self.says, self.times = context, says, 0

    def __call__(self, connection: socket.socket) -> None:
        self.times += 1
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True)
        connection.recv(65536)
        connection.sendall(self.says)


def reason(url: str, patience: RetryBudget = PATIENT) -> str:
    """Return the error's message, after as many retries as are of use."""
    with pytest.raises(VendorUnreachable) as caught:
        opened(patience=patience)[0].get(url)
    assert str(caught.value).startswith(f"{LABEL}: ")
    return str(caught.value)


def test_a_certificate_that_is_refused_is_told_at_once() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)
    serve = Serve(context)
    with listening(serve) as port:
        message = reason(f"https://127.0.0.1:{port}/")
    assert f"TLS with 127.0.0.1:{port} fails: the server's certificate is signed by itself" in message
    assert "REQUESTS_CA_BUNDLE" in message
    assert serve.times == 1


def test_a_port_that_speaks_no_tls_is_told_at_once() -> None:
    serve = Serve(says=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with listening(serve) as port:
        message = reason(f"https://127.0.0.1:{port}/")
    assert "the port does not answer with TLS; is api_url right" in message
    assert serve.times == 1


def test_a_name_that_is_not_known_is_tried_again_for_a_short_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("ingest.rest.adapter.sleep", lambda seconds, _: pauses.append(seconds))
    monkeypatch.setattr(socket, "getaddrinfo", unknown_name)
    message = reason("https://api.example.invalid/")
    assert "the name api.example.invalid is not known (DNS)" in message
    assert sum(pauses) <= 10


def unknown_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def resolver_away(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


HASTY = RetryBudget(busy=1, failing=0, answer=5)


def test_a_resolver_that_does_not_answer_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver_away)
    assert "cannot be resolved right now (DNS: Temporary failure in name resolution)" in reason(
        "https://api.example.com/", HASTY
    )


def test_a_port_where_nobody_listens_refuses() -> None:
    assert "refuses the connection: nothing listens there" in reason(
        f"http://127.0.0.1:{free_port()}/", HASTY
    )


def test_a_connection_that_is_closed_is_told_as_such() -> None:
    with listening(Serve()) as port:
        assert "closed the connection without an answer" in reason(f"http://127.0.0.1:{port}/", HASTY)


def test_a_server_that_is_silent_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.rest.adapter._TIMEOUTS", (5.0, 0.05))
    silent = threading.Event()
    with listening(lambda _: silent.wait()) as port:
        message = reason(f"http://127.0.0.1:{port}/", HASTY)
        silent.set()
    assert "sent no answer within the time limit" in message


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "the proxy refuses to connect to api.example.com (407",
        ),
        (None, "cannot be reached"),
    ],
)
def test_a_proxy_is_told_apart_from_the_vendor(says: bytes | None, words: str) -> None:
    session, _ = opened(patience=HASTY)
    with listening(Serve(says=says or b"")) as port:
        session.proxies = {"https": f"http://user:password@127.0.0.1:{port if says else free_port()}"}
        with pytest.raises(VendorUnavailable) as caught:
            session.get("https://api.example.com/")
    assert words in str(caught.value)
    assert "password" not in str(caught.value)
