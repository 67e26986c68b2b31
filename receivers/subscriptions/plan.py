"""What is to be done so that an account's subscriptions are as the settings want them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from ingest.vendors.subscriptions import Subscription, SubscriptionSpec

_LONG_AGO = datetime.fromtimestamp(0, UTC)
# A booking that changed while a subscription was being made may be missed by it.
_SETTLING = timedelta(minutes=10)

_NOTHING_KNOWN = "nothing here shows that its secret is one of webhook_secrets: another machine may have it; made by hand, it is known by its first delivery"


class Kind(StrEnum):
    """`adopt`: the vendor tells a secret that we have not stored.

    `take_over`: the only place for it has a URL that is not ours, or what is there may work for another machine.
    """

    KEEP = "keep"
    CREATE = "create"
    REPLACE = "replace"
    ADOPT = "adopt"
    REMOVE = "remove"
    TAKE_OVER = "take_over"
    LEAVE = "leave"


QUIET = {Kind.KEEP, Kind.LEAVE}
CREATING = {Kind.CREATE, Kind.REPLACE, Kind.TAKE_OVER}


@dataclass(frozen=True, slots=True)
class Step:
    """`old` is what it is about at the vendor. `by_hand`: only when a person says so."""

    kind: Kind
    wanted: SubscriptionSpec | None = None
    old: tuple[Subscription, ...] = ()
    why: str = ""
    by_hand: bool = False

    @property
    def is_change(self) -> bool:
        """Whether it is a difference."""
        return self.kind not in QUIET


@dataclass(frozen=True, slots=True)
class Heard:
    """When the newest webhook came, and when the newest change happened that none told of."""

    last: datetime | None = None
    missed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an account besides what its vendor lists.

    `url` is what our URLs begin with; `made` the subscriptions made from here, by id, with their secrets' fingerprints; `live`
    the fingerprints of the live secrets, None where one secret is for all. `replaces` and `tells_state` are the vendor's
    ways. `renew`: ids of those that are to have another secret. `strange`: ids of those that
    were there before anything of the account was remembered here. `proven`: ids of those whose secret is a live one, as
    deliveries show; `plan` finds them.
    """

    url: str
    made: Mapping[str, str]
    live: frozenset[str] | None
    heard: Heard = Heard()
    replaces: bool = False
    tells_state: bool = True
    renew: frozenset[str] = frozenset()
    strange: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()


def plan(wanted: Sequence[SubscriptionSpec], registered: Sequence[Subscription], facts: Facts) -> list[Step]:
    """A step for each that is wanted, and for each other that is there: ours are removed, others' left alone."""
    ours = [one for one in registered if is_at(facts.url, one) or one.id in facts.made]
    others = [one for one in registered if one not in ours]
    facts = replace(facts, proven=_proven(ours, facts))
    steps = [
        step
        for want in wanted
        for step in _slot(want, [one for one in ours if one.slot == want.slot], others, facts)
    ]
    slots = {want.slot for want in wanted}
    steps += [
        _step(Kind.REMOVE, None, [one], "the settings do not want it", facts)
        for one in ours
        if one.slot not in slots
    ]
    taken = {one.id for step in steps if step.kind is Kind.TAKE_OVER for one in step.old}
    return steps + [Step(Kind.LEAVE, old=(one,), why="not ours") for one in others if one.id not in taken]


def hides_secret(one: Subscription, made: Mapping[str, str]) -> bool:
    """Whether nothing says which secret it has: it was made by hand, or on another machine."""
    return not (one.mark or one.secret or made.get(one.id))


def _proven(ours: Sequence[Subscription], facts: Facts) -> frozenset[str]:
    """Return the id of our only working subscription if it hides its secret and deliveries came since it was made.

    A delivery is loaded only if a live secret had signed it, and nothing else of ours can have sent these. One that appeared
    later than what is remembered here may be of a creation whose answer was lost, while the vendor still sends what its
    predecessor signed: that is no proof.
    """
    working = [one for one in ours if not one.stopped]
    last = facts.heard.last
    if len(working) != 1 or last is None:
        return frozenset()
    sole = working[0]
    hidden = sole.id in facts.strange and hides_secret(sole, facts.made)
    return (
        frozenset({sole.id})
        if hidden and sole.created_at is not None and last > sole.created_at
        else frozenset()
    )


def _slot(
    want: SubscriptionSpec, mine: Sequence[Subscription], others: Sequence[Subscription], facts: Facts
) -> Iterator[Step]:
    newest_first = sorted(mine, key=lambda one: one.created_at or _LONG_AGO, reverse=True)
    flaws = {one.id: _flaw(want, one, facts) for one in newest_first}
    best = next((one for one in newest_first if not flaws[one.id]), None)
    if best is None:
        yield _start(want, newest_first, others, flaws, facts)
        return
    if _unstored(best, facts):
        yield Step(Kind.ADOPT, want, (best,), "its secret is not stored here")
    else:
        yield Step(
            Kind.KEEP, want, (best,), "made by hand, and it delivers" if best.id in facts.proven else ""
        )
    for one in newest_first:
        if one is not best:
            yield _step(Kind.REMOVE, None, [one], flaws[one.id] or "there is another one for the same", facts)


def _start(
    want: SubscriptionSpec,
    mine: Sequence[Subscription],
    others: Sequence[Subscription],
    flaws: Mapping[str, str],
    facts: Facts,
) -> Step:
    if any(_works_elsewhere(one, facts) for one in mine):
        return Step(Kind.TAKE_OVER, want, tuple(mine), _NOTHING_KNOWN, by_hand=True)
    if mine:
        return _step(Kind.REPLACE, want, mine, flaws[mine[0].id], facts)
    in_its_place = tuple(one for one in others if one.slot == want.slot) if facts.replaces else ()
    if in_its_place:
        return Step(
            Kind.TAKE_OVER,
            want,
            in_its_place,
            f"this key's only place for {want.slot} has a URL that is not ours",
            by_hand=True,
        )
    return Step(Kind.CREATE, want, why="there is none")


def _step(
    kind: Kind, want: SubscriptionSpec | None, old: Sequence[Subscription], why: str, facts: Facts
) -> Step:
    """What goes to another public URL may be another installation's, that this one was copied from."""
    elsewhere = any(not is_at(facts.url, one) or _works_elsewhere(one, facts) for one in old)
    return Step(kind, want, tuple(old), why, by_hand=elsewhere)


def _works_elsewhere(one: Subscription, facts: Facts) -> bool:
    """Whether it may be the one that an installation on another machine lives by."""
    return one.id in facts.strange and not one.stopped and not one.secret and not _known(one, facts)


def is_at(url: str, one: Subscription) -> bool:
    """A path below ours is somebody else's."""
    return one.url.startswith(url) and one.url[len(url) : len(url) + 1] in {"", "?", "#"}


def _flaw(want: SubscriptionSpec, one: Subscription, facts: Facts) -> str:
    """Why it has to be replaced; "" when it need not be."""
    if one.id in facts.renew:
        return "its secret is to be another"
    if one.stopped:
        return one.stopped
    if not _right_url(want.url, one.url):
        return f"it goes to {one.url}"
    if one.events != want.events and not (
        one.id in facts.proven and one.events > want.events
    ):  # by hand one may ask for more
        return f"it is for {', '.join(sorted(one.events)) or 'nothing'}"
    if not _known(one, facts) and not one.secret:
        return "nobody here knows its secret"
    return _silence(one, facts)


def _right_url(wanted: str, found: str) -> bool:
    """A query of the vendor's choice, or one that only makes it unique, changes nothing where none is wanted."""
    return found == wanted or ("?" not in wanted and found.partition("?")[0] == wanted)


def _known(one: Subscription, facts: Facts) -> bool:
    live = facts.live is None or bool({one.mark, facts.made.get(one.id, "")} & facts.live)
    return live or one.id in facts.proven


def _unstored(one: Subscription, facts: Facts) -> bool:
    return bool(one.secret) and not _known(one, facts)


def _silence(one: Subscription, facts: Facts) -> str:
    """Where the vendor does not tell that it stopped, what reconciliation had to repair does."""
    heard = facts.heard
    if facts.tells_state or heard.missed is None:
        return ""
    known_since = max(
        filter(None, (heard.last, one.created_at and one.created_at + _SETTLING)), default=_LONG_AGO
    )
    return (
        f"a change of {heard.missed:%Y-%m-%d %H:%M} UTC never came: it is probably switched off"
        if heard.missed > known_since
        else ""
    )
