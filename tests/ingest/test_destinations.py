"""Tests of what is known of each destination, and that docs/destinations.md says the same."""

import re
import tomllib
from pathlib import Path

import pytest

from ingest.destinations import BIGQUERY, DESTINATIONS, DUCKDB, Destination, find_destination
from ingest.settings import Settings
from ingest.times import format_duration

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "destinations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("destination", DESTINATIONS.values(), ids=list(DESTINATIONS))
def test_the_page_has_what_a_tested_destination_is_used_with(destination: Destination) -> None:
    if not destination.is_tested:
        assert f"| `{destination.name}` |" not in PAGE
        return
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| `{destination.name}` |")]
    _, _, title, _, interval, why, longest, *_ = [cell.strip() for cell in line.split("|")]
    limit = f"{destination.longest_text:,} bytes" if destination.longest_text else "no limit"
    expected = (destination.title, f"`{format_duration(destination.interval)}`", destination.interval_reason)
    assert (title, interval, why, longest) == (*expected, limit)


@pytest.mark.parametrize(
    "name", [name for name, destination in DESTINATIONS.items() if destination.is_tested]
)
def test_a_tested_destination_has_a_page_with_its_settings(name: str) -> None:
    page = {"filesystem": "lake"}.get(name, name)
    text = (DOCS / "destinations" / f"{page}.md").read_text(encoding="utf-8")
    blocks = [
        tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    assert blocks
    for block in blocks:
        assert Settings.model_validate(block).warehouse.kind.name == name
    assert f"(destinations/{page}.md)" in PAGE


@pytest.mark.parametrize("name", ["duckdb", "dlt.destinations.duckdb"])
def test_a_destination_is_known_by_its_name_and_its_module(name: str) -> None:
    assert find_destination(name) is DUCKDB


def test_an_unknown_destination_is_not_tested() -> None:
    assert find_destination("clickhouse").name == "clickhouse"
    assert not find_destination("clickhouse").is_tested


def test_a_batch_lingers_as_the_destination_calls_for_unless_it_is_set() -> None:
    bigquery = {"destination": "bigquery"}
    assert Settings.model_validate({"warehouse": bigquery}).linger == BIGQUERY.interval
    set_by_user = {"warehouse": bigquery, "consumer": {"linger": "2s"}}
    assert Settings.model_validate(set_by_user).linger.total_seconds() == 2
