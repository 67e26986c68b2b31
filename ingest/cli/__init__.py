"""The command line: a module for each command.

This one starts and ends the process, so it imports nothing large.
"""

import errno
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from enum import IntEnum
from time import sleep

from ingest.terminal import repair_streams, visible

# A command that handles Ctrl-C itself, or is about to end by it, has this long before it is ended.
_GRACE_SECONDS = 1.0
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class ExitCode(IntEnum):
    """What the end of a command tells a script. A command whose codes mean more says so in its help."""

    OK = 0
    FAILED = 1  # something failed, differs from what it should be, or needs a person
    REFUSED = 2  # a setting or an argument is wrong
    UNAVAILABLE = 3  # something that the command needs cannot be reached right now
    DEAD_LETTER_LIMIT = 4  # the consumer stopped itself
    INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
    # What a shell reports of a program that SIGPIPE ended:
    # https://www.gnu.org/software/bash/manual/html_node/Exit-Status.html
    READER_GONE = 141


class Stopped(Exception):
    """Ctrl-C stopped a command. The text says what that means for the work it had begun."""


def main() -> None:
    """Run a command, flush what it wrote, and leave at once with its exit code."""
    repair_streams()
    os.umask(0o077)  # what we write holds personal data
    interrupt = watch_for_interrupt()
    try:
        from ingest.cli.commands import run  # takes a moment, in which Ctrl-C may come already

        code = run()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
        _write_stopped()
    except Exception as error:  # noqa: BLE001 - whatever it is, the command has ended
        code = _report_crash(error)
    if code == 0 and interrupt.is_set():  # a server that was stopped in order, by Ctrl-C
        code = ExitCode.INTERRUPTED
    # A full exit would join threads that may be waiting out a vendor's pause of a quarter of an hour, and
    # DuckDB's binding would list what it calls leaks. All that has to be closed is closed by now.
    os._exit(_flush() or code)


def watch_for_interrupt() -> threading.Event:
    """Have Ctrl-C end the process, even inside a library that does not check for signals.

    The event is set once it was pressed.

    Python raises KeyboardInterrupt between two of its own instructions only, but writes to this socket at
    once: https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
    """
    pressed = threading.Event()
    ends = socket.socketpair()  # the thread below holds on to both, so that neither is closed

    def end_on_interrupt() -> None:
        """End the process a moment after Ctrl-C, unless the command ends by itself or handles the signal."""
        while numbers := ends[0].recv(64):
            if signal.SIGINT in numbers:
                pressed.set()
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    sleep(_GRACE_SECONDS)
                    _write_stopped()
                    os._exit(ExitCode.INTERRUPTED)

    ends[1].setblocking(False)
    signal.set_wakeup_fd(ends[1].fileno(), warn_on_full_buffer=False)
    threading.Thread(target=end_on_interrupt, name="interrupt", daemon=True).start()
    return pressed


def _write_stopped() -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write("stopped\n")
        sys.stderr.flush()


def _report_crash(error: Exception) -> int:
    """Write a traceback, as Python would, or one line for an output that cannot be written.

    Returns the exit code.
    """
    with suppress(OSError, ValueError, AttributeError):
        if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
            sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
        else:
            sys.stderr.write(visible("".join(traceback.format_exception(error)), "\n"))
    return ExitCode.FAILED


def _flush() -> int:
    """Write what is buffered.

    Returns an exit code where that fails, else 0; a reader that is gone is no failure.
    """
    failed = 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            pass
        except OSError as error:
            failed = _report_crash(error)
        except ValueError:  # closed
            pass
    return failed
