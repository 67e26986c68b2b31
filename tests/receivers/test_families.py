"""A receiver on IPv4 and IPv6 at once."""

import socket
from pathlib import Path

import httpx
import pytest

from tests.receivers.running import Receiver


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
def test_a_receiver_for_both_families_takes_deliveries_by_both(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path, INGEST_RECEIVER__HOST="[::]", INGEST_RECEIVER__ADMIN_HOST="::1")
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{receiver.port}/healthz").status_code == httpx.codes.OK
        assert httpx.get(f"http://[::1]:{receiver.admin_port}/readyz").status_code == httpx.codes.OK
    finally:
        receiver.close()
