"""The consumer's rate: `python -m tests.bench.consume [--events 500000 --log kafka --warehouses duckdb]`.

Simulated vendors' webhooks are appended to the log. Then `ingest consume` loads all of them, and after it the
way of a user who has only dlt: dictionaries, and a merge of 5,000 records a run. The broker and the
destination share the machine with what is measured.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import dlt
import orjson
import tomlkit
from kafka import KafkaConsumer

from ingest.event import Event
from ingest.log import wait_until_durable
from ingest.settings import Settings
from ingest.vendors import vendor_names
from tests.bench.figures import Figures, add_write_option, show
from tests.bench.simulated import PUBLIC_URL, account_settings, deliveries
from tests.bench.usage import Usage, read_usage
from tests.consumers.postgres import running_postgres
from tests.kafka.broker import running_broker

_APPENDED_AT_ONCE = 1000
_POLL_SECONDS = 0.05
_STALLED_SECONDS = 120.0
_RUN_RECORDS = 5000
_KIB = 1024
_CONSUMER_MEMORY = 704 * _KIB**2  # the least with which it reads ahead


@dataclass(frozen=True, slots=True)
class Rate:
    """What a consumer needed: seconds of the clock, and what its processes used.

    `seconds` are those since the first load was committed, in which `events` were loaded; `usage` is that of
    the whole time, in which `all_events` were loaded.
    """

    events: int
    seconds: float
    all_events: int
    usage: Usage

    @property
    def per_second(self) -> float:
        """Return the events a second, without the start."""
        return self.events / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        """Return the processor time of an event, with its share of the start."""
        return self.usage.cpu_seconds / self.all_events * 1e6


@contextmanager
def filled_log(
    folder: Path, log: str, events: int, warehouse: tuple[str, str], *, publishes: bool = False
) -> Iterator[Settings]:
    """Make a log with `events` events, and return the settings of its consumer.

    `warehouse` is a destination with its credentials. The consumer publishes changes if it `publishes`.
    """
    destination, credentials = warehouse
    with ExitStack() as stack:
        url = f"sqlite:///{folder}/log.db"
        if log == "kafka":
            url = f"kafka://{stack.enter_context(running_broker()).servers[0]}"
        elif log != "sqlite":
            url = log
        run = uuid4().hex[:8]
        tree: dict[str, Any] = {
            "public_url": PUBLIC_URL,
            "log": url,
            "topic_prefix": f"bench-{run}",
            "feed": {"enabled": publishes},
            "consumer": {"admin_port": 0, "group": f"bench-{run}", "memory": _CONSUMER_MEMORY},
            "warehouse": {"destination": destination, "work_dir": f"{folder}/dlt"},
        }
        # Secrets are not in the file, and the consumer needs no accounts.
        (folder / "ingest.toml").write_text(tomlkit.dumps(tree), encoding="utf-8")
        tree["warehouse"]["credentials"] = credentials
        tree["accounts"] = account_settings()
        settings = Settings.model_validate(tree)
        fill(settings, events)
        yield settings


def fill(settings: Settings, events: int) -> None:
    """Append events of all vendors to the log, as receivers would."""
    with closing(settings.build_log().producer()) as producer:
        source = simulated_events(settings, events)
        while chunk := list(islice(source, _APPENDED_AT_ONCE)):
            for vendor in vendor_names():
                records = [event.to_record() for event in chunk if event.vendor == vendor]
                appended = producer.append(settings.topic(vendor), records)
                wait_until_durable(appended, _STALLED_SECONDS, "the events of the benchmark")


def simulated_events(settings: Settings, count: int) -> Iterator[Event]:
    """Yield the events of simulated deliveries."""
    accounts = {account.vendor: account for account in settings.build_accounts().values()}
    for vendor, delivery in deliveries(count):
        yield accounts[vendor].parse(accounts[vendor].verify(delivery, delivery.received_at))


def consume(folder: Path, settings: Settings, events: int) -> Rate:
    """Run `ingest consume` until everything is committed."""
    log = settings.build_log()
    output = folder / "consume.log"
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest", "consume", "--config", str(folder / "ingest.toml")],
            env=os.environ | {"INGEST_WAREHOUSE__CREDENTIALS": _credentials(settings)},
            stdout=file,
            stderr=file,
        )
    try:
        remaining = [(time.monotonic(), events)]
        while remaining[-1][1]:
            time.sleep(_POLL_SECONDS)
            lag = sum(entry.lag for entry in log.backlog())
            if lag != remaining[-1][1]:
                remaining.append((time.monotonic(), lag))
            if process.poll() is not None or time.monotonic() - remaining[-1][0] > _STALLED_SECONDS:
                raise RuntimeError(f"the consumer stalled: {output.read_text()[-2000:]}")
        (first_at, first), (last_at, _) = remaining[1], remaining[-1]
        return Rate(first, last_at - first_at, events, read_usage(process.pid))
    finally:
        process.terminate()
        process.wait()


def _credentials(settings: Settings) -> str:
    credentials = settings.warehouse.credentials
    return credentials.get_secret_value() if credentials else ""


def dict_way(folder: Path, settings: Settings, events: int, destination: Any) -> Rate:
    """Load events of a Kafka log as a user of dlt does who has only its documentation."""
    topics = [settings.topic(vendor) for vendor in vendor_names()]
    consumer = KafkaConsumer(
        *topics,
        bootstrap_servers=settings.log.removeprefix("kafka://").split(","),
        group_id=f"dict-way-{uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    pipeline = dlt.pipeline(
        "dict_way", destination=destination, dataset_name="dict_way", pipelines_dir=str(folder / "dict-way")
    )
    done, first_at = 0, 0.0
    messages: list[Any] = []
    with closing(consumer):
        while done < events:
            for polled in consumer.poll(500, max_records=_RUN_RECORDS - len(messages)).values():
                messages += polled
            if len(messages) == min(_RUN_RECORDS, events - done):
                pipeline.run([_events_of(messages), _bookings_of(messages)])
                consumer.commit()
                first_at = first_at or time.monotonic()
                done += len(messages)
                messages = []
    return Rate(events - _RUN_RECORDS, time.monotonic() - first_at, events, read_usage(os.getpid()))


def _events_of(messages: list[Any]) -> Any:
    events = [
        {
            "id": (headers := dict(message.headers))["ce_id"].decode(),
            "source": headers["ce_source"].decode(),
            "time": headers["ce_time"].decode(),
            "payload": orjson.loads(message.value),
        }
        for message in messages
    ]
    return dlt.resource(
        events,
        name="events",
        primary_key="id",
        write_disposition="merge",
        columns={"payload": {"data_type": "json"}},
    )


def _bookings_of(messages: list[Any]) -> Any:
    """Return the newest payload of each booking, without its lists."""
    newest = {
        message.key: {
            "booking": message.key.decode(),
            "time": dict(message.headers)["ce_time"].decode(),
            **{
                name: value
                for name, value in orjson.loads(message.value).items()
                if not isinstance(value, list)
            },
        }
        for message in messages
    }
    return dlt.resource(
        list(newest.values()),
        name="bookings",
        primary_key="booking",
        write_disposition="merge",
        max_table_nesting=0,
    )


def measure(log: str, events: int, warehouse: str, dict_events: int) -> list[tuple[str, Rate]]:
    """Measure `ingest consume`, and on Kafka also the dict way with `dict_events` of the events."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-consume-")))
        if warehouse == "postgres":
            credentials = stack.enter_context(running_postgres()).url
            destination: Any = dlt.destinations.postgres(credentials)
        else:
            credentials = f"{folder}/warehouse.duckdb"
            destination = dlt.destinations.duckdb(f"{folder}/dict-way.duckdb")
        settings = stack.enter_context(filled_log(folder, log, events, (warehouse, credentials)))
        rates = [("ingest consume", consume(folder, settings, events))]
        if dict_events and settings.log.startswith("kafka"):
            rates.append(("dict way", dict_way(folder, settings, dict_events, destination)))
        return rates


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--dict-events", type=int, default=20_000, help="events of the dict way, 0 for none")
    parser.add_argument("--log", default="kafka", help="kafka, sqlite, or kafka://host:port")
    parser.add_argument(
        "--warehouses", nargs="+", choices=("duckdb", "postgres"), default=["duckdb", "postgres"]
    )
    add_write_option(parser)
    arguments = parser.parse_args()
    tables = []
    for warehouse in arguments.warehouses:
        rates = measure(arguments.log, arguments.events, warehouse, arguments.dict_events)
        slowest = rates[-1][1].per_second
        rows = [
            (
                name,
                f"{rate.per_second:.0f}",
                f"{rate.per_second / slowest:.1f}",
                f"{rate.cpu_microseconds:.0f}",
                f"{rate.usage.mebibytes:.0f}",
            )
            for name, rate in rates
        ]
        columns = ("consumer", "events/s", f"of {rates[-1][0]}", "processor, µs an event", "memory, MiB")
        tables.append(Figures(f"{arguments.events:,} events, {arguments.log} → {warehouse}", columns, rows))
    show("consume", tables, write=arguments.write)


if __name__ == "__main__":
    main()
