"""Silence: whether an account has delivered nothing for longer than its rhythm explains. Pure.

The rhythm is how many deliveries an account gets in each hour of the week, by its last weeks. Whatever the
rhythm, the deliveries that it leads one to expect between two deliveries are spread exponentially if
deliveries are independent (https://en.wikipedia.org/wiki/Poisson_point_process#Time_change): of all waits,
one in e^x is so long that x deliveries are expected in it. So an account with E deliveries a week has
E / e^x waits a week of that length by chance alone, and a wait is a silence when that is less than
FALSE_ALARMS_PER_WEEK.

Two things make chance greater than that, and both are estimated from the same weeks:

- Deliveries come in groups, and days differ. Their variance divided by their mean, of whole days, is how many
  deliveries count as one.
- The rhythm is known from a few weeks only. With the deliveries that it rests on, chance is that of the
  negative binomial distribution instead of e^-x.

Where the last week had fewer deliveries than the rhythm says, the rhythm is lowered to that. Hours of
known outages can be left out, so that an outage does not become a part of the rhythm.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# How often an account without any trouble is expected to be taken for silent: once a year.
FALSE_ALARMS_PER_WEEK = 1 / 52
# How many weeks before now make the rhythm.
WEEKS = 8

_LEAST_WEEKS = 2  # of which the rhythm is known
_LEAST_DELIVERIES = 10  # in those weeks
_HOUR = timedelta(hours=1)
_WEEK = timedelta(weeks=1)
_HOURS_PER_WEEK = 168
_HOURS_PER_DAY = 24
_KERNEL = ((-1, 0.25), (0, 0.5), (1, 0.25))  # an hour is like those beside it


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The deliveries that are expected in each hour of the week, which begins on Monday at 00:00 UTC.

    They rest on `weeks` weeks. `group` is how many deliveries count as one.
    """

    hourly: Sequence[float]
    weeks: float
    group: float

    def expected(self, since: datetime, until: datetime) -> float:
        """Return how many deliveries are expected in a span."""
        total, hour = 0.0, start_of_hour(since)
        while hour < until:
            inside = min(hour + _HOUR, until) - max(hour, since)
            total += self.hourly[_hour_of_week(hour)] * (inside / _HOUR)
            hour += _HOUR
        return total

    def false_alarms(self, since: datetime, until: datetime) -> float:
        """Return how many waits a week are by chance alone as long as this one."""
        expected = self.expected(since, until) / self.group
        shape = expected * self.weeks + 0.5  # Jeffreys' prior
        by_chance: float = (self.weeks / (self.weeks + 1)) ** shape
        return max(1.0, sum(self.hourly) / self.group) * by_chance

    def is_silence(self, since: datetime, until: datetime) -> bool:
        """Return whether a span without a delivery is longer than the rhythm explains."""
        return self.false_alarms(since, until) < FALSE_ALARMS_PER_WEEK


def learn_rhythm(
    deliveries: Mapping[datetime, int], now: datetime, left_out: Collection[datetime] = ()
) -> Rhythm | None:
    """Learn an account's rhythm from its deliveries by hour, of which those without any may be missing.

    `left_out` are hours that say nothing of the rhythm. Returns None where two whole weeks are not known, or
    there are too few deliveries.
    """
    this_hour = start_of_hour(now)
    earliest = min((hour for hour, count in deliveries.items() if count), default=this_hour)
    weeks = min(WEEKS, (this_hour - start_of_hour(earliest)) // _WEEK)
    known = {
        hour: deliveries.get(hour, 0)
        for hour in (this_hour - number * _HOUR for number in range(1, weeks * _HOURS_PER_WEEK + 1))
        if hour not in left_out
    }
    if weeks < _LEAST_WEEKS or sum(known.values()) < _LEAST_DELIVERIES:
        return None
    counts, hours, own_counts = ([0.0] * _HOURS_PER_WEEK for _ in range(3))
    for hour, count in known.items():
        own_counts[_hour_of_week(hour)] += count
        for distance, weight in _KERNEL:
            number = (_hour_of_week(hour) + distance) % _HOURS_PER_WEEK
            counts[number] += weight * count
            hours[number] += weight
    hourly = [
        min(count / of_hours, _most_plausible(own, of_hours)) if of_hours else 0.0
        for count, of_hours, own in zip(counts, hours, own_counts, strict=True)
    ]
    level = min(1.0, _level_of_last_week(known, hourly, this_hour))
    return Rhythm([level * rate for rate in hourly], len(known) / _HOURS_PER_WEEK, _group_size(known, hourly))


def start_of_hour(moment: datetime) -> datetime:
    """Return the beginning of the hour of an instant, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _most_plausible(count: float, hours: float) -> float:
    """Return the highest rate that a count allows: the hour before the doors open is not like the next."""
    return (count + 2 * math.sqrt(count) + 2) / hours


def _level_of_last_week(known: Mapping[datetime, int], hourly: Sequence[float], now: datetime) -> float:
    last = [hour for hour in known if hour >= now - _WEEK]
    expected = sum(hourly[_hour_of_week(hour)] for hour in last)
    return (sum(known[hour] for hour in last) + 1) / (expected + 1)


def _group_size(known: Mapping[datetime, int], hourly: Sequence[float]) -> float:
    """Return how many deliveries count as one: Pearson's dispersion of whole days, at least 1."""
    counts: dict[int, float] = {}
    expected: dict[int, float] = {}
    for hour, count in known.items():
        day = hour.toordinal()
        counts[day] = counts.get(day, 0.0) + count
        expected[day] = expected.get(day, 0.0) + hourly[_hour_of_week(hour)]
    days = [day for day, mean in expected.items() if mean > 0]
    weeks = len(known) / _HOURS_PER_WEEK
    # The rhythm was fitted to the same days, of which each weekday took one degree of freedom.
    freedom = len(days) * (1 - 1 / weeks)
    pearson = sum((counts[day] - expected[day]) ** 2 / expected[day] for day in days)
    return max(1.0, pearson / freedom) if freedom > 0 else math.inf


def _hour_of_week(hour: datetime) -> int:
    return hour.weekday() * _HOURS_PER_DAY + hour.hour
