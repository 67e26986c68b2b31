"""Hours of a minute and frequent signs of life, so that a run of minutes sees its gaps found and closed.

Everything else is as it is in the product. A minute is the coarsest unit to which vendors cut times.
"""

from datetime import UTC, datetime, timedelta

_SIGN_EVERY = timedelta(seconds=5)


def shorten(command: str) -> None:
    """Shorten what a command of the product waits for; called before its modules are imported."""
    if command not in {"receive", "reconcile"}:
        return
    from receivers import life

    life.SIGN_EVERY = _SIGN_EVERY
    life._FROZEN_SECONDS = 3 * _SIGN_EVERY.total_seconds()
    if command == "reconcile":
        _shorten_reconciliation()


def _shorten_reconciliation() -> None:
    from ingest.warehouse import completeness

    completeness.HOUR = timedelta(minutes=1)
    completeness.hour_of = _minute_of
    completeness.HourVerdict.id = property(  # type: ignore[assignment, method-assign]
        lambda verdict: f"{verdict.vendor}/{verdict.account}/{verdict.hour:%Y-%m-%dT%H:%M}"
    )
    from receivers.completeness import closing
    from receivers.subscriptions import check

    closing._LOOK_SECONDS = 2.0
    closing._FIRST_RETRY = timedelta(seconds=5)
    check.check_subscriptions = lambda _: {}  # type: ignore[assignment]  # the vendors here deliver without a subscription


def _minute_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
