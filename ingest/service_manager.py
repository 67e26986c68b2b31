"""What a service tells systemd, by its protocol of datagrams, and how it ends.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import os
import socket
import sys
from contextlib import suppress
from types import FrameType


def notify_ready() -> None:
    """Tell the service manager that this process is ready, if it waits for that."""
    address = os.environ.pop("NOTIFY_SOCKET", "")  # and so processes that this one starts do not tell it
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, suppress(OSError):
        manager.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        manager.sendall(b"READY=1")


def exit_cleanly(_: int, __: FrameType | None) -> None:
    """Exit with code 0: a handler of SIGTERM, which uvicorn raises once more after its graceful stop."""
    sys.exit(0)
