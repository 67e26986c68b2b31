"""Silence is told from chance: few false alarms over thousands of simulated weeks, and outages are found."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from ingest.rhythm import (
    FALSE_ALARMS_PER_WEEK,
    WEEKS,
    Rhythm,
    learn_rhythm,
    start_of_hour,
)

HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
HOURS_PER_WEEK = 168


@dataclass(frozen=True)
class Life:
    """An account's traffic: deliveries a week, its shape, how many come together, and how days differ."""

    per_week: float
    shape: str
    group: float = 1.0
    day_variance: float = 0.0

    def rate(self, hour: int) -> float:
        """Return the deliveries that are expected in an hour of the week."""
        return self.per_week * self._weight(hour) / sum(map(self._weight, range(HOURS_PER_WEEK)))

    def _weight(self, hour: int) -> float:
        day, of_day = divmod(hour, 24)
        match self.shape:
            case "office":
                return (1.0 if 8 <= of_day < 18 else 0.02) * (1.0 if day < 5 else 0.05)
            case "evenings":
                return 1.0 if 16 <= of_day < 22 else 0.2
            case _:
                return 1.0

    def deliveries(self, chance: random.Random, weeks: int) -> list[datetime]:
        """Return simulated deliveries in order."""
        events: list[datetime] = []
        for number in range(weeks * HOURS_PER_WEEK):
            if number % 24 == 0:
                day = (
                    chance.gammavariate(1 / self.day_variance, self.day_variance)
                    if self.day_variance
                    else 1.0
                )
            for _ in range(poisson(chance, self.rate(number % HOURS_PER_WEEK) * day / self.group)):
                at = MONDAY + (number + chance.random()) * HOUR
                events += [at] * (1 + poisson(chance, self.group - 1))
        return sorted(events)


def poisson(chance: random.Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count


def learned(deliveries: Sequence[datetime], now: datetime) -> Rhythm | None:
    counts: dict[datetime, int] = {}
    for at in deliveries:
        if now - WEEKS * WEEK <= at < now:
            counts[start_of_hour(at)] = counts.get(start_of_hour(at), 0) + 1
    return learn_rhythm(counts, now)


def waits(deliveries: Sequence[datetime], since: datetime) -> Iterator[tuple[datetime, datetime]]:
    return ((before, after) for before, after in pairwise(deliveries) if before >= since and after > before)


def count_alarms(life: Life, chance: random.Random, weeks: int) -> int:
    """Return how many waits of a simulated life were taken for silences."""
    deliveries = life.deliveries(chance, weeks + WEEKS + 1)
    alarms, rhythm, known_until = 0, None, MONDAY
    for before, after in waits(deliveries, MONDAY + (WEEKS + 1) * WEEK):
        if before >= known_until:
            rhythm, known_until = learned(deliveries, before), before + WEEK
        alarms += rhythm is not None and rhythm.is_silence(before, after)
    return alarms


LIVES = [
    Life(1, "flat"),
    Life(5, "office"),
    Life(20, "evenings", group=2),
    Life(60, "office"),
    Life(60, "flat", day_variance=0.3),
    Life(300, "office"),
    Life(300, "evenings", group=3),
]


@pytest.mark.parametrize("life", LIVES, ids=str)
def test_an_account_without_trouble_is_taken_for_silent_no_more_often_than_stated(life: Life) -> None:
    chance = random.Random(2026)
    weeks = 0
    alarms = 0
    while weeks < 312:
        alarms += count_alarms(life, chance, 52)
        weeks += 52
    expected = FALSE_ALARMS_PER_WEEK * weeks
    assert alarms <= expected + 3 * math.sqrt(expected), f"{alarms} in {weeks} weeks"


@pytest.mark.parametrize(
    ("life", "usual"),
    [
        (Life(5, "office"), 12),
        (Life(60, "office"), 15),
        (Life(300, "office"), 20),
        (Life(1000, "evenings"), 25),
    ],
    ids=str,
)
def test_an_outage_is_found_once_some_usual_deliveries_did_not_come(life: Life, usual: int) -> None:
    now = MONDAY + (WEEKS + 1) * WEEK + 34 * HOUR
    rhythm = learned(life.deliveries(random.Random(7), WEEKS + 2), now)
    assert rhythm
    until = now
    while not rhythm.is_silence(now, until):
        until += HOUR
    assert rhythm.expected(now, until - HOUR) < usual


def test_a_silent_night_is_usual_and_the_hours_before_opening_are_no_outage() -> None:
    now = MONDAY + (WEEKS + 1) * WEEK + 18 * HOUR
    rhythm = learned(Life(2000, "office").deliveries(random.Random(1), WEEKS + 2), now)
    assert rhythm
    assert not rhythm.is_silence(now, now + 14 * HOUR)
    assert rhythm.is_silence(now, now + 18 * HOUR)


def test_nothing_is_said_of_an_account_that_is_new_or_hardly_used() -> None:
    every_hour = {MONDAY + number * HOUR: 5 for number in range(13 * 24)}
    assert learn_rhythm(every_hour, MONDAY + 13 * 24 * HOUR) is None
    assert learn_rhythm(every_hour, MONDAY + 14 * 24 * HOUR) is not None
    assert learn_rhythm({MONDAY: 9}, MONDAY + 5 * WEEK) is None
    assert learn_rhythm({}, MONDAY) is None


def test_an_outage_does_not_become_a_part_of_the_rhythm() -> None:
    now = MONDAY + 4 * WEEK
    steady = {MONDAY + number * HOUR: 10 for number in range(4 * HOURS_PER_WEEK)}
    outage = [MONDAY + 3 * WEEK + number * HOUR for number in range(48)]
    with_outage = {hour: count for hour, count in steady.items() if hour not in outage}
    left_out = learn_rhythm(with_outage, now, outage)
    assert left_out
    assert left_out.expected(now, now + HOUR) == pytest.approx(10, rel=0.01)


def test_a_season_that_ends_lowers_what_is_expected_within_a_week() -> None:
    now = MONDAY + 6 * WEEK
    counts = {
        MONDAY + number * HOUR: 10 if number < 5 * HOURS_PER_WEEK else 1
        for number in range(6 * HOURS_PER_WEEK)
    }
    rhythm = learn_rhythm(counts, now)
    assert rhythm
    assert rhythm.expected(now, now + 10 * HOUR) < 15
