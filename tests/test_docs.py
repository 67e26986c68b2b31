"""The documentation names what exists: files, settings, commands, metrics, log events, vendors."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase
from typer.main import get_command

from ingest import telemetry
from ingest.cli.commands import app
from ingest.settings import section_models
from tests.ingest.cli import reference
from tests.ingest.vendors.reference import with_table

ROOT = Path(__file__).parents[1]
METRICS, EVENTS = (ROOT / "docs" / "metrics.md").read_text().split("## Log events")
CODE = "".join(
    file.read_text() for part in ("ingest", "receivers", "consumers") for file in (ROOT / part).rglob("*.py")
)
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _first_cells(table: str) -> list[str]:
    return [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield name, command
        for child, nested in _commands(command) if hasattr(command, "commands") else ():
            yield f"{name} {child}", nested


COMMANDS = dict(_commands(get_command(app)))


def _command_lines(text: str) -> Iterator[tuple[Any, str]]:
    """Yield the command and the arguments of each `ingest …` in a line of code or in backticks."""
    for line in re.findall(r"`ingest ([a-z][^`]*)`|^ingest ([a-z][^#\n]*)", text, re.MULTILINE):
        words = " ".join(line).split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert name in COMMANDS, f"ingest {name}"
        yield COMMANDS[name], " ".join(words)


def test_every_metric_is_listed_and_no_other() -> None:
    metrics = [metric for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)]
    families = {
        family.name.removesuffix("_created"): family.type for metric in metrics for family in metric.collect()
    }
    names = {f"{name}_total" if kind == "counter" else name for name, kind in families.items()}
    assert {name for cell in _first_cells(METRICS) for name in re.findall(r"`(ingest_\w+)", cell)} == names


def test_the_log_events_that_are_listed_are_those_of_the_code() -> None:
    listed = [name for cell in _first_cells(EVENTS) for name in re.findall(r"`([a-z_.]+)`", cell)]
    assert listed
    assert [name for name in listed if f'"{name}"' not in CODE] == []


def test_the_table_of_vendors_is_made_from_their_folders() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(text) == text, "run `make docs`"


@PAGE
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@PAGE
def test_files_that_are_named_exist(page: Path) -> None:
    paths = re.findall(r"`((?:ingest|receivers|consumers|tests|docs)/[\w/.]*)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@PAGE
def test_settings_and_log_events_that_are_named_exist(page: Path) -> None:
    models = section_models()
    names = re.findall(rf"`({'|'.join(models)})\.(\w+)`", page.read_text())
    unknown = [f"{section}.{key}" for section, key in names if key not in models[section].model_fields]
    assert [name for name in unknown if f'"{name}"' not in CODE] == []


@PAGE
def test_commands_and_options_that_are_named_exist(page: Path) -> None:
    for command, line in _command_lines(page.read_text()):
        options = {"-h", "--help"} | {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(re.findall(r"--[a-z-]+", line)) <= options | {"--config"}, line


def test_the_commands_in_the_documentation_are_those_of_the_program() -> None:
    text = reference.FILE.read_text(encoding="utf-8")
    assert reference.with_commands(text) == text, "run make docs"
