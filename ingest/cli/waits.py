"""Waits that a command shows."""

from collections.abc import Iterator
from contextlib import contextmanager

from ingest.cli.output import print_note
from ingest.waits import announcing


@contextmanager
def showing_waits() -> Iterator[None]:
    """What the command waits for, and how long, as lines on standard error: standard output is the answer's."""
    with announcing(print_note):
        yield
