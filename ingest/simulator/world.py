"""The simulated world: people book, move, cancel, miss and attend meetings, the same for the same seed."""

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum


class ChangeKind(StrEnum):
    """The kinds of changes to a meeting; `REPLACED` ends a meeting whose place another one takes."""

    CREATED = "created"
    MOVED = "moved"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    COMPLETED = "completed"
    NO_SHOW = "no_show"


@dataclass(frozen=True, slots=True)
class Person:
    """A customer or a host, whose ids at every vendor are made from `number`."""

    number: int
    first_name: str
    last_name: str
    timezone: str

    @property
    def name(self) -> str:
        """The first and the last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def email(self) -> str:
        """An address that belongs to nobody."""
        return f"{self.first_name}.{self.last_name}.{self.number}@example.com".lower()

    @property
    def phone(self) -> str:
        """A number that is reserved for fiction."""
        return f"+1202555{self.number % 10000:04d}"

    @property
    def known_since(self) -> datetime:
        """The time at which vendors created the person; the order is that of the numbers."""
        return _FIRST_PERSON_AT + timedelta(minutes=self.number)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that can be booked."""

    number: int
    name: str
    minutes: int
    price: Decimal
    currency: str = "USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A booking as it truly is, with the kind and the time of its latest change."""

    number: int
    customer: Person
    host: Person
    service: Service
    starts_at: datetime
    created_at: datetime
    changed_at: datetime
    last_change: ChangeKind = ChangeKind.CREATED
    reason: str | None = None
    replaces: int | None = None
    replaced_by: int | None = None

    @property
    def ends_at(self) -> datetime:
        """The planned end."""
        return self.starts_at + timedelta(minutes=self.service.minutes)

    @property
    def guests(self) -> tuple[str, ...]:
        """The e-mail addresses of the people whom the customer brings along: none, one or two."""
        return tuple(
            f"guest{position}.of.{self.number}@example.com" for position in range(1, self.number % 3 + 1)
        )

    @property
    def campaign(self) -> Mapping[str, str]:
        """The parameters of the link that led to the booking; empty for customers who came by themselves."""
        return _CAMPAIGNS[self.number % len(_CAMPAIGNS)]

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """The questions of the booking form with the customer's answers; empty without questions."""
        return _ANSWERS[: self.number % (len(_ANSWERS) + 1)]


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a meeting of an account; `meeting` is its state after the change."""

    account: str
    kind: ChangeKind
    meeting: Meeting


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The abilities of a vendor: whether a moved meeting is a new one, and the later changes it reports."""

    replaces_when_moved: bool
    reports: frozenset[ChangeKind]


@dataclass(order=True, slots=True)
class _ScheduledChange:
    at: datetime
    tie_breaker: int
    kind: ChangeKind = field(compare=False)
    number: int = field(compare=False)
    account: str = field(compare=False)


_FIRST_NAMES = (
    "Ada",
    "Grace",
    "Alan",
    "Edsger",
    "Barbara",
    "Donald",
    "Frances",
    "Tim",
    "Radia",
    "Leslie",
    "Zoë",
    "Jürgen",
    "Łukasz",
    "美咲",
)
_LAST_NAMES = (
    "Hopper",
    "Lovelace",
    "Turing",
    "Liskov",
    "Knuth",
    "Allen",
    "Perlman",
    "Lamport",
    "O'Neil",
    "Gonçalves",
    "田中",
    "Åström",
)
_TIMEZONES = (
    "Europe/London",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Sydney",
    "Europe/Berlin",
    "Asia/Tokyo",
)
_SERVICES = (
    Service(1, "Intro call", 15, Decimal(0)),
    Service(2, "Consultation", 45, Decimal("120.50")),
    Service(3, "Deep tissue massage", 60, Decimal("89.99")),
    Service(4, "City tour", 180, Decimal(170)),
)
_CAMPAIGNS: Sequence[Mapping[str, str]] = (
    {},
    {"utm_source": "newsletter", "utm_medium": "email", "utm_campaign": "Frühling 2026"},
    {"utm_source": "search", "utm_term": "massage & sauna", "utm_content": 'Button "A"'},
)
_ANSWERS = (
    ("Anything to prepare?", "No"),
    ("How did you hear of us?", 'A friend\nA poster, the "big" one'),
    ("Diet", "ei maitoa, 乳製品なし"),
)
_REASONS = ("Something came up", "Feeling ill", 'Double booked, "sorry"', "Not needed any more")
_HOSTS = 5
_FIRST_PERSON_AT = datetime(2025, 1, 1, tzinfo=UTC)
_QUICK_CHANGES = 0.3  # the share of all changes
_MILLISECOND = 1000  # microseconds


class World:
    """The meetings of several accounts; the caller sets the time, and the seed decides what happens."""

    def __init__(self, accounts: dict[str, Capabilities], seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        self._accounts = accounts
        self._schedule: list[_ScheduledChange] = []
        self._last_number = 0
        self._hosts = [self._person(number) for number in range(1, _HOSTS + 1)]
        self.meetings: dict[str, dict[int, Meeting]] = {account: {} for account in accounts}

    def step(self, now: datetime) -> list[Change]:
        """Make the next change that is due by `now`, or else a new booking; a replacement is two changes."""
        if self._schedule and self._schedule[0].at <= now:
            return self._apply(heapq.heappop(self._schedule))
        account = self._random.choice(sorted(self._accounts))
        meeting = Meeting(
            number=self._next_number(),
            customer=self._person(self._random.randrange(100, 5000)),
            host=self._random.choice(self._hosts),
            service=self._random.choice(_SERVICES),
            starts_at=self._slot(now),
            created_at=now,
            changed_at=now,
        )
        self._plan(account, meeting)
        return [self._store(account, ChangeKind.CREATED, meeting)]

    @property
    def next_change_at(self) -> datetime | None:
        """When the next change of a meeting is due; None where none is."""
        return self._schedule[0].at if self._schedule else None

    def truth(self) -> list[tuple[str, Meeting]]:
        """Return every account's meetings in their current state."""
        return [
            (account, meeting) for account, meetings in self.meetings.items() for meeting in meetings.values()
        ]

    def delete(self, account: str, number: int) -> None:
        """Delete a meeting and its scheduled changes as if it had never been booked, without a webhook."""
        del self.meetings[account][number]
        self._schedule = [change for change in self._schedule if change.number != number]
        heapq.heapify(self._schedule)

    def _plan(self, account: str, meeting: Meeting) -> None:
        """Schedule what happens next: most meetings are attended, some moved or cancelled, some missed."""
        kind = self._random.choices(
            (ChangeKind.COMPLETED, ChangeKind.MOVED, ChangeKind.CANCELLED, ChangeKind.NO_SHOW),
            (50, 25, 15, 10),
        )[0]
        if kind in {ChangeKind.COMPLETED, ChangeKind.NO_SHOW}:
            self._schedule_change(account, meeting, ChangeKind.COMPLETED, meeting.ends_at)
            if kind is ChangeKind.NO_SHOW:
                delay = timedelta(minutes=self._random.randrange(1, 90))
                self._schedule_change(account, meeting, kind, meeting.ends_at + delay)
            return
        if self._random.random() >= _QUICK_CHANGES:
            delay = (meeting.starts_at - meeting.changed_at) * self._random.uniform(0.05, 0.9)
        else:
            # Some people change their minds within a minute or a second, which is too short for the times of
            # some vendors: Appointedd's payloads cannot distinguish two moves within a second, or a booking
            # on the full second from a move in it.
            seconds = self._random.uniform(0.01, self._random.choice((1, 50)))
            has_fraction = meeting.changed_at.microsecond >= _MILLISECOND
            is_distinguishable = meeting.last_change is not kind and has_fraction
            delay = timedelta(seconds=seconds if is_distinguishable else 1 + seconds)
        self._schedule_change(account, meeting, kind, meeting.changed_at + delay)

    def _schedule_change(self, account: str, meeting: Meeting, kind: ChangeKind, at: datetime) -> None:
        if kind is ChangeKind.MOVED or kind in self._accounts[account].reports:
            heapq.heappush(
                self._schedule,
                _ScheduledChange(at, self._random.getrandbits(32), kind, meeting.number, account),
            )

    def _apply(self, change: _ScheduledChange) -> list[Change]:
        meeting = self.meetings[change.account][change.number]
        if change.kind is ChangeKind.MOVED and self._accounts[change.account].replaces_when_moved:
            return self._replace(change.account, meeting, change.at)
        if change.kind is ChangeKind.MOVED:
            moved = replace(
                meeting, starts_at=self._slot(change.at), changed_at=change.at, last_change=ChangeKind.MOVED
            )
            self._plan(change.account, moved)
            return [self._store(change.account, ChangeKind.MOVED, moved)]
        reason = self._random.choice(_REASONS) if change.kind is ChangeKind.CANCELLED else None
        return [
            self._store(
                change.account,
                change.kind,
                replace(meeting, changed_at=change.at, last_change=change.kind, reason=reason),
            )
        ]

    def _replace(self, account: str, old: Meeting, now: datetime) -> list[Change]:
        new = replace(
            old,
            number=self._next_number(),
            starts_at=self._slot(now),
            created_at=now,
            changed_at=now,
            last_change=ChangeKind.CREATED,
            replaces=old.number,
        )
        self._plan(account, new)
        ended = replace(
            old,
            changed_at=now,
            last_change=ChangeKind.REPLACED,
            replaced_by=new.number,
            reason=self._random.choice(_REASONS),
        )
        return [
            self._store(account, ChangeKind.REPLACED, ended),
            self._store(account, ChangeKind.CREATED, new),
        ]

    def _store(self, account: str, kind: ChangeKind, meeting: Meeting) -> Change:
        self.meetings[account][meeting.number] = meeting
        return Change(account, kind, meeting)

    def _slot(self, now: datetime) -> datetime:
        quarter = timedelta(minutes=15)
        start = now + timedelta(minutes=self._random.randrange(30, 36 * 60))
        return (
            start.replace(minute=0, second=0, microsecond=0)
            + quarter * self._random.randrange(4)
            + timedelta(hours=1)
        )

    def _person(self, number: int) -> Person:
        return Person(
            number,
            _FIRST_NAMES[number % len(_FIRST_NAMES)],
            _LAST_NAMES[number % len(_LAST_NAMES)],
            _TIMEZONES[number % len(_TIMEZONES)],
        )

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number
