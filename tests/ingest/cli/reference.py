"""Make docs/commands.md from the help of the commands: `python -m tests.ingest.cli.reference` writes it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from ingest.cli.commands import app
from tests.support.generated import replace_block

FILE = Path(__file__).parents[3] / "docs" / "commands.md"
_EXAMPLES = "\b\nExample"


def with_commands(text: str) -> str:
    """Return the text of docs/commands.md with the commands between its two comments replaced."""
    return replace_block(text, "commands", _sections("ingest", get_command(app)))


def _sections(path: str, group: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _sections(f"{path} {name}", command)
        else:
            yield from _section(f"{path} {name}", command)


def _section(path: str, command: Any) -> Iterator[str]:
    """Yield the lines of a command: what it does, its arguments and options, and its examples."""
    text, _, examples = (command.help or "").partition(_EXAMPLES)
    yield from (f"## {path}", "", re.sub(r"\[/?bold\]", "", text).strip(), "")
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.help]
    if shown:
        yield from ("| argument or option | default | meaning |", "|---|---|---|")
        yield from (_row(parameter) for parameter in shown)
        yield ""
    lines = [line.strip() for line in re.findall(r"\[bold\](.*?)\[/bold\]", examples)]
    if lines:
        yield from ("```sh", *lines, "```", "")


def _row(parameter: Any) -> str:
    """Return the row of an argument or an option."""
    name = ", ".join(f"`{name}`" for name in parameter.opts if name.startswith("-"))
    if not name:
        name = f"`{parameter.name.upper()}`"
    if isinstance(parameter.show_default, str):
        default = parameter.show_default
    elif parameter.default in (None, False, ()):
        default = "-"
    else:
        default = f"`{parameter.default}`"
    meaning = re.sub(r"\[/?bold\]", "", " ".join(parameter.help.split())).replace("|", "\\|")
    return f"| {name} | {default} | {meaning} |"


if __name__ == "__main__":
    FILE.write_text(with_commands(FILE.read_text(encoding="utf-8")), encoding="utf-8")
