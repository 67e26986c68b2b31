"""Lay rows out for people, as a grid or as one record below the other. Pure; quick for ten thousands of rows, which rich's tables are not."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len

from ingest.visible import visible

Row = Sequence[str]


def rows_for_people(
    columns: Row, rows: Sequence[Row], width: int, *, ascii_only: bool = False
) -> Iterator[str]:
    """Yield lines of a grid where it fits the width, else a line per value: cut columns would tell nothing. Texts are made visible."""
    shown = [[visible(cell, "\n\t").expandtabs() for cell in row] for row in (columns, *rows)]
    widths = [max(map(_cell_width, column)) for column in zip(*shown, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 <= width:
        yield from _grid(shown, widths, "|-+" if ascii_only else "│─┼")
    else:
        yield from _records(shown[0], shown[1:], width, "-" if ascii_only else "─")


def _grid(rows: Sequence[Row], widths: Sequence[int], box: str) -> Iterator[str]:
    side, line, cross = box[0], box[1], box[2]
    yield from _grid_row(rows[0], widths, side)
    yield cross.join(line * (width + 2) for width in widths)
    for row in rows[1:]:
        yield from _grid_row(row, widths, side)


def _grid_row(row: Row, widths: Sequence[int], side: str) -> Iterator[str]:
    """One line, or as many as its tallest cell has."""
    for line in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
        yield side.join(
            f" {_filled(cell, width)} " for cell, width in zip(line, widths, strict=True)
        ).rstrip()


def _records(columns: Row, rows: Sequence[Row], width: int, line: str) -> Iterator[str]:
    """Further lines of a value stand below it, so that none passes for another value."""
    label = max(map(_cell_width, columns))
    for number, row in enumerate(rows, start=1):
        yield f"{line} row {number} ".ljust(width, line)
        for name, cell in zip(columns, row, strict=True):
            for at, text in enumerate(cell.split("\n")):
                yield f"{_filled('' if at else name, label)}  {text}".rstrip()


def _cell_width(cell: str) -> int:
    if cell.isascii() and "\n" not in cell:
        return len(cell)
    return max(map(cell_len, cell.split("\n")))


def _filled(text: str, width: int) -> str:
    return text.ljust(width) if text.isascii() else text + " " * (width - cell_len(text))
