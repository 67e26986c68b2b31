"""A child process of `up` ends when its parent does."""

import os
import signal
import sys
import threading
from typing import Annotated

import typer

WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True, help="Stop when standard input closes.")]


def follow_parent(wanted: bool) -> None:
    """A child outlives its parent's crash by no more than a clean stop: the parent holds our standard input open."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns at end of file; unbuffered, so that nothing is locked at exit
        os.kill(os.getpid(), signal.SIGTERM)

    if wanted:
        threading.Thread(target=wait, name="parent", daemon=True).start()
