"""The plan of a life: how long it is, how much happens in it, and what goes wrong."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a life is, how much happens in it, and what goes wrong. Shares are of hours or of webhooks."""

    hours: int = 24 * 14
    bookings_an_hour: float = 1.0
    every_hours: int = 1
    page: int = 4
    webhooks_lost: float = 0.03
    webhooks_late: float = 0.05
    webhooks_doubled: float = 0.05
    dead_lettered: float = 0.005
    receiver_down: float = 0.01
    subscription_off: float = 0.005
    consumer_down: float = 0.01
    rest_down: float = 0.02
    rest_errors: float = 0.02
    rest_busy: float = 0.01
    spooling: float = 0.01
    skewed: float = 0.005
    without_date: float = 0.01
    kills: float = 0.1
    warehouse_restored: float = 0.004
    log_restored: float = 0.004
    retention: float = 0.02
    deleted: float = 0.005


_BOOKINGS_AND_PAGES = ((0.25, 4), (0.5, 20), (1.0, 100), (0.25, 20), (0.5, 4), (1.0, 20))


def plan_of(seed: int, days: int) -> Plan:
    """Return the plan of a seed: each has other intervals, other pages, and other numbers of bookings.

    Lists have one page to ten.
    """
    bookings_an_hour, page = _BOOKINGS_AND_PAGES[seed // 4 % len(_BOOKINGS_AND_PAGES)]
    return Plan(
        hours=24 * days,
        every_hours=(1, 6, 12, 24)[seed % 4],
        page=page,
        bookings_an_hour=bookings_an_hour,
    )
