"""The only place that prints. People see every stranger's text with what would drive a terminal made visible; JSON and CSV are exact.

`Console` is rich's, for tables, progress and status lines: a `str` is data, shown as it is. `print_line` and `print_note` print one message,
`print_json`, `print_csv` and `print_text` what scripts read. Style is given apart from text: `print_line(("failed", "red"), f" {name}: {error}")`.
"""

import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import rich.console
import simplejson
import typer
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from ingest.cli.layout import rows_for_people
from ingest.errors import IngestError
from ingest.visible import replace_hidden, visible

# What a shell reports of a program that SIGPIPE ended: https://www.gnu.org/software/bash/manual/html_node/Exit-Status.html
READER_GONE = 141
# A message, or part of one: its text, or the text with a style.
Part = str | tuple[str, str]
_LINES = "\n\t"


class Console(rich.console.Console):
    """Rich's console without markup and highlighting: nothing in a text is an instruction, and nothing of it reaches the terminal unseen."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Clean before the layout, so that columns are as wide as what is shown."""
        return super().render_str(visible(text, _LINES), **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Clean whatever did not come as a `str`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, _LINES))

    def on_broken_pipe(self) -> None:
        """End quietly when nobody reads the output; go on without the messages when nobody reads those."""
        self.quiet = True
        if not self.stderr:
            _leave_stdout()


def styled(text: str, style: str = "") -> Text:
    """A cleaned text of one style, for a cell of a table."""
    return Text(visible(text, _LINES), style)


def message(*parts: Part) -> Text:
    """Put a message together; its further lines are indented, so that none passes for a message of its own."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*(styled(text.replace("\n", "\n  "), style) for text, style in pairs))


def new_table(*columns: str, title: str = "", whole: Sequence[str] = ()) -> Table:
    """A table in which nothing is cut: cells are folded, but for the columns in `whole`."""
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    return table


def full_width(console: Console, table: Table) -> int:
    """Measure how many columns a table takes with nothing cut or folded."""
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Print rows with the same columns as a table, or, where that is too wide for the terminal, below each other with their first column as heading."""
    if not rows:
        return
    console = Console()
    table = new_table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    if full_width(console, table) <= console.width:
        console.print(table)
        return
    if title:
        print_line((title, "italic"))
    for row in rows:
        lines = Table.grid(
            Column(), Column(no_wrap=True, style="dim"), Column(overflow="fold"), padding=(0, 1)
        )
        (_, first), *others = row.items()
        print_line((str(first), "bold"))
        for name, value in others:
            if str(value):
                lines.add_row("", name, _cell(value))
        console.print(lines)


def _cell(value: Any) -> str | Text:
    return value if isinstance(value, Text) else str(value)


def print_line(*parts: Part) -> None:
    """Print one message to standard output, never wrapped."""
    with _to_stdout():
        Console().print(message(*parts), soft_wrap=True)


def print_text(text: str) -> None:
    """Print a text of our own, such as a file's content, exactly."""
    with _to_stdout() as stream:
        stream.write(text)


def print_note(*parts: Part) -> None:
    """Print one message to standard error, as `print_line`: what is not the command's result, so nothing fails when it cannot be written."""
    with suppress(OSError, ValueError):
        Console(stderr=True).print(message(*parts), soft_wrap=True)


def print_error(message: str) -> None:
    """Print why a command ends without its result."""
    print_note(f"error: {message}")


def print_json(value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Print one JSON document on one line; `default` is given what JSON has no word for."""
    with _to_stdout() as stream:
        stream.write(json_text(value, default, ascii_only=not _is_utf8(stream)) + "\n")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print any number of rows for people, as a grid where it fits the terminal."""
    with _to_stdout() as stream:
        for line in rows_for_people(columns, rows, Console().width, ascii_only=not _is_utf8(stream)):
            stream.write(f"{line}\n")


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a header line and rows in UTF-8; exact, except on a terminal, where texts are made visible."""
    with _to_stdout() as stream:
        if stream.isatty():
            columns, rows = _visible_cells(columns), map(_visible_cells, rows)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
        # A terminal makes CR LF of a line's end by itself: https://www.rfc-editor.org/rfc/rfc4180#section-2 wants it in a file.
        writer = csv.writer(stream, lineterminator="\n" if stream.isatty() else "\r\n")
        writer.writerow(columns)
        writer.writerows(rows)


def print_bytes(data: bytes) -> None:
    """Print these very bytes. Raises IngestError on a terminal, which they could drive."""
    with _to_stdout() as stream:
        if stream.isatty():
            raise IngestError(
                "the very bytes may hold what drives a terminal: send them to a file or another program, for example with > body"
            )
        stream.buffer.write(data)


def confirm(question: str) -> None:
    """Ask on the terminal; anything but yes ends the command."""
    typer.confirm(visible(question), abort=True)


def json_text(value: Any, default: Callable[[Any], Any] | None = None, *, ascii_only: bool = False) -> str:
    """JSON on one line with every hidden character as an escape, so that it is exact and safe to look at; NaN and infinities are null, Decimals exact."""
    text = simplejson.dumps(value, default=default, ensure_ascii=ascii_only, ignore_nan=True)
    return replace_hidden(text, _json_escape)


def _visible_cells(cells: Iterable[str]) -> list[str]:
    return [visible(cell, _LINES) for cell in cells]


def _json_escape(character: str) -> str:
    """A UTF-16 code unit each, as JSON has it: https://www.rfc-editor.org/rfc/rfc8259#section-7"""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _is_utf8(stream: TextIO) -> bool:
    return stream.encoding.lower().replace("-", "") == "utf8"


@contextmanager
def _to_stdout() -> Iterator[TextIO]:
    """Standard output, flushed. Ends the command quietly when its reader is gone; raises IngestError when it cannot be written."""
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_stdout()
    except OSError as error:
        raise IngestError(f"standard output cannot be written: {error.strerror}") from None


@contextmanager
def ending_without_reader() -> Iterator[None]:
    """End the command quietly when the reader of standard output is gone, also where typer or rich print, which would fail with exit code 1."""
    try:
        yield
    except BrokenPipeError:
        _leave_stdout()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise typer.Exit(READER_GONE) from None
        raise


@contextmanager
def visible_refusals() -> Iterator[None]:
    """Make visible what typer quotes of an argument that it refuses, which it prints itself; its errors' class is private."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = visible(str(error.message), _LINES)
        raise


def _leave_stdout() -> None:
    """What is still buffered goes nowhere: https://docs.python.org/3/library/signal.html#note-on-sigpipe"""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(READER_GONE)
