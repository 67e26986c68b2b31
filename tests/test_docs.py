"""docs/metrics.md lists every metric, and log events by their right names."""

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from ingest import telemetry

ROOT = Path(__file__).parents[1]
METRICS, EVENTS = (ROOT / "docs" / "metrics.md").read_text().split("## Log events")


def _first_cells(table: str) -> list[str]:
    return [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]


def test_every_metric_is_listed_and_no_other() -> None:
    metrics = [metric for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)]
    families = {
        family.name.removesuffix("_created"): family.type for metric in metrics for family in metric.collect()
    }
    names = {f"{name}_total" if kind == "counter" else name for name, kind in families.items()}
    assert {name for cell in _first_cells(METRICS) for name in re.findall(r"`(ingest_\w+)", cell)} == names


def test_the_log_events_that_are_listed_are_those_of_the_code() -> None:
    code = "".join(
        file.read_text()
        for part in ("ingest", "receivers", "consumers")
        for file in (ROOT / part).rglob("*.py")
    )
    listed = [name for cell in _first_cells(EVENTS) for name in re.findall(r"`([a-z_.]+)`", cell)]
    assert listed
    assert [name for name in listed if f'"{name}"' not in code] == []
