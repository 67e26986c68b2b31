"""Repair of standard input, output and error, which may be closed when the process starts."""

import os
import sys
import threading
import traceback
from contextlib import suppress
from types import TracebackType
from typing import IO, TextIO

from ingest.visible import visible

_STREAMS = ("stdin", "stdout", "stderr")


def repair_streams() -> None:
    """Open closed streams on the null device, and escape what strangers or encodings could break.

    Call it before any file is opened: the first one would otherwise get the number of a closed stream, and
    whatever is written to "standard error" would go into that file, a database for instance.
    """
    for number, name in enumerate(_STREAMS):
        if _is_closed(number):
            _open_null(number)
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _null_stream("w" if number else "r"))
        elif number > 0 and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _write_traceback
    threading.excepthook = _write_traceback_of_thread


def _write_traceback(_: type[BaseException], error: BaseException | None, __: TracebackType | None) -> None:
    """Write a traceback as Python does, but escaped, since it may quote what drives a terminal."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(visible("".join(traceback.format_exception(error)), "\n\t"))


def _write_traceback_of_thread(crash: threading.ExceptHookArgs) -> None:
    if not isinstance(crash.exc_value, SystemExit):
        _write_traceback(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def _null_stream(mode: str) -> IO[str]:
    """Open the null device anew: the number of the stream may belong to another file by now."""
    return open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123 - for as long as the process lives
