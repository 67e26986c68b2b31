"""A program that has the warehouse to itself and knows nothing of taking turns.

`python -m tests.faults.holder FILE|URL reads|writes SECONDS`
"""

import random
import sys
import time
from contextlib import closing

import duckdb
import psycopg2

_TRY_SECONDS = 0.01
_TABLES = ("bookings", "booking_events", "_dlt_loads")
_MODES = {"reads": "SHARE", "writes": "ACCESS EXCLUSIVE"}


def main(warehouse: str, purpose: str, seconds: float) -> None:
    """Hold the file, or a table, for these seconds.

    It tries again until it gets it, since a consumer may be writing.
    """
    hold = _hold_tables if warehouse.startswith("postgresql:") else _hold_file
    while True:
        try:
            hold(warehouse, purpose, seconds)
            return
        except (duckdb.IOException, psycopg2.Error):
            time.sleep(_TRY_SECONDS)


def _hold_file(file: str, purpose: str, seconds: float) -> None:
    with closing(duckdb.connect(file, read_only=purpose == "reads")):
        time.sleep(seconds)


def _hold_tables(url: str, purpose: str, seconds: float) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE ingest.{random.choice(_TABLES)} IN {_MODES[purpose]} MODE")
        time.sleep(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
