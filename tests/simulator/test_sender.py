"""Webhooks are delivered over real HTTP as vendors do it: again until they are taken, signed anew, and counted."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from ingest.simulator.dialect import Dialect, Webhook
from ingest.simulator.rehearsal import Pace, rehearse
from ingest.simulator.sender import Chaos, Patience, Sender, Sent
from ingest.simulator.world import Change
from ingest.vendors import vendor_names
from ingest.vendors.bookeo import TIMESTAMP
from tests.simulator.listener import Listener, listening
from tests.simulator.story import dialects_at, live, new_world, vendors_at

ORDERLY = Chaos(duplicated=0, delayed=0)
QUICK = Patience(attempts=4, first_pause=0.01, longest_pause=0.02)
STORY = live(new_world(5), [timedelta(minutes=10)] * 400)


def change_of(account: str) -> Change:
    return next(change for change in STORY if change.account == account)


def deliver(url: str, changes: list[Change], chaos: Chaos = ORDERLY) -> Sent:
    """Send them all, and wait for what comes of it."""

    async def run() -> Sent:
        sender, dialects = Sender(chaos, patience=QUICK), dialects_at(url)
        for change in changes:
            sender.send(dialects[change.account], dialects[change.account].webhook(change))
        await sender.drain()
        await sender.close()
        return sender.sent

    return asyncio.run(run())


def counts(sent: Sent) -> dict[str, Any]:
    return {
        "answers": dict(sent.answers),
        "webhooks": sent.webhooks,
        "given_up": sent.given_up,
        "latencies": len(sent.latencies),
    }


def verify_all(listener: Listener, account: str) -> None:
    """Every attempt is authentic at the time it was made. Raises VerificationError."""
    for delivery in listener.deliveries:
        vendors_at(listener.url)[account].verify(delivery, delivery.received_at)


@pytest.mark.parametrize("account", vendor_names())
def test_a_webhook_is_posted_to_the_accounts_url_and_believed(account: str) -> None:
    with listening() as listener:
        sent = deliver(listener.url, [change_of(account)])
    assert counts(sent) == {"answers": {202: 1}, "webhooks": 1, "given_up": 0, "latencies": 1}
    assert listener.paths == [f"/webhooks/{account}/{account}"]
    assert listener.deliveries[0].query == ("domain=bookings&type=created" if account == "bookeo" else "")
    assert listener.deliveries[0].headers.get_single("content-type") == "application/json"
    verify_all(listener, account)


@pytest.mark.parametrize("account", vendor_names())
def test_a_webhook_that_is_refused_is_sent_again_until_it_is_taken(account: str) -> None:
    with listening(503, 503, 500) as listener:
        sent = deliver(listener.url, [change_of(account)])
    assert counts(sent) == {"answers": {503: 2, 500: 1, 202: 1}, "webhooks": 1, "given_up": 0, "latencies": 4}
    assert len({(delivery.query, delivery.body) for delivery in listener.deliveries}) == 1
    verify_all(listener, account)


def test_every_attempt_is_signed_anew() -> None:
    with listening(503, 503) as listener:
        deliver(listener.url, [change_of("bookeo")])
    times = [int(delivery.headers.get_single(TIMESTAMP)) for delivery in listener.deliveries]
    assert len(times) == 3
    assert all(later > earlier for earlier, later in pairwise(times))
    verify_all(listener, "bookeo")


def test_a_connection_that_drops_is_an_answer_of_its_own_and_tried_again() -> None:
    with listening("drop", "drop") as listener:
        sent = deliver(listener.url, [change_of("calendly")])
    assert counts(sent) == {
        "answers": {"RemoteProtocolError": 2, 202: 1},
        "webhooks": 1,
        "given_up": 0,
        "latencies": 1,
    }


def test_a_webhook_nobody_takes_is_given_up_after_the_last_attempt() -> None:
    with listening(then=503) as listener:
        sent = deliver(listener.url, [change_of("calendly")])
    assert counts(sent) == {
        "answers": {503: QUICK.attempts},
        "webhooks": 0,
        "given_up": 1,
        "latencies": QUICK.attempts,
    }
    assert len(listener.deliveries) == QUICK.attempts


def test_where_nobody_listens_every_webhook_is_given_up() -> None:
    with listening() as listener:
        pass
    sent = deliver(listener.url, STORY[:3])
    assert counts(sent) == {
        "answers": {"ConnectError": 3 * QUICK.attempts},
        "webhooks": 0,
        "given_up": 3,
        "latencies": 0,
    }


def test_a_webhook_sent_twice_is_counted_once_and_each_of_its_answers() -> None:
    with listening(503, "drop") as listener:
        sent = deliver(listener.url, STORY[:10], Chaos(duplicated=1, delayed=0, delay=0))
    assert counts(sent) == {
        "answers": {503: 1, "RemoteProtocolError": 1, 202: 20},
        "webhooks": 10,
        "given_up": 0,
        "latencies": 21,
    }
    bodies = [delivery.body for delivery in listener.deliveries]
    assert {
        bodies.count(dialects_at(listener.url)[change.account].webhook(change).body) for change in STORY[:10]
    } <= {2, 3, 4}


def test_late_webhooks_all_arrive_in_another_order() -> None:
    with listening() as listener:
        sent = deliver(listener.url, STORY[:30], Chaos(duplicated=0, delayed=1, delay=0.3))
    in_order = [dialects_at(listener.url)[change.account].webhook(change).body for change in STORY[:30]]
    arrived = [delivery.body for delivery in listener.deliveries]
    assert sent.webhooks == 30
    assert arrived != in_order
    assert sorted(arrived) == sorted(in_order)


def test_closing_gives_up_what_nobody_answers() -> None:
    async def run(dialect: Dialect, webhook: Webhook, asked: Callable[[], bool]) -> Sent:
        sender = Sender(ORDERLY)
        sender.send(dialect, webhook)
        while not asked():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.01)
        await sender.close()
        await sender.drain()
        return sender.sent

    with listening(then="never") as listener:
        dialect = dialects_at(listener.url)["calendly"]
        sent = asyncio.run(
            run(dialect, dialect.webhook(change_of("calendly")), lambda: bool(listener.deliveries))
        )
    assert counts(sent) == {"answers": {}, "webhooks": 0, "given_up": 0, "latencies": 0}


def test_a_rehearsal_sends_what_happens_in_the_world_at_its_pace() -> None:
    async def run(listener: Listener) -> Sent:
        sender = Sender(ORDERLY, patience=QUICK)
        await rehearse(world, dialects_at(listener.url), sender, Pace(rate=100, seconds=1), lambda: False)
        await sender.close()
        return sender.sent

    world = new_world()
    with listening(503, "drop") as listener:
        sent = asyncio.run(run(listener))
    assert 10 <= sent.webhooks <= 102, "a hundred, but for a slow machine and a replacement, which is two"
    assert sent.given_up == 0
    assert 0 < len(world.truth()) <= sent.webhooks


def test_a_rehearsal_that_is_stopped_sends_no_more() -> None:
    async def run(listener: Listener) -> Sent:
        sender = Sender(ORDERLY, patience=QUICK)
        await rehearse(
            new_world(),
            dialects_at(listener.url),
            sender,
            Pace(rate=100, seconds=60),
            lambda: len(listener.deliveries) >= 5,
        )
        await sender.close()
        return sender.sent

    with listening() as listener:
        sent = asyncio.run(run(listener))
    assert 5 <= sent.webhooks < 1000
