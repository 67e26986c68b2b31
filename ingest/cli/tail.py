"""`tail`: follow the feed of changes."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.changes import GONE, Change, ChangeFilter, read_change, require_feed
from ingest.cli import Stopped
from ingest.cli.options import Config, complete_account, read_settings
from ingest.cli.output import Part, print_line, print_text, show_waits
from ingest.errors import ConfigurationError, LogUnavailable
from ingest.log import Start
from ingest.log.position import decode_position, encode_position
from ingest.settings import Settings
from ingest.spans import parse_instant
from ingest.waits import sleep

_POLL_RECORDS = 500
_POLL_SECONDS = 0.5
_END_SECONDS = 3.0  # without a record, after which the feed counts as read to its end
_PAUSE_SECONDS = 3.0
_STYLES = {"confirmed": "green", "pending": "yellow", "cancelled": "red", "no_show": "red"}


def tail(
    account: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this account; can be repeated.", show_default="all", autocompletion=complete_account
        ),
    ] = None,
    vendor: Annotated[
        list[str] | None, typer.Option(help="Only this vendor; can be repeated.", show_default="all")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="Only bookings with this status; can be repeated.", show_default="all"),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            help="Begin with changes that were published at this instant, or this long ago: "
            "2026-11-01T09:00Z, 15m.",
            show_default="now",
        ),
    ] = "",
    after: Annotated[
        str,
        typer.Option(
            help="Continue at a position, which --json and the end of a run print.", show_default=False
        ),
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of the feed.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on a line for each change, for scripts.")
    ] = False,
    config: Config = None,
) -> None:
    """Follow the bookings as they change, until Ctrl-C.

    Each change is the new state of a booking in the warehouse. The feed has to be on (feed.enabled).

    Examples:
        ingest tail
        ingest tail --account sales --status cancelled --since 1h
        ingest tail --json --after 0:1200 >> changes.jsonl
    """
    settings = read_settings(config)
    require_feed(settings.feed.enabled)
    wanted = ChangeFilter(frozenset(vendor or ()), frozenset(account or ()), frozenset(status or ()))
    tailing = _Tail(settings, wanted, _start(since, after), as_json=as_json)
    try:
        with show_waits():
            tailing.run(once=once)
    except KeyboardInterrupt:
        raise Stopped(f"stopped: to continue here, add --after {tailing.position}") from None


def _start(since: str, after: str) -> Start:
    if since and after:
        raise ConfigurationError("Use either --since or --after.")
    if after:
        try:
            return decode_position(after)
        except ValueError as error:
            raise ConfigurationError(f"--after {after}: {error}") from None
    return parse_instant("--since", since, datetime.now(UTC)) if since else None


class _Tail:
    """Prints changes, and knows the position after the last one that was printed."""

    def __init__(self, settings: Settings, wanted: ChangeFilter, start: Start, *, as_json: bool) -> None:
        self._settings, self._wanted, self._start, self._as_json = settings, wanted, start, as_json
        self._position: dict[int, int] = {}

    @property
    def position(self) -> str:
        """The position at which another run continues."""
        return encode_position(self._position)

    def run(self, *, once: bool) -> None:
        """Print what comes. A log that cannot be read is waited for, after it could be read once.

        Raises LogUnavailable.
        """
        while not self._follow(once=once):
            self._start = dict(self._position)

    def _follow(self, *, once: bool) -> bool:
        """Follow the log, and return whether its end was wanted and reached."""
        try:
            log = self._settings.build_log()
            with closing(log.follower(self._settings.changes_topic, self._start)) as follower:
                self._position = dict(follower.position())
                while True:
                    records = follower.poll(_POLL_RECORDS, _END_SECONDS if once else _POLL_SECONDS)
                    for stored in records:
                        self._position[stored.partition.number] = stored.offset + 1
                        change = read_change(stored)
                        if change and self._wanted.takes(change):
                            self._print(change)
                    if once and not records:
                        return True
        except LogUnavailable as error:
            if once or not self._position:
                raise
            sleep(_PAUSE_SECONDS, f"the log: {error}")
            return False

    def _print(self, change: Change) -> None:
        if self._as_json:
            position = f',"position":"{self.position}"}}\n'
            print_text(change.event.decode().removesuffix("}") + position)
        else:
            print_line(*_line(change))


def _line(change: Change) -> list[Part]:
    row = change.row
    status = "gone" if change.type == GONE else change.status
    names = (row.get("customer_name") or row.get("customer_email"), row.get("service_name"))
    about = [str(name) for name in names if name]
    if row.get("starts_at"):
        about.append(f"at {row['starts_at']}")
    return [
        (f"{change.stored.appended_at:%H:%M:%S}  ", "dim"),
        f"{change.vendor}/{change.account}  ",
        (f"{status:<11}  ", _STYLES.get(status, "")),
        " · ".join(about),
        (f"  {row.get('booking_id')}", "dim"),
    ]
