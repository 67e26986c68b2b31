"""Waits that a command shows."""

import sys
from contextlib import AbstractContextManager

from ingest.waits import announcing


def showing_waits() -> AbstractContextManager[None]:
    """What the command waits for, and how long, as lines on standard error: standard output is the answer's."""
    return announcing(lambda line: print(line, file=sys.stderr, flush=True))
