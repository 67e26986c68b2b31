"""Listening: on one family of addresses or both, and what is told where that cannot be."""

import socket
from contextlib import closing

import pytest

from ingest.admin import check_admin
from ingest.errors import ConfigurationError
from ingest.settings.sources import load_settings
from ingest.sockets import bind, is_taken

ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")


def reached(listening: socket.socket, host: str) -> bool:
    try:
        with socket.create_connection((host, listening.getsockname()[1]), timeout=30):
            return True
    except ConnectionRefusedError:
        return False


@ipv6
@pytest.mark.parametrize(
    ("host", "by_ipv4", "by_ipv6"),
    [("::", True, True), ("::1", False, True), ("127.0.0.1", True, False), ("localhost", True, False)],
)
def test_a_host_listens_on_its_families(host: str, by_ipv4: bool, by_ipv6: bool) -> None:
    with closing(bind(host, 0, "receiver.port")) as listening:
        assert (reached(listening, "127.0.0.1"), reached(listening, "::1")) == (by_ipv4, by_ipv6)
        assert is_taken(host, listening.getsockname()[1])


@ipv6
def test_a_port_that_is_taken_is_told_with_the_host_in_brackets() -> None:
    with closing(bind("::1", 0, "receiver.port")) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConfigurationError) as raised:
            bind("::1", port, "receiver.port")
    assert (
        str(raised.value)
        == f"cannot listen on [::1]:{port}: Address already in use; choose another receiver.port"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machines_is_told_as_such(host: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        bind(host, 0, "consumer.admin_port")
    assert str(raised.value).startswith(f"cannot listen on {host}:0: ")
    assert str(raised.value).endswith("; choose another consumer.admin_host")


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("::1", True), ("[::1]", True), ("localhost", True), ("::", False), ("fd00::1", False)],
)
def test_an_admin_listener_needs_a_token_unless_it_is_on_loopback(host: str, is_open: bool) -> None:
    receiver = load_settings(environ={"INGEST_RECEIVER__ADMIN_HOST": host}).receiver
    if is_open:
        check_admin(receiver, "receiver")
    else:
        with pytest.raises(ConfigurationError, match=r"needs receiver\.admin_token"):
            check_admin(receiver, "receiver")
