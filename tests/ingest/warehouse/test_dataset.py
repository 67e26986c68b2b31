"""Tests of reading the warehouse with dlt from Python, as docs/tables.md shows it."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from consumers.rows import SCHEMAS
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import sample
from tests.support.polling import PATIENCE
from tests.support.processes import ROOT

DOCUMENT = (ROOT / "docs" / "tables.md").read_text()
EXAMPLE = DOCUMENT.split("```python\n")[1].split("```")[0]
LOOK = """
assert sorted(bookings.booking_id) == ["B1", "B2"], bookings
assert bookings.set_index("booking_id").starts_at["B1"].isoformat() == "2026-05-09T08:00:00+00:00"
assert float(bookings.set_index("booking_id").price["B1"]) == 12.5
dataset = pipeline.dataset()
assert dataset("select count(*) as events from booking_events").df().events[0] == 2
assert sum(table.num_rows for table in dataset.bookings.iter_arrow(chunk_size=10000)) == 2
print("read")
"""


def dlt_environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which dlt keeps everything in one folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DLT_DATA_DIR": str(folder),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        **variables,
    }


def script(harness: ConsumerHarness) -> str:
    """Return the document's example for this warehouse."""
    warehouse = harness.settings.warehouse
    database = warehouse.credentials.get_secret_value() if warehouse.credentials else ""
    text = EXAMPLE.replace('dataset_name="ingest"', f'dataset_name="{warehouse.dataset}"').replace(
        "data/warehouse.duckdb", database
    )
    if not warehouse.duckdb_file:
        text = text.replace("destinations.duckdb", "destinations.postgres")
    assert text != EXAMPLE
    return text + LOOK


def test_the_documents_example_reads_the_warehouse_also_while_a_consumer_holds_the_pipeline(
    either_harness: ConsumerHarness, tmp_path: Path
) -> None:
    paid: dict[str, Any] = {"amount_charged": 1250, "currency": "EUR"}
    either_harness.load(
        sample(1, "B1", starting_time="2026-05-09T10:00:00+02:00", payment_information=paid), sample(2, "B2")
    )
    done = subprocess.run(
        [sys.executable, "-c", script(either_harness)], cwd=tmp_path,
        env=dlt_environment(tmp_path),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
    either_harness.load(sample(3, "B3"))
    assert len(either_harness.rows("select * from bookings")) == 3


def test_dlts_dashboard_shows_the_pipeline(harness: ConsumerHarness, tmp_path: Path) -> None:
    harness.load(sample(1, "B1"))
    assert "dlt --yes pipeline ingest sync --destination duckdb --dataset-name ingest\n" in DOCUMENT
    environ = dlt_environment(
        tmp_path, DESTINATION__DUCKDB__CREDENTIALS=str(harness.settings.warehouse.duckdb_file)
    )

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments], cwd=tmp_path, env=environ,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    run("dlt", "--yes", "pipeline", "ingest", "sync", "--destination", "duckdb", "--dataset-name", "ingest")
    # What `dlt pipeline ingest show` serves, as a page.
    folder = find_spec("dlt._workspace.helpers.dashboard")
    assert folder
    assert folder.submodule_search_locations
    app = Path(folder.submodule_search_locations[0]) / "dlt_dashboard.py"
    page, pipelines = tmp_path / "page.html", str(tmp_path / "pipelines")
    run("marimo", "export", "html", str(app), "-o", str(page), "--", "--pipeline", "ingest",
        "--pipelines-dir", pipelines)  # fmt: skip
    assert SCHEMAS.keys() <= set(re.findall(r"[a-z_]+", page.read_text()))


@pytest.mark.postgres
def test_postgresql_gives_arrow_tables_too(postgres_harness: ConsumerHarness, tmp_path: Path) -> None:
    import dlt

    postgres_harness.load(sample(1, "B1"))
    credentials = postgres_harness.settings.warehouse.credentials
    assert credentials
    pipeline = dlt.pipeline(
        "ingest",
        pipelines_dir=str(tmp_path / "mine"),
        destination=dlt.destinations.postgres(credentials.get_secret_value()),
        dataset_name=postgres_harness.settings.warehouse.dataset,
    )
    assert pipeline.dataset().bookings.arrow().num_rows == 1
