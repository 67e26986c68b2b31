"""Protection of terminals and standard streams.

Texts of strangers could drive a terminal: anybody can book under the name they like. Standard input, output
and error may be closed when the process starts.
"""

import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TextIO
from unicodedata import category

# Controls (C0, DEL, C1), formats (bidi overrides, zero-width characters, tags), halves of surrogate pairs,
# private use, line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]+")

_STREAMS = ("stdin", "stdout", "stderr")


def visible(text: str, keep: str = "") -> str:
    r"""Escape hidden characters, such as `\x1b` or `\u202e`, except those in `keep`."""
    return replace_hidden(text, lambda char: char if char in keep else char.encode("unicode_escape").decode())


def replace_hidden(text: str, replace: Callable[[str], str]) -> str:
    """Replace every character that does not show or drives a terminal, and nothing else."""
    return (
        text
        if text.isprintable()
        else _BEYOND_ASCII.sub(
            lambda run: "".join(replace(char) if category(char) in _HIDDEN else char for char in run[0]), text
        )
    )


def repair_streams() -> None:
    """Open closed streams on the null device, and escape what strangers or encodings could break.

    Call it before any file is opened: the first one would otherwise get the number of a closed stream, and
    whatever is written to "standard error" would go into that file, a database for instance.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:  # it is closed
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            # The device is opened anew: the number of the stream may belong to another file by now.
            null_stream = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lives
            setattr(sys, name, null_stream)
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
