"""The plan, case by case."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.vendors.subscriptions import Subscription, SubscriptionSpec
from ingest.warehouse.deliveries import Arrivals
from receivers.subscriptions.plan import Action, Facts, plan

URL = "https://hooks.example.com/webhooks/oncehub/sales"
EVENTS = frozenset({"booked", "cancelled"})
WANT = SubscriptionSpec("account", URL, EVENTS)
MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def subscription(name: str = "a", **values: Any) -> Subscription:
    usual: dict[str, Any] = {
        "id": name,
        "slot": "account",
        "url": URL,
        "events": EVENTS,
        "created_at": MAY,
        "mark": "good",
    }
    return Subscription(**usual | values)


def facts(**values: Any) -> Facts:
    usual: dict[str, Any] = {"url": URL, "fingerprints": {}, "live": frozenset({"good"})}
    return Facts(**usual | values)


def actions(
    subscriptions: Sequence[Subscription],
    known: Facts | None = None,
    wanted: Sequence[SubscriptionSpec] = (WANT,),
) -> list[tuple[Action, str]]:
    """Return what is done with which subscriptions."""
    return [
        (step.action, " ".join(sorted(old.id for old in step.old)))
        for step in plan(wanted, subscriptions, known or facts())
    ]


CASES: list[tuple[str, Sequence[Subscription], Facts, list[tuple[Action, str]]]] = [
    ("nothing", [], facts(), [(Action.CREATE, "")]),
    ("as wanted", [subscription()], facts(), [(Action.KEEP, "a")]),
    ("a query that makes it unique", [subscription(url=f"{URL}?v=1")], facts(), [(Action.KEEP, "a")]),
    ("stopped", [subscription(stopped="disabled")], facts(), [(Action.REPLACE, "a")]),
    ("too few events", [subscription(events=frozenset({"booked"}))], facts(), [(Action.REPLACE, "a")]),
    ("too many events", [subscription(events=EVENTS | {"more"})], facts(), [(Action.REPLACE, "a")]),
    (
        "a path below ours",
        [subscription(url=f"{URL}/x")],
        facts(),
        [(Action.CREATE, ""), (Action.LEAVE, "a")],
    ),
    ("a fragment", [subscription(url=f"{URL}#x")], facts(), [(Action.REPLACE, "a")]),
    (
        "unknown secret, there before us",
        [subscription(mark="bad")],
        facts(preexisting=frozenset({"a"})),
        [(Action.TAKE_OVER, "a")],
    ),
    (
        "known secret, there before us",
        [subscription()],
        facts(preexisting=frozenset({"a"})),
        [(Action.KEEP, "a")],
    ),
    (
        "stopped, there before us",
        [subscription(mark="bad", stopped="x")],
        facts(preexisting=frozenset({"a"})),
        [(Action.REPLACE, "a")],
    ),
    ("another account's", [subscription(url=f"{URL}2")], facts(), [(Action.CREATE, ""), (Action.LEAVE, "a")]),
    ("unknown secret", [subscription(mark="bad")], facts(), [(Action.REPLACE, "a")]),
    ("no secret to be seen", [subscription(mark="")], facts(), [(Action.REPLACE, "a")]),
    ("remembered secret", [subscription(mark="")], facts(fingerprints={"a": "good"}), [(Action.KEEP, "a")]),
    (
        "remembered secret that is no longer live",
        [subscription(mark="")],
        facts(fingerprints={"a": "bad"}),
        [(Action.REPLACE, "a")],
    ),
    ("one secret for all", [subscription(mark="")], facts(live=None), [(Action.KEEP, "a")]),
    (
        "a secret told and not stored",
        [subscription(mark="new", secret="new")],
        facts(),
        [(Action.ADOPT, "a")],
    ),
    ("a secret told and stored", [subscription(secret="x")], facts(), [(Action.KEEP, "a")]),
    (
        "by hand, and it delivers",
        [subscription(mark="")],
        facts(arrivals=Arrivals(JUNE), preexisting=frozenset({"a"})),
        [(Action.KEEP, "a")],
    ),
    (
        "by hand, for more, and it delivers",
        [subscription(mark="", events=EVENTS | {"more"})],
        facts(arrivals=Arrivals(JUNE), preexisting=frozenset({"a"})),
        [(Action.KEEP, "a")],
    ),
    (
        "by hand, for less, and it delivers",
        [subscription(mark="", events=frozenset({"booked"}))],
        facts(arrivals=Arrivals(JUNE), preexisting=frozenset({"a"})),
        [(Action.REPLACE, "a")],
    ),
    (
        "by hand, and nothing came",
        [subscription(mark="")],
        facts(preexisting=frozenset({"a"})),
        [(Action.TAKE_OVER, "a")],
    ),
    (
        "by hand, and nothing came since",
        [subscription(mark="", created_at=JUNE)],
        facts(arrivals=Arrivals(MAY), preexisting=frozenset({"a"})),
        [(Action.TAKE_OVER, "a")],
    ),
    (
        "by hand, nobody knows when",
        [subscription(mark="", created_at=None)],
        facts(arrivals=Arrivals(MAY), preexisting=frozenset({"a"})),
        [(Action.TAKE_OVER, "a")],
    ),
    (
        "by hand, and it was stopped",
        [subscription(mark="", stopped="x")],
        facts(arrivals=Arrivals(JUNE), preexisting=frozenset({"a"})),
        [(Action.REPLACE, "a")],
    ),
    (
        "by hand, beside one that may have sent it",
        [subscription(mark=""), subscription("b", slot="user")],
        facts(arrivals=Arrivals(JUNE), preexisting=frozenset({"a"})),
        [(Action.TAKE_OVER, "a"), (Action.REMOVE, "b")],
    ),
    (
        "there before us, of a secret that is not live",
        [subscription(mark="bad")],
        facts(arrivals=Arrivals(JUNE), preexisting=frozenset({"a"})),
        [(Action.TAKE_OVER, "a")],
    ),
    (
        "of a lost answer, while others' deliveries come",
        [subscription(mark="")],
        facts(arrivals=Arrivals(JUNE)),
        [(Action.REPLACE, "a")],
    ),
    (
        "two good ones",
        [subscription(), subscription("b", created_at=JUNE)],
        facts(),
        [(Action.KEEP, "b"), (Action.REMOVE, "a")],
    ),
    (
        "a good and a stopped one",
        [subscription(), subscription("b", created_at=JUNE, stopped="x")],
        facts(),
        [(Action.KEEP, "a"), (Action.REMOVE, "b")],
    ),
    (
        "two bad ones",
        [subscription(stopped="x"), subscription("b", stopped="x")],
        facts(),
        [(Action.REPLACE, "a b")],
    ),
    (
        "one that nothing wants",
        [subscription(), subscription("b", slot="user")],
        facts(),
        [(Action.KEEP, "a"), (Action.REMOVE, "b")],
    ),
    (
        "somebody's in its only place",
        [subscription(url="https://x.example.org")],
        facts(replaces=True),
        [(Action.TAKE_OVER, "a")],
    ),
    (
        "somebody's beside it",
        [subscription(url="https://x.example.org")],
        facts(),
        [(Action.CREATE, ""), (Action.LEAVE, "a")],
    ),
    (
        "made here, for another public URL",
        [subscription(url="https://x.example.org")],
        facts(fingerprints={"a": "good"}),
        [(Action.REPLACE, "a")],
    ),
    (
        "a new secret is wanted",
        [subscription(), subscription("b")],
        facts(renew=frozenset({"a"})),
        [(Action.KEEP, "b"), (Action.REMOVE, "a")],
    ),
    (
        "silent, and it would be told",
        [subscription()],
        facts(arrivals=Arrivals(MAY, JUNE)),
        [(Action.KEEP, "a")],
    ),
    (
        "silent, and it is not told",
        [subscription()],
        facts(arrivals=Arrivals(MAY, JUNE), tells_state=False),
        [(Action.REPLACE, "a")],
    ),
    (
        "heard since",
        [subscription()],
        facts(arrivals=Arrivals(JUNE, MAY), tells_state=False),
        [(Action.KEEP, "a")],
    ),
    (
        "missed before it was made",
        [subscription(created_at=JUNE)],
        facts(arrivals=Arrivals(None, JUNE), tells_state=False),
        [(Action.KEEP, "a")],
    ),
    (
        "missed, and nobody knows when it was made",
        [subscription(created_at=None)],
        facts(arrivals=Arrivals(None, MAY), tells_state=False),
        [(Action.REPLACE, "a")],
    ),
]


@pytest.mark.parametrize(
    ("registered", "known", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_case_has_its_steps(
    registered: Sequence[Subscription], known: Facts, expected: list[tuple[Action, str]]
) -> None:
    assert actions(registered, known) == expected


def test_a_query_that_is_part_of_what_is_wanted_must_be_it() -> None:
    want = SubscriptionSpec("account", f"{URL}?domain=bookings&type=created", EVENTS)
    assert actions([subscription(url=want.url)], wanted=[want]) == [(Action.KEEP, "a")]
    assert actions([subscription(url=f"{URL}?type=created&domain=bookings")], wanted=[want]) == [
        (Action.REPLACE, "a")
    ]
    assert actions([subscription(url=URL)], wanted=[want]) == [(Action.REPLACE, "a")]


@pytest.mark.parametrize(
    ("registered", "known"),
    [
        (subscription(url="https://x.example.org"), facts(fingerprints={"a": "good"})),
        (subscription(url="https://x.example.org"), facts(replaces=True)),
        (subscription(mark="bad"), facts(preexisting=frozenset({"a"}))),
        (subscription(mark="bad", slot="user"), facts(preexisting=frozenset({"a"}))),
    ],
    ids=[
        "at another public URL",
        "in somebody's place",
        "another machine's",
        "another machine's that is not wanted",
    ],
)
def test_what_may_be_another_installations_takes_a_person(registered: Subscription, known: Facts) -> None:
    assert all(step.by_hand for step in plan([WANT], [registered], known) if step.old)


def test_what_is_only_kept_or_left_alone_is_no_difference() -> None:
    steps = plan([WANT], [subscription(), subscription("b", url="https://x.example.org")], facts())
    assert [step.is_change for step in steps] == [False, False]
    assert not any(step.by_hand for step in plan([WANT], [subscription(stopped="x")], facts()))


def test_secrets_are_not_in_what_is_printed_of_a_subscription() -> None:
    assert "told" not in repr(subscription(secret="told-by-the-vendor"))
