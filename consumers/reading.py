"""The reading of records in a process of its own, while this one loads what was read before.

The process gets records on its standard input as pickles, and writes their contents to its standard output.
It ends when its input does, so that it never outlives the consumer.
"""

import fcntl
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TypeVar, cast

from consumers.contents import Content, Mapper, pack_contents, read_contents, unpack_contents
from ingest.log import Record

_PIPE_BYTES = 1024 * 1024  # the most that Linux gives; by default a batch takes a hundred turns at a pipe
_BROKEN = (OSError, EOFError, ValueError, pickle.UnpicklingError)

T = TypeVar("T")


class ReadingProcess:
    """A process that reads the records of one batch after the other.

    A thread hands the batches over, so that the process has the next one at once.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._mapper: Mapper | None = None  # the one that the process has
        self._thread: ThreadPoolExecutor | None = None

    def read(
        self,
        records: Sequence[Record],
        mapper: Mapper,
        use: Callable[[list[Content]], T],
    ) -> "Future[T | None]":
        """Let the process read these records after those that it already has, and `use` what it has read.

        The result is what `use` returns on the thread that hands over. It is None when the process has ended,
        or could not hand over what it read; and a MemoryError when it could not get more memory.
        """
        if self._process and self._process.poll() is not None:
            self.close()
        if not self._process or not self._thread:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(AttributeError, OSError):  # other systems, and users with many pipes
                    fcntl.fcntl(cast("IO[bytes]", pipe), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")
        new_mapper, self._mapper = None if mapper is self._mapper else mapper, mapper
        return self._thread.submit(_read, self._process, records, new_mapper, use)

    def close(self) -> None:
        """End the process, whatever it is doing, and the results that are still expected."""
        if self._process and self._thread and self._process.stdin and self._process.stdout:
            self._process.kill()
            self._process.wait()
            self._thread.shutdown(cancel_futures=True)
            with suppress(OSError):  # what was not written is lost
                self._process.stdin.close()
            self._process.stdout.close()
        self._process = self._mapper = self._thread = None


def _read(
    process: "subprocess.Popen[bytes]",
    records: Sequence[Record],
    mapper: Mapper | None,
    use: Callable[[list[Content]], T],
) -> T | None:
    contents = _exchange(process, records, mapper)
    return None if contents is None else use(contents)


def _exchange(
    process: "subprocess.Popen[bytes]", records: Sequence[Record], mapper: Mapper | None
) -> list[Content] | None:
    """Send records to the process, and return their contents; None when it gives none, or has ended."""
    requests, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    try:
        request = mapper, [(record.value, record.headers) for record in records]
        pickle.dump(request, requests, pickle.HIGHEST_PROTOCOL)
        requests.flush()
        answer: bytes | MemoryError | None = pickle.load(answers)  # noqa: S301 - of our own process
    except _BROKEN:
        process.kill()
        return None
    if isinstance(answer, MemoryError):
        raise answer
    return None if answer is None else unpack_contents(answer)


def _serve() -> None:
    """Answer requests until the input ends.

    Garbage is collected after each answer: to look for it again and again among the objects of a batch would
    be a fifth of the work. What the first answer has left, as imported modules, stays and is not looked at.
    """
    gc.disable()
    # The consumer may be killed at any moment, also while it writes a request.
    ended = suppress(EOFError, BrokenPipeError, pickle.UnpicklingError)
    with open(0, "rb") as requests, open(1, "wb") as answers, ended:
        sys.stdout = sys.stderr
        mapper: Mapper = cast("Mapper", None)
        answer: bytes | MemoryError | None
        while True:
            new_mapper, records = pickle.load(requests)  # noqa: S301 - of the consumer that started this one
            mapper = new_mapper or mapper
            try:
                contents = read_contents((Record("", value, headers) for value, headers in records), mapper)
                answer = pack_contents(contents)
                del contents
            except MemoryError as error:
                answer = error
            except (ValueError, TypeError, OverflowError):  # the consumer finds out which record it is
                answer = None
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            del new_mapper, records, answer  # or they would stay until the next request
            gc.collect()
            gc.freeze()


if __name__ == "__main__":
    _serve()
