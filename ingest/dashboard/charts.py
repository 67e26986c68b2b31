"""Charts as SVG: where the bars of a chart are. The template draws them, and shows the same as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH, HEIGHT = 720, 120
_TOP, _BOTTOM = 4, 16  # room above the bars, and below them for the days
_SMALLEST_BAR = 1.0  # a value above zero shows


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the series with this number, and the text that explains it."""

    x: float
    y: float
    width: float
    height: float
    series: int
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars of a chart, the days below them by their place, and the largest value; None without any."""

    bars: Sequence[Bar]
    days: Sequence[tuple[float, str]]
    largest: float | None


def bar_chart(hours: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Chart:
    """Place a bar for each hour and each of the named columns. Later columns are drawn over earlier ones.

    `hours` are rows with `hour` and the columns, in order; a value may be None.
    """
    values = [row[name] for row in hours for name in names if row[name] is not None]
    largest = max(values, default=None)
    scale = (HEIGHT - _TOP - _BOTTOM) / largest if largest else 0.0
    step = WIDTH / max(len(hours), 1)
    bars, days = list[Bar](), list[tuple[float, str]]()
    for place, row in enumerate(hours):
        hour: datetime = row["hour"]
        x = round(place * step, 1)
        if hour.hour == 0:
            days.append((x, f"{hour:%d %b}"))
        for series, name in enumerate(names):
            if value := row[name]:
                height = round(max(value * scale, _SMALLEST_BAR), 1)
                text = f"{hour:%Y-%m-%d %H:%M}Z: {value:,.4g} {name}"
                y = round(HEIGHT - _BOTTOM - height, 1)
                bars.append(Bar(x, y, round(step * 0.8, 1), height, series, text))
    return Chart(bars, days, largest)
