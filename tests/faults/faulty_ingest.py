"""The `ingest` command, made to kill or stop itself at a moment that is ordered from outside.

`python -m tests.faults.faulty_ingest consume …`

The file that FAULTS_ORDERS names holds a signal and a moment, as `SIGKILL before load`. The process that gets
there first takes the order away and obeys. With FAULTS_SHORT_HOURS, hours are shortened.
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

from tests.faults.short_hours import shorten

# The steps of each command's loop in their order, with the function that carries out each.
STEPS = {
    "consume": {
        "collect": "consumers.loader:Loader._collect",
        "read": "consumers.loader:read_batch",
        "read ahead": "consumers.loader:Loader._read_ahead",
        "guard": "consumers.warehouse:Warehouse.versions",
        "look for repetitions": "consumers.warehouse.direct:DirectTables._absent",
        "note of a load": "dlt.destinations.job_client_impl:SqlJobClientBase.complete_load",
        "transaction": "consumers.warehouse.direct:DirectTables.write",
        "note of keys": "consumers.warehouse.key_files:KeyFiles.note_write",
        "key file": "consumers.warehouse.key_files:KeyFiles._make",
        "load": "consumers.warehouse:Warehouse.load",
        "process": "consumers.loader:Loader._process",
        "publish": "ingest.log.sqlite.consumer:insert_records",
        "publish to Kafka": "ingest.log.kafka.transactions:FeedTransactions._produce",
        "transaction of Kafka": "ingest.log.kafka.transactions:FeedTransactions._transact",
        "settle": "consumers.loader:Loader._settle",
    },
    "receive": {
        "verify": "receivers.webhook:Webhooks._to_record",
        "append": "receivers.appender:Appender._append",
        "answer": "receivers.webhook:Webhooks._conclude",
    },
    "reconcile": {
        "look": "receivers.completeness.finding:GapFinder.look",
        "state": "receivers.completeness.closing:GapCloser._state",
        "judge": "receivers.completeness.closing:GapCloser._judge",
        "compare": "receivers.completeness.closing:GapCloser._compare",
    },
}
STEPS_OF_DUCKDB = ("note of keys", "key file")
STEPS_OF_SQLITE = ("publish",)
STEPS_OF_KAFKA = ("publish to Kafka", "transaction of Kafka")
MOMENTS = {
    command: [f"{when} {step}" for step in steps for when in ("before", "after")]
    for command, steps in STEPS.items()
}
ORDERS = "FAULTS_ORDERS"
SHORT_HOURS = "FAULTS_SHORT_HOURS"


def _arm(command: str, orders: Path) -> None:
    for step, target in STEPS[command].items():
        module, _, path = target.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        function = getattr(owner, name)
        wrap = _stepped_coroutine if inspect.iscoroutinefunction(function) else _stepped
        setattr(owner, name, wrap(function, step, functools.partial(_obey, orders)))


def _stepped(function: Callable[..., Any], step: str, obey: Callable[[str], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def interruptible(*arguments: Any, **keywords: Any) -> Any:
        obey(f"before {step}")
        result = function(*arguments, **keywords)
        obey(f"after {step}")
        return result

    return interruptible


def _stepped_coroutine(
    function: Callable[..., Any], step: str, obey: Callable[[str], None]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def interruptible(*arguments: Any, **keywords: Any) -> Any:
        obey(f"before {step}")
        result = await function(*arguments, **keywords)
        obey(f"after {step}")
        return result

    return interruptible


def _obey(orders: Path, moment: str) -> None:
    with suppress(FileNotFoundError):  # no order, or another process was quicker
        name, _, ordered_moment = orders.read_text(encoding="utf-8").partition(" ")
        if ordered_moment == moment:
            orders.unlink()
            os.kill(os.getpid(), signal.Signals[name])


def _sleep(seconds: float | SupportsIndex) -> None:
    """Sleep without `time.sleep`, which cannot be used under libfaketime.

    `time.sleep` waits for a time by the clock that stays right, and libfaketime takes it for a time by the
    other clock.
    """
    threading.Event().wait(float(seconds))


# A receiver's workers import this module as well, by another name: they are to obey too.
if __name__ in {"__main__", "__mp_main__"}:
    time.sleep = _sleep
    if sys.argv[1] == "consume":
        from consumers.warehouse import key_files

        key_files._ROWS_WORTH_A_FILE = 300  # so that small tables have files too
    if os.environ.get(SHORT_HOURS):
        shorten(sys.argv[1])
    _arm(sys.argv[1], Path(os.environ[ORDERS]))

if __name__ == "__main__":
    from ingest.cli import main

    main()
