"""Tests of the sources in other people's pipelines.

What the documentation shows is run as it stands.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from ingest import sources
from tests.support.processes import ROOT
from tests.support.simulated_vendor import Side, simulated

EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "sources.md").read_text(), re.DOTALL)


def home(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment in which dlt keeps its pipelines in this test's folder."""
    return {
        "HOME": str(folder),
        "DLT_DATA_DIR": str(folder),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    } | variables


def source_arguments(side: Side) -> dict[str, Any]:
    """Return the arguments of the account's source."""
    settings = side.dialect.settings()
    return {name: settings[name] for name in ("api_token", "api_key", "secret_key") if name in settings} | {
        "api_url": side.server.api_url("sales")
    }


def test_the_documented_example_runs_as_it_stands(tmp_path: Path) -> None:
    assert EXAMPLE
    with simulated("calendly", tmp_path) as side:
        arguments = source_arguments(side)
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        environ = home(
            tmp_path,
            **variables,
            SOURCES__CALENDLY__API_TOKEN=arguments["api_token"],
            SOURCES__CALENDLY__API_URL=arguments["api_url"],
        )
        process = subprocess.run(
            [sys.executable, "-c", EXAMPLE[1]],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    assert "is LOADED and contains no failed jobs" in process.stdout
    with duckdb.connect(str(tmp_path / "team.duckdb")) as connection:
        assert connection.execute("select count(*) from calendly.event_types").fetchone() == (4,)
    with duckdb.connect(str(tmp_path / "team.duckdb")) as connection:
        assert connection.execute("select count(*) from calendly.event_types").fetchone() == (4,)


@pytest.mark.parametrize(
    ("vendor", "resources"),
    [
        ("appointedd", {"services": 4, "staff": 5}),
        ("bookeo", {"settings_products": 4, "resources": 1}),
        ("calendly", {"groups": 1, "organization_memberships": 5}),
        ("oncehub", {"users": 5, "booking_calendars": 4}),
    ],
)
def test_a_source_run_twice_gives_each_row_once(
    vendor: str, resources: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in home(tmp_path).items():
        monkeypatch.setenv(name, value)
    with simulated(vendor, tmp_path) as side:
        pipeline = dlt.pipeline(
            f"own_{vendor}",
            pipelines_dir=str(tmp_path / "dlt"),
            destination=dlt.destinations.duckdb(str(tmp_path / "file.duckdb")),
            dataset_name="own",
        )
        for _ in range(2):
            pipeline.run(
                getattr(sources, f"{vendor}_source")(**source_arguments(side)).with_resources(*resources)
            )
    with duckdb.connect(str(tmp_path / "file.duckdb")) as connection:
        counts = {
            name: connection.execute(f"select count(*) from own.{name}").fetchall()[0][0]
            for name in resources
        }
    assert counts == resources


def test_appointedd_without_either_credential_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in home(tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=r"client_id|client_secret"):
        sources.appointedd_source()
