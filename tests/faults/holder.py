"""A program that knows nothing of taking turns and has the DuckDB file open: `python -m tests.faults.holder FILE reads|writes SECONDS`."""

import sys
import time
from contextlib import closing

import duckdb

_TRY_SECONDS = 0.01


def main(file: str, why: str, seconds: float) -> None:
    """Tries until it gets the file, which a consumer may have open."""
    while True:
        try:
            with closing(duckdb.connect(file, read_only=why == "reads")):
                time.sleep(seconds)
                return
        except duckdb.IOException:
            time.sleep(_TRY_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
