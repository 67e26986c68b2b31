"""The plan: what is to be done so that an account's subscriptions are as the settings want them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from ingest.vendors.subscriptions import Subscription, SubscriptionSpec
from ingest.warehouse.deliveries import Arrivals

_LONG_AGO = datetime.fromtimestamp(0, UTC)
# A new subscription may miss a booking that changed while it was being made.
_SETTLING = timedelta(minutes=10)

_NOT_SHOWN_TO_BE_OURS = (
    "nothing here shows that its secret is one of webhook_secrets: another machine may have it; made by hand,"
    " it is known by its first delivery"
)


class Action(StrEnum):
    """What is to be done about a subscription.

    `ADOPT`: store its secret, which the vendor tells and which is not stored yet.
    `TAKE_OVER`: replace what may not be ours: what has the only place but another URL, or may serve another
    machine.
    """

    KEEP = "keep"
    CREATE = "create"
    REPLACE = "replace"
    ADOPT = "adopt"
    REMOVE = "remove"
    TAKE_OVER = "take_over"
    LEAVE = "leave"


UNCHANGED = {Action.KEEP, Action.LEAVE}
CREATING = {Action.CREATE, Action.REPLACE, Action.TAKE_OVER}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, for the `old` subscriptions at the vendor. `by_hand`: only if a person says so."""

    action: Action
    wanted: SubscriptionSpec | None = None
    old: tuple[Subscription, ...] = ()
    why: str = ""
    by_hand: bool = False

    @property
    def is_change(self) -> bool:
        """Whether the vendor differs from the settings here."""
        return self.action not in UNCHANGED

    @property
    def urls(self) -> str:
        """The URL that the step makes, or those that it is about."""
        return self.wanted.url if self.wanted else ", ".join(old.url for old in self.old)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an account besides the list of its vendor.

    `url`: what our URLs begin with. `fingerprints`: those of the secrets of the subscriptions made here, by
    subscription id. `live`: those of the live secrets, None where all subscriptions share one.
    `arrivals`: what came of the account's webhooks. `replaces` and `tells_state`: how the vendor behaves.
    `renew`: ids of those that are to have another secret. `preexisting`: ids of those that were there before
    anything of the account was stored here. `proven`: ids of those whose secret is a live one, as deliveries
    show; `plan` sets them.
    """

    url: str
    fingerprints: Mapping[str, str]
    live: frozenset[str] | None
    arrivals: Arrivals = field(default_factory=Arrivals)
    replaces: bool = False
    tells_state: bool = True
    renew: frozenset[str] = frozenset()
    preexisting: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()


def plan(wanted: Sequence[SubscriptionSpec], registered: Sequence[Subscription], facts: Facts) -> list[Step]:
    """Plan what to do with each subscription that is wanted or registered. Others' are left alone."""
    ours = [
        subscription
        for subscription in registered
        if is_at(facts.url, subscription) or subscription.id in facts.fingerprints
    ]
    others = [subscription for subscription in registered if subscription not in ours]
    facts = replace(facts, proven=_find_proven(ours, facts))
    steps: list[Step] = []
    for spec in wanted:
        in_slot = [subscription for subscription in ours if subscription.slot == spec.slot]
        steps += _plan_slot(spec, in_slot, others, facts)
    slots = {spec.slot for spec in wanted}
    steps += [
        _step(Action.REMOVE, None, [subscription], "the settings do not want it", facts)
        for subscription in ours
        if subscription.slot not in slots
    ]
    replaced = {old.id for step in steps if step.action is Action.TAKE_OVER for old in step.old}
    steps += [
        Step(Action.LEAVE, old=(subscription,), why="not ours")
        for subscription in others
        if subscription.id not in replaced
    ]
    return steps


def hides_secret(subscription: Subscription, fingerprints: Mapping[str, str]) -> bool:
    """Return whether nothing says which secret it has: it was made by hand, or on another machine."""
    return not (subscription.mark or subscription.secret or fingerprints.get(subscription.id))


def is_at(url: str, subscription: Subscription) -> bool:
    """Return whether a subscription goes to our URL; a path below it is somebody else's."""
    return subscription.url.startswith(url) and subscription.url[len(url) : len(url) + 1] in {"", "?", "#"}


def _find_proven(ours: Sequence[Subscription], facts: Facts) -> frozenset[str]:
    """Return the id of our only working subscription if it hides its secret and delivers.

    A delivery is loaded only if a live secret had signed it, and nothing else of ours can have caused those
    that came since it was made. One that appeared after the first look may be of a creation whose answer was
    lost, while the vendor still sends what its predecessor signed: that is no proof.
    """
    working = [subscription for subscription in ours if not subscription.stopped]
    last = facts.arrivals.last
    if len(working) != 1 or last is None:
        return frozenset()
    (only,) = working
    is_hidden = only.id in facts.preexisting and hides_secret(only, facts.fingerprints)
    is_proven = is_hidden and only.created_at is not None and last > only.created_at
    return frozenset({only.id}) if is_proven else frozenset()


def _plan_slot(
    spec: SubscriptionSpec, ours: Sequence[Subscription], others: Sequence[Subscription], facts: Facts
) -> Iterator[Step]:
    """Plan the steps for one slot: the newest flawless subscription stays, and the other ones of ours go."""
    newest_first = sorted(ours, key=lambda old: old.created_at or _LONG_AGO, reverse=True)
    flaws = {old.id: _find_flaw(spec, old, facts) for old in newest_first}
    best = next((old for old in newest_first if not flaws[old.id]), None)
    if best is None:
        yield _plan_creation(spec, newest_first, others, flaws, facts)
        return
    if best.secret and not _is_known(best, facts):
        yield Step(Action.ADOPT, spec, (best,), "its secret is not stored here")
    else:
        why = "made by hand, and it delivers" if best.id in facts.proven else ""
        yield Step(Action.KEEP, spec, (best,), why)
    for old in newest_first:
        if old is not best:
            why = flaws[old.id] or "there is another one for the same"
            yield _step(Action.REMOVE, None, [old], why, facts)


def _plan_creation(
    spec: SubscriptionSpec,
    ours: Sequence[Subscription],
    others: Sequence[Subscription],
    flaws: Mapping[str, str],
    facts: Facts,
) -> Step:
    """Plan the creation of a subscription, in the place of what has its slot now."""
    if any(_may_serve_another(old, facts) for old in ours):
        return Step(Action.TAKE_OVER, spec, tuple(ours), _NOT_SHOWN_TO_BE_OURS, by_hand=True)
    if ours:
        return _step(Action.REPLACE, spec, ours, flaws[ours[0].id], facts)
    in_place = tuple(old for old in others if old.slot == spec.slot) if facts.replaces else ()
    if in_place:
        why = f"this key's only place for {spec.slot} has a URL that is not ours"
        return Step(Action.TAKE_OVER, spec, in_place, why, by_hand=True)
    return Step(Action.CREATE, spec, why="there is none")


def _step(
    action: Action, spec: SubscriptionSpec | None, old: Sequence[Subscription], why: str, facts: Facts
) -> Step:
    """Return a step, which is left to a person where the old ones may be another installation's.

    What goes to another public URL may be of the installation that this one was copied from.
    """
    by_hand = any(
        not is_at(facts.url, subscription) or _may_serve_another(subscription, facts) for subscription in old
    )
    return Step(action, spec, tuple(old), why, by_hand=by_hand)


def _may_serve_another(subscription: Subscription, facts: Facts) -> bool:
    """Return whether an installation on another machine may depend on it."""
    is_preexisting = subscription.id in facts.preexisting and not subscription.stopped
    return is_preexisting and not subscription.secret and not _is_known(subscription, facts)


def _find_flaw(spec: SubscriptionSpec, subscription: Subscription, facts: Facts) -> str:
    """Return why a subscription has to be replaced, "" when it need not be."""
    if subscription.id in facts.renew:
        return "its secret is to be another"
    if subscription.stopped:
        return subscription.stopped
    # A query that the vendor, or we, added to the URL changes nothing.
    url = subscription.url
    if url != spec.url and ("?" in spec.url or url.partition("?")[0] != spec.url):
        return f"it goes to {url}"
    # Who made it by hand may have asked for more.
    has_more = subscription.id in facts.proven and subscription.events > spec.events
    if subscription.events != spec.events and not has_more:
        return f"it is for {', '.join(sorted(subscription.events)) or 'nothing'}"
    if not _is_known(subscription, facts) and not subscription.secret:
        return "nobody here knows its secret"
    return _find_silence(subscription, facts)


def _is_known(subscription: Subscription, facts: Facts) -> bool:
    """Return whether the secret of a subscription is a live one."""
    if facts.live is None or subscription.id in facts.proven:
        return True
    return bool({subscription.mark, facts.fingerprints.get(subscription.id, "")} & facts.live)


def _find_silence(subscription: Subscription, facts: Facts) -> str:
    """Return that a subscription stopped, "" where nothing shows it.

    Where the vendor does not tell, a later change that reconciliation had to repair does.
    """
    missed = facts.arrivals.missed
    if facts.tells_state or missed is None:
        return ""
    made_at = subscription.created_at and subscription.created_at + _SETTLING
    if missed <= max(filter(None, (facts.arrivals.last, made_at)), default=_LONG_AGO):
        return ""
    return f"a change of {missed:%Y-%m-%d %H:%M} UTC never came: it is probably switched off"
