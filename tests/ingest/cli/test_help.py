"""The help of every command, with an example to start from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ingest.cli.commands import app
from tests.support.processes import Result, ingest, refused


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield every command, also those of groups within groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


COMMANDS = sorted(commands(get_command(app)))


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Result]:
    """Return the help of every command; they run side by side, because starting takes most of the time."""
    folder = tmp_path_factory.mktemp("nothing-here")
    with ThreadPoolExecutor(4) as threads:
        futures = {command: threads.submit(ingest, folder, *command, "--help") for command in [(), *COMMANDS]}
    assert list(folder.iterdir()) == [], "asking for help leaves nothing behind"
    return {command: future.result() for command, future in futures.items()}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    helped: dict[tuple[str, ...], Result], command: tuple[str, ...]
) -> None:
    result = helped[command]
    assert result.code == 0
    assert result.err == ""
    _, example = result.out.split("Example", 1)
    assert f"ingest {' '.join(command)}" in example


def test_help_names_every_command_and_where_to_begin(helped: dict[tuple[str, ...], Result]) -> None:
    result = helped[()]
    assert result.code == 0
    assert "Start with ingest demo" in result.out
    assert {path[0] for path in COMMANDS} <= set(result.out.split())


def test_it_tells_its_version(tmp_path: Path) -> None:
    assert ingest(tmp_path, "--version").out == f"ingest {version('bookings-ingest')}\n"


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    result = ingest(tmp_path, "recieve")
    assert result.code == 2
    assert "recieve" in result.err


def test_help_of_a_command_is_what_the_command_itself_shows(tmp_path: Path) -> None:
    asked, shown = ingest(tmp_path, "help", "webhooks", "plan"), ingest(tmp_path, "webhooks", "plan", "-h")
    assert (asked.code, asked.out.strip()) == (0, shown.out.strip())
    assert ingest(tmp_path, "help").out.strip() == ingest(tmp_path, "-h").out.strip()
    assert "no command nothing" in refused(ingest(tmp_path, "help", "webhooks", "nothing"))
