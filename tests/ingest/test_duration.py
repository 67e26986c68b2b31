"""Durations as they are written in settings."""

from datetime import timedelta

import pytest

from ingest.times import describe_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("3d", 259_200),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (" 10 s ", 10),
        (90, 90),
    ],
)
def test_a_number_and_a_unit_is_a_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


def test_a_duration_stays_what_it_is() -> None:
    assert parse_duration(timedelta(minutes=3)) == timedelta(minutes=3)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1w", "1h30m", "soon", "1e3", "nan", "99999999999d", True, None, [1]]
)
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (-0.25, "250 ms"),
        (1, "1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (7500, "2 h 5 min"),
        (3605, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_message_has_the_two_largest_units(seconds: float, text: str) -> None:
    assert describe_duration(timedelta(seconds=seconds)) == text
