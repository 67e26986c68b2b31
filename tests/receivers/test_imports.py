"""What the receiver's process imports: nothing of the consumer's, so that it is quick and small."""

import json
import sys

from tests.receivers.conftest import Start
from tests.receivers.requests import booking
from tests.receivers.running import on_linux

HEAVY = {"dlt", "pyarrow", "duckdb", "kafka", "pandas", "numpy", "sqlalchemy", "consumers", "opentelemetry"}

# `python -m ingest receive`, which says at its end what it has imported.
PROGRAM = """
import json, os, sys
leave = os._exit
os._exit = lambda code: (print(json.dumps(sorted(sys.modules)), flush=True), leave(code))
from ingest.cli import main
sys.argv[1:] = ["receive"]
main()
"""


@on_linux
def test_with_the_embedded_log_it_never_imports_what_only_loading_or_traces_need(start: Start) -> None:
    receiver = start([sys.executable, "-c", PROGRAM])
    print(f"receiver at its start: {receiver.resident() / 2**20:.0f} MiB resident")
    assert receiver.send(booking(1)).status_code == 202
    assert receiver.admin.get("/readyz").status_code == 200
    assert receiver.admin.get("/metrics").status_code == 200
    assert receiver.stop() == 0
    modules = {name.partition(".")[0] for name in json.loads(receiver.written().splitlines()[0])}
    assert {"receivers", "uvicorn", "sqlite3"} <= modules
    assert modules & HEAVY == set()
