"""An account of Google Cloud, and the endpoint where Google's clients ask for its tokens."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def service_account(project: str, token_url: str) -> dict[str, str]:
    """Return the key of a service account whose tokens come from this URL."""
    # A short key, because dlt has it parsed several times for each query.
    key = subprocess.run(["openssl", "genrsa", "1024"], check=True, capture_output=True, text=True).stdout
    return {
        "type": "service_account",
        "project_id": project,
        "client_email": "ingest@example.com",
        "private_key": key,
        "private_key_id": "any",
        "token_uri": token_url,
    }


@contextmanager
def token_endpoint() -> Iterator[str]:
    """Give every client a token, and return the URL."""

    class Tokens(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b'{"access_token": "any", "expires_in": 3600, "token_type": "Bearer"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        thread = threading.Thread(target=server.serve_forever, name="tokens")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()
