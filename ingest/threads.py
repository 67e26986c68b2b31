"""Work in a thread that a process does not have to wait for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def run_in_thread(work: Callable[[], Result], name: str) -> "Future[Result]":
    """Run `work` in a thread of its own, and return a future of what it returns or raises.

    Unlike the threads of an executor, this one lets the process end while a library hangs.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
