"""`ingest`, except that it kills or stops itself at a moment that somebody outside orders: `python -m tests.faults.doomed consume …`.

The file that FAULTS_ORDERS names holds a signal and a moment, as `SIGKILL before load`; whoever gets there first takes the order away and obeys.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, SupportsIndex

# The loop's steps in their order, by what does them.
STEPS = {
    "consume": {
        "collect": "consumers.loader:Loader._collect",
        "read": "consumers.loader:read_batch",
        "guard": "consumers.warehouse:Warehouse.versions",
        "extract": "dlt:Pipeline.extract",
        "normalize": "dlt:Pipeline.normalize",
        "start of a load": "dlt.load.load:Load.start_new_jobs",
        "end of a load": "dlt.destinations.job_client_impl:SqlJobClientBase.complete_load",
        "load": "consumers.warehouse:Warehouse.load",
        "process": "consumers.loader:Loader._process",
        "settle": "consumers.loader:Loader._settle",
    },
    "receive": {
        "verify": "receivers.webhook:Webhooks._to_record",
        "append": "receivers.webhook:Webhooks._append",
    },
}
MOMENTS = {
    command: [f"{when} {step}" for step in steps for when in ("before", "after")]
    for command, steps in STEPS.items()
}
ORDERS = "FAULTS_ORDERS"


def _arm(command: str, orders: Path) -> None:
    for step, place in STEPS[command].items():
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        whole = getattr(owner, name)
        stepped = _stepped_coroutine if inspect.iscoroutinefunction(whole) else _stepped
        setattr(owner, name, stepped(whole, step, functools.partial(_obey, orders)))


def _stepped(whole: Callable[..., Any], step: str, obey: Callable[[str], None]) -> Callable[..., Any]:
    @functools.wraps(whole)
    def doomed(*arguments: Any, **named: Any) -> Any:
        obey(f"before {step}")
        result = whole(*arguments, **named)
        obey(f"after {step}")
        return result

    return doomed


def _stepped_coroutine(
    whole: Callable[..., Any], step: str, obey: Callable[[str], None]
) -> Callable[..., Any]:
    @functools.wraps(whole)
    async def doomed(*arguments: Any, **named: Any) -> Any:
        obey(f"before {step}")
        result = await whole(*arguments, **named)
        obey(f"after {step}")
        return result

    return doomed


def _obey(orders: Path, moment: str) -> None:
    with suppress(FileNotFoundError):  # no order, or another process was quicker
        name, _, ordered = orders.read_text(encoding="utf-8").partition(" ")
        if ordered == moment:
            orders.unlink()
            os.kill(os.getpid(), signal.Signals[name])


def _sleep(seconds: float | SupportsIndex) -> None:
    """What time.sleep is made of cannot be used under libfaketime: it takes a wake-up time by the clock that is right for one by the other."""
    threading.Event().wait(float(seconds))


# A receiver's workers import this as well, by another name: they are to obey too.
if __name__ in {"__main__", "__mp_main__"}:
    time.sleep = _sleep
    _arm(sys.argv[1], Path(os.environ[ORDERS]))

if __name__ == "__main__":
    from ingest.cli import main

    main()
