"""Requests to send to the receiver: the samples, and any number of distinct good ones."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ingest.vendors import calendly
from tests.ingest.vendors.samples_of import Sample

SECRET = "not-a-real-signing-key-of-the-receiver-tests"
SALES = "/webhooks/calendly/sales"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `chunks` are its body as it arrives; without a declared length it is sent chunked."""

    path: str
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[bytes, ...] = (b"",)
    query: str = ""
    method: str = "POST"

    @property
    def body(self) -> bytes:
        """The body, complete."""
        return b"".join(self.chunks)

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def having(self, *headers: tuple[str, str]) -> "Request":
        """Return the request with more headers."""
        return replace(self, headers=(*self.headers, *headers))


def booking_body(number: int) -> bytes:
    """Return what Calendly would say of invitee `number`, as short as possible."""
    moment = "2026-06-09T21:37:18.000000Z"
    invitee = {"uri": subject(number), "created_at": moment, "updated_at": moment, "status": "active"}
    return json.dumps({"event": "invitee.created", "created_at": moment, "payload": invitee}).encode()


def subject(number: int) -> str:
    """Return the booking id of `booking_body(number)`."""
    return f"https://api.example.com/invitees/{number}"


def signed(body: bytes, *, secret: str = SECRET, path: str = SALES) -> Request:
    """Return any body, as Calendly would sign it now."""
    return Request(path, tuple(calendly.sign(secret, body, datetime.now(UTC)).items()), (body,))


def booking(number: int) -> Request:
    """Return a good delivery unlike any with another number."""
    return signed(booking_body(number))


def from_sample(sample: Sample) -> Request:
    """Return a sample as its vendor sent it."""
    return Request(
        f"/webhooks/{sample.case.vendor}/sales", tuple(sample.headers), (sample.body,), sample.given["query"]
    )


def raw(request: Request) -> bytes:
    """Return the request as it goes over a connection."""
    lines = [
        f"{request.method} {request.target} HTTP/1.1",
        "Host: hooks.example.com",
        *(f"{name}: {value}" for name, value in request.headers),
    ]
    return (
        "\r\n".join([*lines, f"Content-Length: {len(request.body)}", "", ""]).encode("latin-1") + request.body
    )
