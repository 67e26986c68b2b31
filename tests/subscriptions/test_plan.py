"""The planner, case by case."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.vendors.subscriptions import Subscription, SubscriptionSpec
from receivers.subscriptions.plan import Facts, Heard, Kind, plan

URL = "https://hooks.example.com/webhooks/oncehub/sales"
EVENTS = frozenset({"booked", "cancelled"})
WANT = SubscriptionSpec("account", URL, EVENTS)
MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def one(name: str = "a", **values: Any) -> Subscription:
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
    usual: dict[str, Any] = {"url": URL, "made": {}, "live": frozenset({"good"})}
    return Facts(**usual | values)


def kinds(
    registered: Sequence[Subscription],
    known: Facts | None = None,
    wanted: Sequence[SubscriptionSpec] = (WANT,),
) -> list[tuple[Kind, str]]:
    """What is done with which."""
    return [
        (step.kind, " ".join(sorted(old.id for old in step.old)))
        for step in plan(wanted, registered, known or facts())
    ]


CASES: list[tuple[str, Sequence[Subscription], Facts, list[tuple[Kind, str]]]] = [
    ("nothing", [], facts(), [(Kind.CREATE, "")]),
    ("as wanted", [one()], facts(), [(Kind.KEEP, "a")]),
    ("a query that makes it unique", [one(url=f"{URL}?v=1")], facts(), [(Kind.KEEP, "a")]),
    ("stopped", [one(stopped="disabled")], facts(), [(Kind.REPLACE, "a")]),
    ("too few events", [one(events=frozenset({"booked"}))], facts(), [(Kind.REPLACE, "a")]),
    ("too many events", [one(events=EVENTS | {"more"})], facts(), [(Kind.REPLACE, "a")]),
    ("a path below ours", [one(url=f"{URL}/x")], facts(), [(Kind.CREATE, ""), (Kind.LEAVE, "a")]),
    ("a fragment", [one(url=f"{URL}#x")], facts(), [(Kind.REPLACE, "a")]),
    ("unknown secret, there before us", [one(mark="bad")], facts(strange=frozenset({"a"})), [(Kind.TAKE_OVER, "a")]),
    ("known secret, there before us", [one()], facts(strange=frozenset({"a"})), [(Kind.KEEP, "a")]),
    ("stopped, there before us", [one(mark="bad", stopped="x")], facts(strange=frozenset({"a"})), [(Kind.REPLACE, "a")]),
    ("another account's", [one(url=f"{URL}2")], facts(), [(Kind.CREATE, ""), (Kind.LEAVE, "a")]),
    ("unknown secret", [one(mark="bad")], facts(), [(Kind.REPLACE, "a")]),
    ("no secret to be seen", [one(mark="")], facts(), [(Kind.REPLACE, "a")]),
    ("remembered secret", [one(mark="")], facts(made={"a": "good"}), [(Kind.KEEP, "a")]),
    ("remembered secret that is no longer live", [one(mark="")], facts(made={"a": "bad"}), [(Kind.REPLACE, "a")]),
    ("one secret for all", [one(mark="")], facts(live=None), [(Kind.KEEP, "a")]),
    ("a secret told and not stored", [one(mark="new", secret="new")], facts(), [(Kind.ADOPT, "a")]),
    ("a secret told and stored", [one(secret="x")], facts(), [(Kind.KEEP, "a")]),
    ("by hand, and it delivers", [one(mark="")], facts(heard=Heard(JUNE), strange=frozenset({"a"})), [(Kind.KEEP, "a")]),
    ("by hand, for more, and it delivers", [one(mark="", events=EVENTS | {"more"})], facts(heard=Heard(JUNE), strange=frozenset({"a"})), [(Kind.KEEP, "a")]),
    ("by hand, for less, and it delivers", [one(mark="", events=frozenset({"booked"}))], facts(heard=Heard(JUNE), strange=frozenset({"a"})), [(Kind.REPLACE, "a")]),
    ("by hand, and nothing came", [one(mark="")], facts(strange=frozenset({"a"})), [(Kind.TAKE_OVER, "a")]),
    ("by hand, and nothing came since", [one(mark="", created_at=JUNE)], facts(heard=Heard(MAY), strange=frozenset({"a"})), [(Kind.TAKE_OVER, "a")]),
    ("by hand, nobody knows when", [one(mark="", created_at=None)], facts(heard=Heard(MAY), strange=frozenset({"a"})), [(Kind.TAKE_OVER, "a")]),
    ("by hand, and it was stopped", [one(mark="", stopped="x")], facts(heard=Heard(JUNE), strange=frozenset({"a"})), [(Kind.REPLACE, "a")]),
    ("by hand, beside one that may have sent it", [one(mark=""), one("b", slot="user")], facts(heard=Heard(JUNE), strange=frozenset({"a"})), [(Kind.TAKE_OVER, "a"), (Kind.REMOVE, "b")]),
    ("there before us, of a secret that is not live", [one(mark="bad")], facts(heard=Heard(JUNE), strange=frozenset({"a"})), [(Kind.TAKE_OVER, "a")]),
    ("of a lost answer, while others' deliveries come", [one(mark="")], facts(heard=Heard(JUNE)), [(Kind.REPLACE, "a")]),
    ("two good ones", [one(), one("b", created_at=JUNE)], facts(), [(Kind.KEEP, "b"), (Kind.REMOVE, "a")]),
    ("a good and a stopped one", [one(), one("b", created_at=JUNE, stopped="x")], facts(), [(Kind.KEEP, "a"), (Kind.REMOVE, "b")]),
    ("two bad ones", [one(stopped="x"), one("b", stopped="x")], facts(), [(Kind.REPLACE, "a b")]),
    ("one that nothing wants", [one(), one("b", slot="user")], facts(), [(Kind.KEEP, "a"), (Kind.REMOVE, "b")]),
    ("somebody's in its only place", [one(url="https://x.example.org")], facts(replaces=True), [(Kind.TAKE_OVER, "a")]),
    ("somebody's beside it", [one(url="https://x.example.org")], facts(), [(Kind.CREATE, ""), (Kind.LEAVE, "a")]),
    ("made here, for another public URL", [one(url="https://x.example.org")], facts(made={"a": "good"}), [(Kind.REPLACE, "a")]),
    ("a new secret is wanted", [one(), one("b")], facts(renew=frozenset({"a"})), [(Kind.KEEP, "b"), (Kind.REMOVE, "a")]),
    ("silent, and it would be told", [one()], facts(heard=Heard(MAY, JUNE)), [(Kind.KEEP, "a")]),
    ("silent, and it is not told", [one()], facts(heard=Heard(MAY, JUNE), tells_state=False), [(Kind.REPLACE, "a")]),
    ("heard since", [one()], facts(heard=Heard(JUNE, MAY), tells_state=False), [(Kind.KEEP, "a")]),
    ("missed before it was made", [one(created_at=JUNE)], facts(heard=Heard(None, JUNE), tells_state=False), [(Kind.KEEP, "a")]),
    ("missed, and nobody knows when it was made", [one(created_at=None)], facts(heard=Heard(None, MAY), tells_state=False), [(Kind.REPLACE, "a")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("registered", "known", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_case_has_its_steps(
    registered: Sequence[Subscription], known: Facts, expected: list[tuple[Kind, str]]
) -> None:
    assert kinds(registered, known) == expected


def test_a_query_that_is_part_of_what_is_wanted_must_be_it() -> None:
    want = SubscriptionSpec("account", f"{URL}?domain=bookings&type=created", EVENTS)
    assert kinds([one(url=want.url)], wanted=[want]) == [(Kind.KEEP, "a")]
    assert kinds([one(url=f"{URL}?type=created&domain=bookings")], wanted=[want]) == [(Kind.REPLACE, "a")]
    assert kinds([one(url=URL)], wanted=[want]) == [(Kind.REPLACE, "a")]


@pytest.mark.parametrize(
    ("registered", "known"),
    [
        (one(url="https://x.example.org"), facts(made={"a": "good"})),
        (one(url="https://x.example.org"), facts(replaces=True)),
        (one(mark="bad"), facts(strange=frozenset({"a"}))),
        (one(mark="bad", slot="user"), facts(strange=frozenset({"a"}))),
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
    steps = plan([WANT], [one(), one("b", url="https://x.example.org")], facts())
    assert [step.is_change for step in steps] == [False, False]
    assert not any(step.by_hand for step in plan([WANT], [one(stopped="x")], facts()))


def test_secrets_are_not_in_what_is_printed_of_a_subscription() -> None:
    assert "told" not in repr(one(secret="told-by-the-vendor"))
