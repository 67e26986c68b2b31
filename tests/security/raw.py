"""Sends bytes to a receiver, and returns all that comes back until it hangs up."""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
# Whatever came before it, the receiver answers it and hangs up, if it takes it for a request at all.
LAST = b"GET /the-last-one HTTP/1.1\r\nHost: hooks.example.com\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answers:
    """The statuses of the answers in order, and every byte."""

    statuses: list[int]
    came: bytes


def exchange(port: int, sent: bytes) -> Answers:
    """Send bytes, which must end with what makes the receiver hang up."""
    came = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, suppress(ConnectionError):
        connection.sendall(sent)
        while data := connection.recv(65536):
            came += data
    return Answers([int(status) for status in _STATUS.findall(came)], came)
