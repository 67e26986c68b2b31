"""Measures the free space on the disks that the product fills."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ingest.files import free_bytes
from ingest.telemetry import DISK_FREE_BYTES

_EVERY_SECONDS = 15.0


def watch_disks(folders: Mapping[str, Path]) -> None:
    """Export the free bytes for each folder, by its setting's name, from a thread until the process ends."""
    measure_disks(folders)
    threading.Thread(target=_measure_forever, args=(folders,), name="disks", daemon=True).start()


def measure_disks(folders: Mapping[str, Path]) -> None:
    """Set the metric. A disk that cannot be asked keeps its last value."""
    for setting, folder in folders.items():
        with suppress(OSError):
            DISK_FREE_BYTES.labels(setting).set(free_bytes(folder))


def _measure_forever(folders: Mapping[str, Path]) -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        measure_disks(folders)
