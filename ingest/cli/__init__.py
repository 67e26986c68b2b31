"""The command line: one module per group of commands. Here is how it starts and ends, so nothing large is imported here."""

import os
import sys
import traceback
from contextlib import suppress

from ingest.streams import repair_streams
from ingest.visible import visible

_INTERRUPTED = 130


def main() -> None:
    """Runs a command. What was written is flushed, and then nothing holds the process."""
    repair_streams()
    os.umask(0o077)  # what we write holds personal data
    try:
        code = _run()
    except KeyboardInterrupt:  # also while the commands are imported, which takes a moment
        code = _INTERRUPTED
    except Exception:  # noqa: BLE001 - as Python itself would show it
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(visible(traceback.format_exc(), "\n"))
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it may be gone
            stream.flush()
    # A full exit would join threads that may be sitting out a vendor's pause of a quarter of an hour, and have DuckDB's binding
    # list what it calls leaks. Everything that has to be closed is closed by now.
    os._exit(code)


def _run() -> int:
    from ingest.cli.commands import run

    return run()
