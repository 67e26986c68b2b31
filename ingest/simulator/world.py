"""The truth: people book, move, cancel, miss and attend meetings. Pure and repeatable for a seed."""

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum


class Kind(StrEnum):
    """What can happen to a meeting. `REPLACED` ends one that another takes the place of."""

    CREATED = "created"
    MOVED = "moved"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    COMPLETED = "completed"
    NO_SHOW = "no_show"


@dataclass(frozen=True, slots=True)
class Person:
    """A customer or a host; `number` makes their ids in every vendor's style."""

    number: int
    first_name: str
    last_name: str
    timezone: str

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def email(self) -> str:
        """Nobody's address."""
        return f"{self.first_name}.{self.last_name}.{self.number}@example.com".lower()

    @property
    def phone(self) -> str:
        """A number set aside for fiction."""
        return f"+1202555{self.number % 10000:04d}"


@dataclass(frozen=True, slots=True)
class Service:
    """What is booked."""

    number: int
    name: str
    minutes: int
    price: Decimal
    currency: str = "USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """One booking, as it truly is. `last` is what happened to it last, `changed_at` when."""

    number: int
    customer: Person
    host: Person
    service: Service
    starts_at: datetime
    created_at: datetime
    changed_at: datetime
    last: Kind = Kind.CREATED
    reason: str | None = None
    replaces: int | None = None
    replaced_by: int | None = None

    @property
    def ends_at(self) -> datetime:
        """When it ends as planned."""
        return self.starts_at + timedelta(minutes=self.service.minutes)

    @property
    def guests(self) -> tuple[str, ...]:
        """E-mail addresses of those whom the customer brings along: none, one or two."""
        return tuple(f"guest{place}.of.{self.number}@example.com" for place in range(1, self.number % 3 + 1))

    @property
    def campaign(self) -> Mapping[str, str]:
        """Parameters of the link that led to the booking; empty for customers who came by themselves."""
        return _CAMPAIGNS[self.number % len(_CAMPAIGNS)]

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """The booking form's questions, each with what the customer answered; none where the form asks nothing."""
        return _ANSWERS[: self.number % (len(_ANSWERS) + 1)]


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to a meeting of an account; `meeting` is as it was afterwards."""

    account: str
    kind: Kind
    meeting: Meeting


@dataclass(frozen=True, slots=True)
class Habits:
    """What a vendor can tell of: whether moving a meeting makes a new one, and which of the later happenings it reports."""

    replaces_when_moved: bool
    reports: frozenset[Kind]


@dataclass(order=True, slots=True)
class _Due:
    at: datetime
    tie: int
    kind: Kind = field(compare=False)
    number: int = field(compare=False)
    account: str = field(compare=False)


_FIRST = (
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
_LAST = (
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
_ZONES = (
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
_SECOND_THOUGHTS = 0.3  # of all changes
_MILLISECOND = 1000  # microseconds


class World:
    """Meetings of several accounts. Time is given to it; what happens next is drawn from the seed."""

    def __init__(self, accounts: dict[str, Habits], seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        self._accounts = accounts
        self._due: list[_Due] = []
        self._last_number = 0
        self._hosts = [self._person(number) for number in range(1, _HOSTS + 1)]
        self.meetings: dict[str, dict[int, Meeting]] = {account: {} for account in accounts}

    def step(self, now: datetime) -> list[Change]:
        """The next thing to happen until `now`: what was due, at its time, else a new booking. A replacement is two changes."""
        if self._due and self._due[0].at <= now:
            return self._happen(heapq.heappop(self._due))
        account = self._random.choice(sorted(self._accounts))
        return [self._book(account, now)]

    def truth(self) -> list[tuple[str, Meeting]]:
        """Every account's meetings as they are now."""
        return [
            (account, meeting) for account, meetings in self.meetings.items() for meeting in meetings.values()
        ]

    def forget(self, account: str, number: int) -> None:
        """Delete a meeting, and what was to become of it, as if it had never been booked: nobody is told."""
        del self.meetings[account][number]
        self._due = [due for due in self._due if due.number != number]
        heapq.heapify(self._due)

    def _book(self, account: str, now: datetime) -> Change:
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
        return self._keep(account, Kind.CREATED, meeting)

    def _plan(self, account: str, meeting: Meeting) -> None:
        """What will become of it: most are attended, some moved or cancelled before, some missed."""
        fate = self._random.choices(
            (Kind.COMPLETED, Kind.MOVED, Kind.CANCELLED, Kind.NO_SHOW), (50, 25, 15, 10)
        )[0]
        if fate in {Kind.MOVED, Kind.CANCELLED}:
            self._schedule(account, meeting, fate, meeting.changed_at + self._lead(meeting, fate))
            return
        self._schedule(account, meeting, Kind.COMPLETED, meeting.ends_at)
        if fate is Kind.NO_SHOW:
            self._schedule(
                account,
                meeting,
                Kind.NO_SHOW,
                meeting.ends_at + timedelta(minutes=self._random.randrange(1, 90)),
            )

    def _lead(self, meeting: Meeting, fate: Kind) -> timedelta:
        """How long until people change their minds: some within a minute or a second, where vendors' times are the same."""
        if self._random.random() >= _SECOND_THOUGHTS:
            return (meeting.starts_at - meeting.changed_at) * self._random.uniform(0.05, 0.9)
        seconds = self._random.uniform(0.01, self._random.choice((1, 50)))
        # Appointedd's payloads cannot tell apart two moves within a second, nor a booking on the full second from a move in it.
        told_apart = meeting.last is not fate and meeting.changed_at.microsecond >= _MILLISECOND
        return timedelta(seconds=seconds if told_apart else 1 + seconds)

    def _schedule(self, account: str, meeting: Meeting, kind: Kind, at: datetime) -> None:
        if kind is Kind.MOVED or kind in self._accounts[account].reports:
            heapq.heappush(self._due, _Due(at, self._random.getrandbits(32), kind, meeting.number, account))

    def _happen(self, due: _Due) -> list[Change]:
        meeting = self.meetings[due.account][due.number]
        if due.kind is Kind.MOVED and self._accounts[due.account].replaces_when_moved:
            return self._replace(due.account, meeting, due.at)
        if due.kind is Kind.MOVED:
            moved = replace(meeting, starts_at=self._slot(due.at), changed_at=due.at, last=Kind.MOVED)
            self._plan(due.account, moved)
            return [self._keep(due.account, Kind.MOVED, moved)]
        reason = self._random.choice(_REASONS) if due.kind is Kind.CANCELLED else None
        return [
            self._keep(
                due.account, due.kind, replace(meeting, changed_at=due.at, last=due.kind, reason=reason)
            )
        ]

    def _replace(self, account: str, old: Meeting, now: datetime) -> list[Change]:
        new = replace(
            old,
            number=self._next_number(),
            starts_at=self._slot(now),
            created_at=now,
            changed_at=now,
            last=Kind.CREATED,
            replaces=old.number,
        )
        self._plan(account, new)
        ended = replace(
            old,
            changed_at=now,
            last=Kind.REPLACED,
            replaced_by=new.number,
            reason=self._random.choice(_REASONS),
        )
        return [self._keep(account, Kind.REPLACED, ended), self._keep(account, Kind.CREATED, new)]

    def _keep(self, account: str, kind: Kind, meeting: Meeting) -> Change:
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
            number, _FIRST[number % len(_FIRST)], _LAST[number % len(_LAST)], _ZONES[number % len(_ZONES)]
        )

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number
