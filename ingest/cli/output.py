"""The only module that prints.

People see every stranger's text with what would drive a terminal made visible; JSON and CSV are exact.

`Console` is rich's, for tables, progress and status lines: a `str` is data, shown as it is. `print_line` and
`print_note` print one message, `print_json`, `print_csv` and `print_text` what scripts read. Style is given
apart from text: `print_line(("failed", "red"), f" {name}: {error}")`.
"""

import csv
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any, TextIO, TypeVar

import rich.console
import typer
from rich.cells import cell_len
from rich.progress import Progress, ProgressColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from ingest.cli import ExitCode
from ingest.errors import IngestError
from ingest.terminal import visible
from ingest.waits import announcing
from ingest.warehouse.values import json_text

T = TypeVar("T")
# A message, or part of one: its text, or the text with a style.
Part = str | tuple[str, str]
_LAYOUT = "\n\t"  # the control characters that stay as they are


class Console(rich.console.Console):
    """Rich's console without markup and highlighting, which cleans every text."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Clean a text before it is laid out, so that columns are as wide as what is shown."""
        return super().render_str(visible(text, _LAYOUT), **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Clean what did not come as a `str`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, _LAYOUT))

    def on_broken_pipe(self) -> None:
        """End quietly when nobody reads standard output; go on without messages when nobody reads those."""
        self.quiet = True
        if not self.stderr:
            _leave_stdout()


def styled(text: str, style: str = "") -> Text:
    """Return a cleaned text in one style, for a cell of a table."""
    return Text(visible(text, _LAYOUT), style)


def message(*parts: Part) -> Text:
    """Put a message together.

    Its further lines are indented, so that none passes for a message of its own.
    """
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*(styled(text.replace("\n", "\n  "), style) for text, style in pairs))


def new_table(*columns: str, title: str = "", unfolded: Collection[str] = ()) -> Table:
    """Return a table in which nothing is cut: cells are folded, except in the columns `unfolded`."""
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in unfolded)
    return table


def full_width(console: Console, table: Table) -> int:
    """Return how many columns a table takes with nothing cut or folded."""
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Print rows with the same columns as a table.

    Where that is too wide for the terminal, rows stand below each other, each under the value of its first
    column.
    """
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
    """Print a text of our own exactly, such as a file's content."""
    with _to_stdout() as stream:
        stream.write(text)


def print_note(*parts: Part) -> None:
    """Print one message that is not the command's result to standard error.

    Nothing fails when it cannot be written.
    """
    with suppress(OSError, ValueError):
        Console(stderr=True).print(message(*parts), soft_wrap=True)


def print_error(message: str) -> None:
    """Print why a command ends without its result."""
    print_note(f"error: {message}")


def print_json(value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Print one JSON document on one line. `default` converts what JSON has no word for."""
    with _to_stdout() as stream:
        stream.write(json_text(value, default, ascii_only=not _is_utf8(stream)) + "\n")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print any number of rows for people.

    They are a grid where that fits the terminal, else a line for each value, so that nothing is cut. This is
    quick for ten thousands of rows, which rich's tables are not.
    """
    cells = [[visible(cell, _LAYOUT).expandtabs() for cell in row] for row in (columns, *rows)]
    widths = [max(map(_cell_width, column)) for column in zip(*cells, strict=True)]
    with _to_stdout() as stream:
        width = Console().width
        vertical, horizontal, crossing = "│─┼" if _is_utf8(stream) else "|-+"
        if sum(widths) + 3 * len(widths) + 1 <= width:
            lines = _grid_lines(
                cells, widths, vertical, crossing.join(horizontal * (size + 2) for size in widths)
            )
        else:
            lines = _record_lines(cells[0], cells[1:], width, horizontal)
        for line in lines:
            stream.write(f"{line}\n")


def _grid_lines(
    rows: Sequence[Sequence[str]], widths: Sequence[int], vertical: str, rule: str
) -> Iterator[str]:
    """Yield as many lines for each row as its tallest cell has, and a rule below the first row."""
    for number, row in enumerate(rows):
        for line in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            cells = (f" {_pad(cell, width)} " for cell, width in zip(line, widths, strict=True))
            yield vertical.join(cells).rstrip()
        if not number:
            yield rule


def _record_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, horizontal: str
) -> Iterator[str]:
    """Yield a heading for each row, then a line for each value.

    A value's further lines are indented, so that none passes for another value.
    """
    label_width = max(map(_cell_width, columns))
    for number, row in enumerate(rows, start=1):
        yield f"{horizontal} row {number} ".ljust(width, horizontal)
        for column, cell in zip(columns, row, strict=True):
            label = column
            for line in cell.split("\n"):
                yield f"{_pad(label, label_width)}  {line}".rstrip()
                label = ""


def _cell_width(cell: str) -> int:
    if cell.isascii() and "\n" not in cell:
        return len(cell)
    return max(map(cell_len, cell.split("\n")))


def _pad(text: str, width: int) -> str:
    return text.ljust(width) if text.isascii() else text + " " * (width - cell_len(text))


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a header line and rows in UTF-8, exactly except on a terminal, where texts are made visible."""
    with _to_stdout() as stream:
        if stream.isatty():
            columns, rows = _visible_cells(columns), map(_visible_cells, rows)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
        # A terminal makes CR LF of a line's end by itself: https://www.rfc-editor.org/rfc/rfc4180#section-2
        # wants it in a file.
        writer = csv.writer(stream, lineterminator="\n" if stream.isatty() else "\r\n")
        writer.writerow(columns)
        writer.writerows(rows)


def print_bytes(data: bytes) -> None:
    """Print bytes as they are. Raises IngestError on a terminal, which they could drive."""
    with _to_stdout() as stream:
        if stream.isatty():
            raise IngestError(
                "the exact bytes may contain control sequences of terminals: send them to a file or "
                "another program, for example with > body"
            )
        stream.buffer.write(data)


@contextmanager
def show_waits() -> Iterator[None]:
    """Print what the command waits for, and how long, to standard error: standard output is the answer's."""
    with announcing(print_note):
        yield


@contextmanager
def progress_bars(
    *columns: ProgressColumn, quiet: bool = False, transient: bool = True
) -> Iterator[Progress | None]:
    """Show progress bars on standard error.

    Yields None, and shows nothing, when `quiet` or where that is no terminal.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    with Progress(*columns, console=console, transient=transient) as progress:
        yield progress


def track(items: Iterable[T], description: str, total: int, *, quiet: bool = False) -> Iterator[T]:
    """Yield the items, with a progress bar on standard error where that is a terminal."""
    with progress_bars(quiet=quiet) as progress:
        task = progress.add_task(description, total=total) if progress else None
        for item in items:
            yield item
            if progress and task is not None:
                progress.advance(task)


def confirm(question: str) -> None:
    """Ask a question on the terminal. Any answer but yes ends the command."""
    typer.confirm(visible(question), abort=True)


def _visible_cells(cells: Iterable[str]) -> list[str]:
    return [visible(cell, _LAYOUT) for cell in cells]


def _is_utf8(stream: TextIO) -> bool:
    return stream.encoding.lower().replace("-", "") == "utf8"


@contextmanager
def _to_stdout() -> Iterator[TextIO]:
    """Yield standard output and flush it. Ends the command quietly when its reader is gone.

    Raises IngestError when it cannot be written.
    """
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_stdout()
    except OSError as error:
        raise IngestError(f"standard output cannot be written: {error.strerror}") from None


@contextmanager
def ending_without_reader() -> Iterator[None]:
    """End the command quietly when the reader of standard output is gone.

    Where typer or rich print, it would otherwise end with exit code 1.
    """
    try:
        yield
    except BrokenPipeError:
        _leave_stdout()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise typer.Exit(ExitCode.READER_GONE) from None
        raise


@contextmanager
def visible_refusals() -> Iterator[None]:
    """Make visible what typer quotes, and prints itself, of an argument that it refuses."""
    try:
        yield
    except Exception as error:
        # The class of typer's errors is private.
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = visible(str(error.message), _LAYOUT)
        raise


def _leave_stdout() -> None:
    # What is still buffered goes nowhere: https://docs.python.org/3/library/signal.html#note-on-sigpipe
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(ExitCode.READER_GONE)
