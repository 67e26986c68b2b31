"""The dashboard's pages over large tables: `python -m tests.bench.pages [--bookings 1000000]`.

The warehouse is filled by SQL, with an event each second until now: three accounts, customers who have names
and addresses of their own, and several events for each booking. Then each page is asked for several times,
one request at a time, while nothing is loaded. The first screen shows facts that are gathered beside it; how
long that takes has a line of its own.
"""

import argparse
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from ingest.health.gather import gather
from ingest.settings import Settings
from tests.bench.figures import Figures, add_write_option, show
from tests.bench.growth import add_table_options, fill, stored_id, trees
from tests.consumers.harness import open_consumer
from tests.ingest.dashboard.serving import serving
from tests.support.polling import PATIENCE, wait_for
from tests.support.settings import Tree

_LOADING = "Loading: this waits"
_PAGES = (
    "/",
    "/account?name=support",
    "/account?name=support&span=7d",
    "/bookings",
    "/bookings?sort=starts_at",
    "/bookings?sort=customer_name",
    "/bookings?search={id}",
    "/bookings?search=customer{number}@example.com",
    "/bookings?search=Ada {number}",
    "/bookings?search=nobody-has-this",
    "/bookings?account=support&status=cancelled",
    "/bookings?account=sales&status=no_show",
    "/booking?vendor=oncehub&account=support&id={id}",
    "/live",
    "/live?account=sales&status=cancelled",
    "/dead-letters",
    "/reconciliations",
    "/subscriptions",
    "/jobs",
    "/tables",
    "/query",
)

# SQL for columns of large tables, in which {bookings} is the number of bookings.
_BOOKING = "(number % {bookings})"
_ACCOUNT = f"CASE {_BOOKING} % 4 WHEN 0 THEN 'sales' WHEN 1 THEN 'clinic' ELSE 'support' END"
_COLUMNS = {
    "booking_events": {
        "source": f"'/oncehub/' || {_ACCOUNT}",
        "account": _ACCOUNT,
        "subject": f"'S' || md5({_BOOKING}::text)",
        "signed_by": "'1'",
        "data": """('{{"notes": "' || repeat(md5(number::text), 8) || '"}}')::json""",
    },
    "bookings": {
        "account": _ACCOUNT,
        "status": "CASE number % 21 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'no_show' ELSE 'confirmed' END",
        "customer_name": "'Ada ' || number::text || ' ' || substr(md5(number::text), 1, 8)",
        "customer_email": "'customer' || number::text || '@example.com'",
        "customer_phone": "'+49 30 ' || (number::bigint * 7919 % 9999991)::text",
        "service_name": "'Consultation ' || (number % 40)::text",
        "staff_name": "'Grace ' || (number % 200)::text",
        "created_at": "first + number * interval '1 second'",
        "updated_at": "first + number * interval '1 second'",
    },
}


def fill_tables(tree: Tree, events: int, bookings: int) -> Settings:
    """Fill the tables, and return the settings of their warehouse."""
    columns = {
        table: {name: sql.format(bookings=bookings) for name, sql in of_table.items()}
        for table, of_table in _COLUMNS.items()
    }
    begin = datetime.now(UTC) - timedelta(seconds=events)
    with open_consumer(tree) as harness:
        harness.warehouse.prepare()
        fill(harness, events, bookings, begin, columns=columns)
        return harness.settings


def measure(settings: Settings, bookings: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each request by page, and of the gathering of facts."""
    seconds: dict[str, list[float]] = {}
    with serving(settings) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:
        wait_for(lambda: _LOADING not in client.get("/").text, "the facts are gathered for the first time")
        for _ in range(rounds):
            for page in _PAGES:
                path = page.format(id=stored_id(bookings // 2 + 2), number=bookings // 2 + 2)
                started = time.monotonic()
                while _LOADING in client.get(path).raise_for_status().text:
                    pass  # the page would ask again
                seconds.setdefault(page, []).append(time.monotonic() - started)
    started = time.monotonic()
    gather(settings)
    return seconds | {"facts for the first screen": [time.monotonic() - started]}


def figures(destination: str, seconds: dict[str, list[float]], stored: str) -> Figures:
    """Return the table of a destination's pages."""
    rows = [
        (page, _milliseconds(statistics.median(times)), _milliseconds(max(times)))
        for page, times in seconds.items()
    ]
    return Figures(f"{destination}, {stored}", ("page", "median, ms", "longest, ms"), rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_table_options(parser, events=3_000_000, bookings=1_000_000)
    add_write_option(parser)
    options = parser.parse_args()
    stored = f"{options.events:,} events and {options.bookings:,} bookings"
    tables = []
    for destination in options.destinations:
        with (
            TemporaryDirectory(prefix="ingest-pages-") as folder,
            trees(destination, Path(folder)) as (tree, _),
        ):
            oncehub = {"vendor": "oncehub", "webhook_secrets": ["only-for-measurements"]}
            tree["accounts"] = dict.fromkeys(("support", "sales", "clinic"), oncehub)
            tree["receiver"] = {"admin_port": 0, "spool_dir": f"{folder}/spool"}
            settings = fill_tables(tree, options.events, options.bookings)
            seconds = measure(settings, options.bookings, options.rounds)
        tables.append(figures(destination, seconds, stored))
    show("pages", tables, write=options.write)


if __name__ == "__main__":
    main()
