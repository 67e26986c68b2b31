"""Detectors: what shows that deliveries of an account may be missing.

Pure: values in, suspicions out. The same values give the same suspicions, in whatever order they come.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import orjson

from ingest.clock import CLOCK_SKEW, LOOKBACK_IN_DOUBT
from ingest.errors import PayloadError
from ingest.event import Cause, Event
from ingest.rhythm import Rhythm, start_of_hour
from ingest.times import describe_duration, describe_skew, format_instant, parse_instant
from receivers.completeness.gaps import DELIVERY_DELAY, Suspicion
from receivers.life import ANY_SOURCE, REFUSALS, SIGN_EVERY

# A receiver that gave no sign for so long does not run.
_SILENT = 3 * SIGN_EVERY
# How long after its last sign a receiver with a spool is taken not to come back, and to have accepted
# deliveries into its spool until then. After the last of these times it is gone for good.
_SPOOL_STEPS = (timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6), timedelta(days=1))
_NOTED = {
    Cause.GIVEN_UP: "the vendor says that it gave up a delivery",
    Cause.LOG_CHANGED: "the log was cut, restored or made anew, and may have lost what was not loaded",
    Cause.LOG_DELETED: "the log deleted records before they were loaded",
    Cause.WAREHOUSE_RESTORED: "the warehouse lacks loads whose records the log no longer has",
    Cause.SPOOL_LOST: "a receiver's spool was taken away with deliveries in it",
}
OF_THE_LOG = frozenset({Cause.LOG_CHANGED, Cause.LOG_DELETED, Cause.WAREHOUSE_RESTORED})
"""The causes by which records are lost that the log had: those that were appended since some time."""

_REFUSED = {
    Cause.UNAVAILABLE: "deliveries were answered 503",
    Cause.CLOCK_WRONG: "deliveries were refused because they seemed to be signed long ago, or in the future",
}


@dataclass(frozen=True, slots=True)
class Downtime:
    """A span in which no receiver ran; `until` is None while that lasts."""

    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class _LastSign:
    at: datetime
    has_stopped: bool


@dataclass
class ReceiverLife:
    """When receivers ran, by their signs of life: those of all receivers together."""

    _spans: list[tuple[datetime, datetime]] = field(default_factory=list)  # apart from each other, in order
    _receivers: dict[str, _LastSign] = field(default_factory=dict)
    _spools: dict[str, _LastSign] = field(default_factory=dict)
    # Since when and until when signs of life waited in spools, by the hour in which that ended.
    _waits: dict[datetime, tuple[datetime, datetime]] = field(default_factory=dict)

    def add(self, sign: Event, appended_at: datetime | None = None) -> list[Suspicion]:
        """Add a sign of life, and return what its refusals show, of ANY_SOURCE where no account was known.

        One that the log has since `appended_at` only has waited in a spool. Raises PayloadError for a sign
        that is not one of ours.
        """
        try:
            data = orjson.loads(sign.data)
            since, spool = parse_instant(data["since"]), str(data["spool"])
            refused = [
                _refused(cause, str(source), span, sign)
                for cause, name in REFUSALS.items()
                for source, spans in data.get(name, {}).items()
                for span in spans
            ]
            has_stopped = data["state"] == "stopped"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PayloadError("the record is no sign of a receiver's life") from error
        if since <= sign.time:
            self._join(since, sign.time)
        if appended_at and appended_at - sign.time > SIGN_EVERY:
            hour = start_of_hour(appended_at)  # signs of a clock that is behind seem to wait all the time
            earliest, latest = self._waits.get(hour, (sign.time, appended_at))
            self._waits[hour] = min(since, sign.time, earliest), max(appended_at, latest)
        last = _LastSign(sign.time, has_stopped)
        for signs, owner in ((self._receivers, sign.subject), (self._spools, spool)):
            if owner and (owner not in signs or last.at > signs[owner].at):
                signs[owner] = last
        return refused

    @property
    def last_seen(self) -> datetime | None:
        """When a receiver last gave a sign; None before the first."""
        return self._spans[-1][1] if self._spans else None

    @property
    def running_since(self) -> datetime | None:
        """Since when receivers run, or ran at the last sign, without a break; None before the first sign."""
        return self._spans[-1][0] if self._spans else None

    def received_since(self, appended_since: datetime) -> datetime:
        """Return since when what the log has since then may have been received, because it was in a spool."""
        received = [since for since, appended_at in self._waits.values() if appended_at >= appended_since]
        return min([appended_since, *received])

    def note_seen(self, at: datetime) -> None:
        """Note that a receiver ran at an instant, although the log may not have its sign any more."""
        self._join(at, at)

    def downtimes(self, now: datetime) -> list[Downtime]:
        """Return when no receiver ran between the first sign and now.

        Signs of the future, which a clock that was ahead has made, prove nothing and are forgotten.
        """
        latest = now + CLOCK_SKEW  # machines' clocks differ
        self._spans = [(since, min(until, latest)) for since, until in self._spans if since <= latest]
        ends = [end for _, end in self._spans]
        starts = [start for start, _ in self._spans]
        downtimes = [Downtime(end, start) for end, start in zip(ends, starts[1:], strict=False)]
        if ends and now - ends[-1] > _SILENT:
            downtimes.append(Downtime(ends[-1], None))
        return downtimes

    def killed(self, now: datetime) -> list[Suspicion]:
        """Return the last minutes of receivers that were killed, also while others ran.

        What they refused after their last sign, they could not tell.
        """
        detail = "a receiver was killed, and nobody knows what it refused after its last sign of life"
        return [
            Suspicion(
                ANY_SOURCE,
                Cause.RECEIVER_DOWN,
                last.at,
                last.at + SIGN_EVERY,
                last.at + _SILENT,
                f"{receiver} {format_instant(last.at)}",
                detail,
            )
            for receiver, last in self._receivers.items()
            if not last.has_stopped and now > last.at + _SILENT
        ]

    def lost_spools(self, now: datetime, read_present: Callable[[], str] = lambda: "") -> list[Suspicion]:
        """Return what spools may have taken along whose receivers did not come back: more at each step.

        Nothing is lost with the spool that is present: what is in it waits for a receiver. `read_present`
        returns its id, and is called once, where a receiver did not come back.
        """
        silent = {
            spool: last
            for spool, last in self._spools.items()
            if not last.has_stopped and now >= last.at + _SPOOL_STEPS[0]
        }
        present, suspicions = read_present() if silent else "", []
        for spool, last in silent.items():
            passed = [step for step in _SPOOL_STEPS if now >= last.at + step]
            if spool != present:
                key, until = f"{spool} {format_instant(last.at)}", last.at + passed[-1]
                detail = (
                    f"a receiver with a spool has given no sign since {last.at:%Y-%m-%d %H:%M} UTC, and what"
                    " it accepted while the log was away may be only there"
                )
                suspicions.append(Suspicion(ANY_SOURCE, Cause.SPOOL_LOST, last.at, until, until, key, detail))
        return suspicions

    def forget(self, now: datetime) -> None:
        """Forget receivers and spools of which `killed` and `lost_spools` have returned all by now.

        Signs that are read again bring them back, with the same suspicions.
        """
        self._receivers = {
            receiver: last for receiver, last in self._receivers.items() if now <= last.at + _SILENT
        }
        self._spools = {
            spool: last
            for spool, last in self._spools.items()
            if now <= last.at + (_SILENT if last.has_stopped else _SPOOL_STEPS[-1])
        }
        oldest = now - LOOKBACK_IN_DOUBT
        self._waits = {hour: wait for hour, wait in self._waits.items() if hour >= oldest}

    def _join(self, since: datetime, until: datetime) -> None:
        apart = [span for span in self._spans if span[1] < since or span[0] > until]
        joined = [span for span in self._spans if not (span[1] < since or span[0] > until)]
        start = min([since, *(span[0] for span in joined)])
        end = max([until, *(span[1] for span in joined)])
        self._spans = sorted([*apart, (start, end)])


def suspect_downtime(downtime: Downtime) -> Suspicion:
    """Return that deliveries of ANY_SOURCE may be missing because no receiver ran."""
    return Suspicion(
        ANY_SOURCE,
        Cause.RECEIVER_DOWN,
        downtime.since,
        downtime.until,
        downtime.until or downtime.since + _SILENT,
        format_instant(downtime.since),
        "no receiver ran",
    )


def suspect_rewound_log(newest: datetime, kept_until: datetime, now: datetime) -> Suspicion:
    """Return that deliveries of ANY_SOURCE may be missing because the log lacks what it had.

    It had a record of `newest`, and still has those up to `kept_until`.
    """
    detail, key = _NOTED[Cause.LOG_CHANGED], format_instant(newest)
    return Suspicion(ANY_SOURCE, Cause.LOG_CHANGED, min(kept_until, now), now, now, key, detail)


def read_note(note: Event, lookback: timedelta, asked_since: datetime | None = None) -> Suspicion:
    """Return the suspicion of a note that deliveries may be missing.

    Where the note does not say since when, that is `lookback` before it: how long a vendor tries before it
    gives up is not published. But if all of a topic may be lost, it is since the vendor was first asked for,
    `asked_since`, at most LOOKBACK_IN_DOUBT ago. Raises PayloadError.
    """
    try:
        data = orjson.loads(note.data)
        cause, since_text = Cause(data.get("cause", Cause.GIVEN_UP)), data.get("since")
    except (ValueError, AttributeError) as error:
        raise PayloadError("the record is no note of a loss") from error
    since = parse_instant(since_text) if since_text else note.time - lookback
    if asked_since and not since_text and cause in OF_THE_LOG:
        since = min(since, max(asked_since, note.time - LOOKBACK_IN_DOUBT))
    detail = _NOTED.get(cause, "it was noted in the log")
    return Suspicion(note.source, cause, min(since, note.time), note.time, note.time, note.id, detail)


def suspect_silence(
    source: str, rhythm: Rhythm | None, last_delivery: datetime, quiet_until: datetime, now: datetime
) -> Suspicion | None:
    """Return that an account is silent; None where its rhythm explains that nothing came.

    `quiet_until` is until when a comparison has shown that nothing was missing in this silence.
    """
    since = max(last_delivery, quiet_until)
    if rhythm is None or not rhythm.is_silence(since, now):
        return None
    usual = f"{rhythm.expected(since, now):.0f} deliveries are usual"
    detail = f"nothing came for {describe_duration(now - since)}, in which {usual}"
    return Suspicion(source, Cause.SILENCE, since, None, now, format_instant(since), detail)


def suspect_undelivered(
    source: str, changed_at: datetime, before: datetime, after: datetime | None, now: datetime
) -> Suspicion:
    """Return that nothing was delivered around a change which a comparison found.

    The last delivery before it came at `before`, and the first one that may be about something else at
    `after`, None if there is none yet.
    """
    since = max(before, changed_at - LOOKBACK_IN_DOUBT)
    until = max(since, min(after or changed_at + DELIVERY_DELAY, now))
    detail = "a comparison found a change of which no delivery had come"
    return Suspicion(source, Cause.NOT_DELIVERED, since, until, now, format_instant(since), detail)


def suspect_clock(
    source: str, ahead: timedelta | None, right_until: datetime, now: datetime
) -> Suspicion | None:
    """Return that this machine's clock is wrong by a vendor's answer; None where it is right or unknown.

    It was right for the last time at `right_until`.
    """
    if ahead is None or abs(ahead) <= CLOCK_SKEW:
        return None
    detail = f"this machine's clock is {describe_skew(ahead)} the vendor's"
    return Suspicion(source, Cause.CLOCK_WRONG, right_until, None, now, format_instant(right_until), detail)


def suspect_subscription(source: str, why: str, right_until: datetime, now: datetime) -> Suspicion:
    """Return that a vendor may not deliver because of what is wrong with a subscription of an account."""
    detail = f"a webhook subscription is not right: {why}"
    return Suspicion(source, Cause.SUBSCRIPTION, right_until, None, now, format_instant(right_until), detail)


def _refused(cause: Cause, source: str, refused: Mapping[str, object], sign: Event) -> Suspicion:
    since, until = parse_instant(str(refused["since"])), parse_instant(str(refused["until"]))
    key = f"{sign.id} {source} {format_instant(since)}"
    return Suspicion(source, cause, since, max(since, until), sign.time, key, _REFUSED[cause])


def for_sources(suspicions: Iterable[Suspicion], sources: Iterable[str]) -> list[Suspicion]:
    """Return suspicions with one for each source in the place of each of ANY_SOURCE; others' are left out."""
    known = list(sources)
    return [
        replace(suspicion, source=source)
        for suspicion in suspicions
        for source in known
        if suspicion.source in {ANY_SOURCE, source}
    ]
