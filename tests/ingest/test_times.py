"""Instants have one text form that sorts as time does; durations are written in several."""

from datetime import UTC, datetime, timedelta, timezone

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import PayloadError
from ingest.times import describe_duration, format_instant, parse_duration, parse_instant, utc

OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INSTANTS = st.datetimes(timezones=st.just(UTC))
# A day from either end of the calendar, so that every one of them exists in UTC too.
ANYWHERE = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=OFFSETS)  # noqa: DTZ001 - the zone is drawn


@given(INSTANTS, INSTANTS)
def test_text_sorts_as_time_does(first: datetime, second: datetime) -> None:
    assert (format_instant(first) < format_instant(second)) == (first < second)
    assert (format_instant(first) == format_instant(second)) == (first == second)


@given(ANYWHERE)
def test_text_is_27_characters_in_utc_whatever_the_zone(moment: datetime) -> None:
    text = format_instant(moment)
    assert len(text) == 27
    assert text.endswith("Z")
    assert parse_instant(text) == moment
    assert format_instant(parse_instant(text)) == text


@given(ANYWHERE)
def test_what_is_read_is_the_same_instant_in_utc(moment: datetime) -> None:
    assert parse_instant(moment.isoformat()) == moment
    assert parse_instant(moment.isoformat()).tzinfo is UTC


@given(st.datetimes())
def test_a_time_without_a_zone_is_no_instant(moment: datetime) -> None:
    with pytest.raises(PayloadError):
        parse_instant(moment.isoformat())
    with pytest.raises(ValueError, match="without a zone"):
        utc(moment)
    with pytest.raises(ValueError, match="without a zone"):
        format_instant(moment)


@given(st.text())
def test_any_text_is_an_instant_or_a_payload_error(text: str) -> None:
    try:
        moment = parse_instant(text)
    except PayloadError:
        return
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-06-09",
        "2026-02-30T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "1781041038",
        "2026-06-09T21:37:60Z",
    ],
)
def test_what_is_not_an_instant_is_a_payload_error(text: str) -> None:
    with pytest.raises(PayloadError):
        parse_instant(text)


def test_the_form_is_iso_8601_with_microseconds() -> None:
    assert format_instant(parse_instant("2026-06-09T23:37:18.5+02:00")) == "2026-06-09T21:37:18.500000Z"
    assert format_instant(datetime(33, 4, 3, tzinfo=UTC)) == "0033-04-03T00:00:00.000000Z"


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


def test_the_instants_of_other_libraries_are_formatted_alike() -> None:
    moment = datetime(2026, 6, 9, 21, 37, 18, tzinfo=UTC)
    for other in (pendulum.instance(moment), pendulum.instance(moment).in_timezone("Asia/Tokyo")):
        assert type(other) is not datetime
        assert format_instant(other) == "2026-06-09T21:37:18.000000Z"
