"""The reading of records in a process of its own, while this one loads what was read before.

The process gets records on its standard input, and writes their contents to its standard output, as pickles.
It ends when its input does, so that it never outlives the consumer.
"""

import gc
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, cast

from consumers.contents import Content, Mapper, read_contents
from ingest.log import Record

_BROKEN = (OSError, EOFError, pickle.UnpicklingError)


class ReadingProcess:
    """A process that reads the records of one batch at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._mapper: Mapper | None = None  # the one that the process has

    def begin(self, records: Sequence[Record], mapper: Mapper) -> None:
        """Let the process read these records, of which `finish` returns the contents."""
        if self._process is None:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        request = (
            None if mapper is self._mapper else mapper,
            [(record.value, record.headers) for record in records],
        )
        self._mapper = mapper
        with suppress(OSError):  # `finish` finds the process ended too
            requests = cast("IO[bytes]", self._process.stdin)
            pickle.dump(request, requests, pickle.HIGHEST_PROTOCOL)
            requests.flush()

    def finish(self) -> list[Content] | None:
        """Return the contents of the records; None when the process has ended.

        Raises MemoryError when the process could not get more memory.
        """
        answer: list[Content] | MemoryError | None = None
        if self._process and self._process.stdout:
            with suppress(*_BROKEN):
                answer = pickle.load(self._process.stdout)  # noqa: S301 - of our own process
        if answer is None:
            self.close()
        if isinstance(answer, MemoryError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process and self._process.stdin and self._process.stdout:
            self._process.kill()
            self._process.wait()
            with suppress(OSError):  # what was not written is lost
                self._process.stdin.close()
            self._process.stdout.close()
        self._process = self._mapper = None


def _serve() -> None:
    """Answer requests until the input ends.

    Garbage is collected after each answer: to look for it again and again among the objects of a batch would
    be a fifth of the work.
    """
    gc.disable()
    with open(0, "rb") as requests, open(1, "wb") as answers, suppress(EOFError, BrokenPipeError):
        sys.stdout = sys.stderr
        mapper: Mapper = cast("Mapper", None)
        answer: list[Content] | MemoryError
        while True:
            new_mapper, records = pickle.load(requests)  # noqa: S301 - of the consumer that started this one
            mapper = new_mapper or mapper
            try:
                answer = read_contents((Record("", value, headers) for value, headers in records), mapper)
            except MemoryError as error:
                answer = error
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            del new_mapper, records, answer  # or they would stay until the next request
            gc.collect()


if __name__ == "__main__":
    _serve()
