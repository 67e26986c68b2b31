"""Loads into small and large tables: `python -m tests.bench.growth [--events 10000000 --bookings 5000000]`.

The large warehouse is filled by SQL with rows that have small payloads. Then batches of the same events are
loaded into it and into empty tables, in turns. Some of their events are about stored bookings, anywhere in
the table, and some are stored already.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory

from consumers.warehouse import duckdb_tables
from ingest.event import Event
from ingest.log import Partition, StoredRecord
from ingest.times import format_instant
from tests.bench.figures import Figures, add_write_option, show
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import running_postgres
from tests.consumers.samples import SOURCE, TOPIC, moment, sample
from tests.support.settings import Tree, settings_tree

_SIZES = (5, 1_000, 10_000)
_ABOUT_STORED = 5  # every fifth event is about a booking that the large warehouse has
_REPEATED = 50  # every fiftieth event is one that it has
_ROWS_PER_INSERT = 1_000_000
_BEGIN = moment(0)
_STORED_ID = "'S' || md5(number::text)"


@dataclass(frozen=True, slots=True)
class Loads:
    """The seconds that loads of one size took, by wall clock and by processor."""

    seconds: Sequence[float]
    cpu_seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Growth:
    """Loads into empty tables and into large ones, by the number of events in a load."""

    empty: dict[int, Loads]
    large: dict[int, Loads]

    def ratio(self, size: int) -> float:
        """Return how many times as long a load into large tables takes."""
        return statistics.median(self.large[size].seconds) / statistics.median(self.empty[size].seconds)


def measure(tree: Tree, empty_tree: Tree, events: int, bookings: int, rounds: int) -> Growth:
    """Fill the tables of one tree, and load batches of each size into both."""
    growth = Growth({}, {})
    with open_consumer(empty_tree) as empty, open_consumer(tree) as large:
        empty.warehouse.prepare()
        large.warehouse.prepare()
        fill(large, events, bookings)
        number = events
        samples: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for turn in range(rounds + 1):  # the first one warms up
            for size in _SIZES:
                batch = make_events(number, size, events, bookings)
                number += size
                for name, harness in (("empty", empty), ("large", large)):
                    measured = load(harness, batch)
                    if turn:
                        samples.setdefault((name, size), []).append(measured)
    for (name, size), all_measured in samples.items():
        figures = growth.empty if name == "empty" else growth.large
        figures[size] = Loads([seconds for seconds, _ in all_measured], [cpu for _, cpu in all_measured])
    return growth


def make_events(first: int, size: int, events: int, bookings: int) -> list[StoredRecord]:
    """Return records of new events, of events about stored bookings, and of stored events."""
    records = []
    for number in range(first, first + size):
        event = sample(number, f"B{number}", number % 1000)
        if number % _ABOUT_STORED == 0 and bookings:
            event = sample(number, stored_id(number * 7919 % bookings), number % 1000)
        if number % _REPEATED == 1 and events:
            event = repeated(event, stored_id(number * 104_729 % events))
        records.append(StoredRecord(event.to_record(), Partition(TOPIC), number))
    return records


def stored_id(number: int) -> str:
    """Return the id that `fill` gives to the row with this number."""
    return "S" + md5(str(number).encode(), usedforsecurity=False).hexdigest()


def repeated(event: Event, event_id: str) -> Event:
    """Return the event with the id of a stored one."""
    return replace(event, id=event_id, source=SOURCE)


def load(harness: ConsumerHarness, batch: Sequence[StoredRecord]) -> tuple[float, float]:
    """Load records as the consumer does, and return the seconds by wall clock and by processor."""
    started, cpu = time.monotonic(), time.process_time()
    harness.loader._process(batch, {})
    return time.monotonic() - started, time.process_time() - cpu


def fill(
    harness: ConsumerHarness,
    events: int,
    bookings: int,
    begin: datetime = _BEGIN,
    *,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Fill the tables by SQL, with an event each second from `begin` on.

    `columns` has SQL for more columns, or for other values, by table. In it `number` is the row's, and
    `first` the instant of the first row.
    """
    first = f"'{format_instant(begin)}'::timestamptz"
    is_duckdb = harness.settings.warehouse.duckdb_file is not None
    with harness.warehouse.turn(), harness.warehouse._pipeline.sql_client() as client:
        for table, count, usual in (
            ("booking_events", events, _EVENT_COLUMNS),
            ("bookings", bookings, _BOOKING_COLUMNS),
        ):
            name, other = client.make_qualified_table_name(table), (columns or {}).get(table, {})
            values = dict(usual) | dict(other)
            if is_duckdb:
                values["_lookup_key"] = duckdb_tables._key_of(_STORED_ID)
                values["_lookup_run"] = "0"
            for start in range(0, count, _ROWS_PER_INSERT):
                numbers = f"generate_series({start}, {min(start + _ROWS_PER_INSERT, count) - 1})"
                client.execute_sql(
                    f"INSERT INTO {name} ({', '.join(values)})"
                    f" SELECT {', '.join(values.values())} FROM (SELECT number, {first} AS first"
                    f" FROM {numbers} AS numbers(number)) AS numbers"
                )
        if not is_duckdb:
            client.execute_sql("VACUUM ANALYZE")


_START = format_instant(_BEGIN)
_MOMENT = "first + number * interval '1 second'"
_EVENT_COLUMNS: dict[str, str] = {
    "id": _STORED_ID, "source": f"'{SOURCE}'", "type": "'oncehub.booking.scheduled'", "subject": _STORED_ID,
    "time": _MOMENT, "vendor": "'oncehub'", "account": "'support'", "via": "'webhook'",
    "received_at": _MOMENT,
    "position": f"'{TOPIC}/0/' || number::text", "data": "'{}'", "loaded_at": _MOMENT,
}  # fmt: skip
_BOOKING_COLUMNS: dict[str, str] = {
    "vendor": "'oncehub'", "account": "'support'", "booking_id": _STORED_ID, "status": "'confirmed'",
    "starts_at": _MOMENT, "version": f"'{_START}/{_START}'", "first_seen_at": _MOMENT,
    "last_event_id": _STORED_ID, "last_via": "'webhook'", "loaded_at": _MOMENT,
}  # fmt: skip


@contextmanager
def trees(destination: str, folder: Path) -> Iterator[tuple[Tree, Tree]]:
    """Yield settings of two consumers, each with a warehouse of its own."""
    trees = [settings_tree(folder / name, max_records=10_000) for name in ("large", "empty")]
    for name in ("large", "empty"):
        (folder / name).mkdir()
    if destination == "duckdb":
        yield trees[0], trees[1]
        return
    with running_postgres() as server:
        for number, tree in enumerate(trees):
            warehouse = {"destination": "postgres", "credentials": server.url, "dataset": f"bench{number}"}
            tree["warehouse"] = warehouse | {"work_dir": tree["warehouse"]["work_dir"]}
        yield trees[0], trees[1]


def add_table_options(parser: argparse.ArgumentParser, *, events: int, bookings: int) -> None:
    """Add the options of a measurement over large tables, with the sizes that are usual for it."""
    parser.add_argument("--events", type=int, default=events, help="stored events")
    parser.add_argument("--bookings", type=int, default=bookings, help="stored bookings")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--destinations", nargs="+", default=["duckdb", "postgres"], choices=["duckdb", "postgres"]
    )


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_table_options(parser, events=10_000_000, bookings=5_000_000)
    parser.add_argument("--folder", default=None, help="where the warehouses are made")
    add_write_option(parser)
    arguments = parser.parse_args()
    tables = []
    for destination in arguments.destinations:
        with (
            TemporaryDirectory(prefix="ingest-growth-", dir=arguments.folder) as folder,
            trees(destination, Path(folder)) as (tree, empty_tree),
        ):
            growth = measure(tree, empty_tree, arguments.events, arguments.bookings, arguments.rounds)
        title = f"{destination}, {arguments.events:,} events and {arguments.bookings:,} bookings"
        rows = [
            (
                f"{size:,}",
                _figures(growth.empty[size]),
                _figures(growth.large[size]),
                f"{growth.ratio(size):.2f}",
            )
            for size in _SIZES
        ]
        tables.append(Figures(title, ("events in a load", "empty tables", "large tables", "ratio"), rows))
    show("growth", tables, write=arguments.write)


def _figures(loads: Loads) -> str:
    seconds, cpu_seconds = statistics.median(loads.seconds), statistics.median(loads.cpu_seconds)
    return f"{seconds:.3f} s, of processor {cpu_seconds:.3f} s"


if __name__ == "__main__":
    main()
