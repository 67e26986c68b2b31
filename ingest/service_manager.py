"""What this process tells systemd, by its protocol of datagrams.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import os
import socket
from contextlib import suppress


def notify_ready() -> None:
    """Tell the service manager that this process is ready, if it waits for that."""
    address = os.environ.pop("NOTIFY_SOCKET", "")  # and so processes that this one starts do not tell it
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, suppress(OSError):
        manager.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        manager.sendall(b"READY=1")
