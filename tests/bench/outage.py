"""An hour without Kafka at 500 webhooks/s: `python -m tests.bench.outage [--deliveries 1800000]`.

The deliveries of the hour are sent as fast as they are answered. Then the broker starts, and every record is
read back: all changes of each booking must be there, in the order in which they were accepted. The sender and
the broker share the machine with what is measured.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ingest.log.kafka import KafkaLogConsumer
from ingest.log.kafka_settings import KafkaSettings
from ingest.log.sqlite import extent
from ingest.times import format_instant, parse_instant
from tests.kafka.broker import Broker, fetch
from tests.receivers.requests import SALES, signed, subject
from tests.receivers.running import TOPIC, Receiver

_CONNECTIONS = 64
_CHANGES = 30  # of each booking, sent one after the other
_BEGINNING = datetime(2026, 6, 9, tzinfo=UTC)
_PADDING = "p" * 600  # with it a delivery is as large as a vendor's
_MIB = 1024 * 1024
_STALLED_SECONDS = 120.0


@dataclass(slots=True)
class Load:
    """Sends deliveries and counts the answers; a booking's changes are sent one after the other."""

    deliveries: int
    answers: Counter[int] = field(default_factory=Counter)

    async def send(self, port: int) -> None:
        """Send all deliveries, and return when all are answered."""
        await asyncio.gather(*(self._connection(port, number) for number in range(_CONNECTIONS)))

    async def _connection(self, port: int, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for booking in range(number, self.deliveries // _CHANGES, _CONNECTIONS):
            for change in range(_CHANGES):
                writer.write(_request(booking, change))
                head = await reader.readuntil(b"\r\n\r\n")
                self.answers[int(head[9:12])] += 1
        writer.close()


@dataclass(slots=True)
class Readback:
    """What was read from the log: each booking's newest change, and repeated and misordered records."""

    newest: dict[str, int] = field(default_factory=dict)
    distinct: int = 0
    repeated: int = 0
    out_of_order: int = 0

    def add(self, booking: str, change: int) -> None:
        """Add a record, in the order of the log."""
        before = self.newest.get(booking, -1)
        if change <= before:
            self.repeated += 1
        else:
            self.distinct += 1
            self.out_of_order += change > before + 1
            self.newest[booking] = change


class Memory:
    """Samples the memory of the receiver with its workers: at the start, and the largest."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.initial = self.largest = self._current()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(1.0):
            self.largest = max(self.largest, self._current())

    def _current(self) -> int:
        pids = [self._receiver.process.pid, *self._receiver.children()]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf(
            "SC_PAGE_SIZE"
        )


def main() -> None:
    """Measure once and print the figures; exit with 1 when anything was lost or out of order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=3600 * 500)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with (
        TemporaryDirectory(prefix="outage-") as folder,
        Progress(console=Console(stderr=True), refresh_per_second=1) as progress,
    ):
        sys.exit(
            _measure(Path(folder), arguments.deliveries // _CHANGES * _CHANGES, arguments.workers, progress)
        )


def _measure(folder: Path, deliveries: int, workers: int, progress: Progress) -> int:
    broker, load, readback = Broker(fetch(), _new_folder(folder / "kafka")), Load(deliveries), Readback()
    with closing(
        Receiver(_new_folder(folder / "receiver"), **_settings(broker, folder, workers))
    ) as receiver:
        memory = Memory(receiver)
        sending = _follow(progress, "sent", lambda: sum(load.answers.values()), deliveries)
        began = time.monotonic()
        uvloop.run(load.send(receiver.port))
        sent = time.monotonic()
        sending.set()
        spooled = sum(extent(path)[1] for path in (folder / "spool").glob("*.db"))
        broker.start()
        try:
            reading = _follow(progress, "read back", lambda: readback.distinct, deliveries)
            _read(broker, load.answers[202], readback)
            reading.set()
        finally:
            broker.stop()
        drained = time.monotonic()
        memory.stop()
    _print(load, readback, memory, {"spooled": spooled, "sent": sent - began, "drained": drained - sent})
    return int(
        readback.distinct < load.answers[202] or readback.out_of_order > 0 or load.answers[202] < deliveries
    )


def _new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _settings(broker: Broker, folder: Path, workers: int) -> dict[str, str]:
    return {
        "INGEST_LOG": f"kafka://{broker.servers[0]}",
        "INGEST_KAFKA__REPLICATION_FACTOR": "1",
        "INGEST_RECEIVER__SPOOL_DIR": str(folder / "spool"),
        "INGEST_RECEIVER__WORKERS": str(workers),
    }


def _request(booking: int, change: int) -> bytes:
    moment = format_instant(_BEGINNING + timedelta(seconds=change))
    body = (
        f'{{"event":"invitee.created","created_at":"{moment}","payload":{{"uri":"{subject(booking)}","created_at":"{moment}",'
        f'"updated_at":"{moment}","status":"active","padding":"{_PADDING}"}}}}'
    ).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed(body).headers)
    head = f"POST {SALES} HTTP/1.1\r\nhost: hooks.example.com\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body


def _read(broker: Broker, deliveries: int, readback: Readback) -> None:
    with closing(KafkaLogConsumer(broker.servers, KafkaSettings(), "outage", [TOPIC])) as consumer:
        last_record_at = time.monotonic()
        while readback.distinct < deliveries and time.monotonic() - last_record_at < _STALLED_SECONDS:
            for stored in consumer.poll(1000, 1.0):
                last_record_at = time.monotonic()
                headers = stored.record.headers
                readback.add(
                    headers["ce_subject"],
                    int((parse_instant(headers["ce_time"]) - _BEGINNING).total_seconds()),
                )


def _follow(progress: Progress, name: str, count: Callable[[], int], total: int) -> threading.Event:
    """Show the count once a second until the returned event is set."""
    task, done = progress.add_task(name, total=total), threading.Event()

    def update() -> None:
        while not done.wait(1.0):
            progress.update(task, completed=count())
        progress.update(task, completed=count())

    threading.Thread(target=update, daemon=True).start()
    return done


def _print(load: Load, readback: Readback, memory: Memory, figures: dict[str, float]) -> None:
    spooled, sent, drained = figures["spooled"], figures["sent"], figures["drained"]
    minutes = f"{load.deliveries / 500 / 60:.0f} minutes at 500/s"
    title = f"{load.deliveries} deliveries while Kafka is away ({minutes})"
    table = Table("measure", "value", title=title)
    table.add_row(
        "answers", ", ".join(f"{status}: {count}" for status, count in sorted(load.answers.items()))
    )
    table.add_row("sent in", f"{sent:.0f} s, {load.deliveries / sent:.0f}/s")
    table.add_row(
        "receiver's memory",
        f"{memory.initial / _MIB:.0f} MiB before, {memory.largest / _MIB:.0f} MiB at its height",
    )
    table.add_row("spool", f"{spooled / _MIB:.0f} MiB, {spooled / load.deliveries:.0f} bytes a delivery")
    table.add_row(
        "in the log after", f"{drained:.0f} s (broker's start included), {load.deliveries / drained:.0f}/s"
    )
    table.add_row(
        "arrived, lost, out of order",
        f"{readback.distinct}, {load.answers[202] - readback.distinct}, {readback.out_of_order}",
    )
    table.add_row("arrived again", str(readback.repeated))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
