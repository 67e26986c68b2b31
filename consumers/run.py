"""The consumer's process: log, warehouse, loop and admin listener, from start to clean stop."""

import signal
import threading

import structlog

from consumers.loader import Loader
from consumers.warehouse import Warehouse
from ingest.admin import serve_admin
from ingest.readiness import Probe
from ingest.settings import Settings
from ingest.settings.live import Live
from ingest.settings.sources import load_settings, watched_paths
from ingest.warehouse.reach import reach

log = structlog.get_logger()


def consume(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; the batch under way is finished. Raises ConfigurationError, LogUnavailable, DeadLetterLimit."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    warehouse = Warehouse(settings)
    consumer = settings.build_log().consumer()
    producer = settings.build_log().producer()
    live = Live(load_settings, watched_paths(), first=settings)
    loader = Loader(settings, consumer, producer, warehouse, live.current)
    loader.undone.watch()
    serve_admin(settings.consumer, "consumer", {**_probes(settings, loader), "settings": live.findings})
    log.info(
        "consumer.started", destination=settings.warehouse.destination, dataset=settings.warehouse.dataset
    )
    try:
        loader.run(stop)
    finally:
        consumer.close()
        producer.close()
        warehouse.close()
    log.info("consumer.stopped")


def _probes(settings: Settings, loader: Loader) -> dict[str, Probe]:
    def loading() -> None:
        if trouble := loader.trouble:  # once: the loop clears it
            raise trouble

    return {
        "loading": loading,
        "undone": loader.undone.probe,
        "log": settings.build_log().probe_read,
        "warehouse": lambda: reach(settings.warehouse),
    }
