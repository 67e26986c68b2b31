"""The consumer's process: its log, warehouse, loop and admin listener."""

import ctypes
import gc
import signal
import sys
import threading
from contextlib import suppress

import pyarrow as pa
import structlog

from consumers.loader import Loader
from consumers.reporting import count_from_zero
from consumers.warehouse import Warehouse
from ingest.admin import serve_admin
from ingest.disks import watch_disks
from ingest.readiness import Probe
from ingest.service_manager import notify_ready
from ingest.settings import Settings
from ingest.settings.sources import Live, load_settings, watched_paths
from ingest.telemetry import LOAD_INTERVAL_SECONDS
from ingest.warehouse.destination import check_reachable

log = structlog.get_logger()

# A batch is hundreds of thousands of objects, which live until it is loaded. To look for cycles among them
# after every 700, as Python does, would be a fifth of the work.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000
# Python lets a thread run on for 5 ms before another one gets its turn. A load calls DuckDB a hundred times,
# and waits for its turn after each call while the next batches are polled.
_TURN_SECONDS = 0.0005
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def consume(settings: Settings) -> None:
    """Load events until SIGTERM or SIGINT, and then finish the current batch.

    Raises ConfigurationError, LogUnavailable, DeadLetterLimit.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    sys.setswitchinterval(_TURN_SECONDS)
    _share_malloc_arena()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    warehouse = Warehouse(settings)
    consumer = settings.build_log().consumer()
    producer = settings.build_log().producer()
    live = Live(load_settings, watched_paths(), first=settings)
    loader = Loader(settings, consumer, producer, warehouse, live.current)
    loader.undone.watch()
    LOAD_INTERVAL_SECONDS.set(settings.linger.total_seconds())
    watch_disks(settings.store_folders())
    count_from_zero((account.vendor, name) for name, account in settings.accounts.items())
    gc.freeze()  # what is there by now stays
    serve_admin(settings.consumer, "consumer", {**_probes(settings, loader), "settings": live.findings})
    log.info(
        "consumer.started", destination=settings.warehouse.destination, dataset=settings.warehouse.dataset
    )
    notify_ready()
    try:
        loader.run(stop)
    finally:
        loader.close()
        consumer.close()
        producer.close()
        warehouse.close()
    log.info("consumer.stopped")


def _share_malloc_arena() -> None:
    """Let all threads, and Arrow, share one arena of glibc's malloc, where that is what the system has.

    Each arena keeps what a load has taken, and with one for each thread that was a fifth of the memory.
    Arrow's own allocator keeps it too.
    https://www.man7.org/linux/man-pages/man3/mallopt.3.html
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def _probes(settings: Settings, loader: Loader) -> dict[str, Probe]:
    def loading() -> None:
        trouble = loader.trouble  # read once, since the loop clears it
        if trouble:
            raise trouble

    return {
        "loading": loading,
        "undone": loader.undone.probe,
        "log": settings.build_log().probe_read,
        "warehouse": lambda: check_reachable(settings.warehouse),
    }
