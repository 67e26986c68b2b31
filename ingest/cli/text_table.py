"""Lays rows out as plain text, in a grid or one record below the other.

Pure, and quick for ten thousands of rows, which rich's tables are not.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len

from ingest.visible import visible

Row = Sequence[str]


def text_table(columns: Row, rows: Sequence[Row], width: int, *, ascii_only: bool = False) -> Iterator[str]:
    """Yield the lines of a grid where it fits the width, else a line for each value, so that nothing is cut.

    Texts are made visible.
    """
    cells = [[visible(cell, "\n\t").expandtabs() for cell in row] for row in (columns, *rows)]
    widths = [max(map(_cell_width, column)) for column in zip(*cells, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 <= width:
        yield from _grid(cells, widths, "|-+" if ascii_only else "│─┼")
    else:
        yield from _records(cells[0], cells[1:], width, "-" if ascii_only else "─")


def _grid(rows: Sequence[Row], widths: Sequence[int], box: str) -> Iterator[str]:
    """Yield the lines of a grid. `box`: its vertical line, its horizontal line and their crossing."""
    vertical, horizontal, crossing = tuple(box)
    yield from _grid_row(rows[0], widths, vertical)
    yield crossing.join(horizontal * (width + 2) for width in widths)
    for row in rows[1:]:
        yield from _grid_row(row, widths, vertical)


def _grid_row(row: Row, widths: Sequence[int], vertical: str) -> Iterator[str]:
    """Yield the lines of one row: as many as its tallest cell has."""
    for line in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
        cells = (f" {_pad(cell, width)} " for cell, width in zip(line, widths, strict=True))
        yield vertical.join(cells).rstrip()


def _records(columns: Row, rows: Sequence[Row], width: int, horizontal: str) -> Iterator[str]:
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
