"""Webhooks are delivered over HTTP as vendors do: retried, signed anew, and counted."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.simulation import Chaos, DeliveryStats, Pace, RetryPolicy, Sender, run_simulation
from ingest.simulator.world import Change
from ingest.vendors import vendor_names
from ingest.vendors.bookeo import TIMESTAMP
from tests.ingest.simulator.receiver import FakeReceiver, fake_receiver
from tests.support.accounts import ACCOUNTS, advance, new_world, product_accounts, simulated_accounts

ORDERLY = Chaos(duplicated=0, delayed=0)
QUICK = RetryPolicy(attempts=4, first_pause=0.01, longest_pause=0.02)
CHANGES = advance(new_world(5), [timedelta(minutes=10)] * 400)


def change_of(account: str) -> Change:
    return next(change for change in CHANGES if change.account == account)


def deliver(url: str, changes: list[Change], chaos: Chaos = ORDERLY) -> DeliveryStats:
    """Send the webhooks of these changes and return the results."""

    async def run() -> DeliveryStats:
        sender, accounts = Sender(chaos, retry_policy=QUICK), simulated_accounts(url)
        for change in changes:
            sender.send(accounts[change.account], accounts[change.account].webhook(change))
        await sender.drain()
        await sender.close()
        return sender.stats

    return asyncio.run(run())


def counts(stats: DeliveryStats) -> dict[str, Any]:
    return {
        "answers": dict(stats.answers),
        "webhooks": stats.webhooks,
        "given_up": stats.given_up,
        "latencies": len(stats.latencies),
    }


def verify_all(receiver: FakeReceiver, account: str) -> None:
    """Verify every attempt at the time it was made. Raises VerificationError."""
    for delivery in receiver.deliveries:
        product_accounts(receiver.url)[account].verify(delivery, delivery.received_at)


@pytest.mark.parametrize("account", vendor_names())
def test_a_webhook_is_posted_to_the_accounts_url_and_believed(account: str) -> None:
    with fake_receiver() as receiver:
        stats = deliver(receiver.url, [change_of(account)])
    assert counts(stats) == {"answers": {202: 1}, "webhooks": 1, "given_up": 0, "latencies": 1}
    assert receiver.paths == [f"/webhooks/{account}/{account}"]
    assert receiver.deliveries[0].query == ACCOUNTS[account].webhook_queries()[0]
    assert receiver.deliveries[0].headers.get_single("content-type") == "application/json"
    verify_all(receiver, account)


@pytest.mark.parametrize("account", vendor_names())
def test_a_webhook_that_is_refused_is_sent_again_until_it_is_taken(account: str) -> None:
    with fake_receiver(503, 503, 500) as receiver:
        stats = deliver(receiver.url, [change_of(account)])
    assert counts(stats) == {
        "answers": {503: 2, 500: 1, 202: 1},
        "webhooks": 1,
        "given_up": 0,
        "latencies": 4,
    }
    assert len({(delivery.query, delivery.body) for delivery in receiver.deliveries}) == 1
    verify_all(receiver, account)


def test_every_attempt_is_signed_anew() -> None:
    with fake_receiver(503, 503) as receiver:
        deliver(receiver.url, [change_of("bookeo")])
    times = [int(delivery.headers.get_single(TIMESTAMP)) for delivery in receiver.deliveries]
    assert len(times) == 3
    assert all(later > earlier for earlier, later in pairwise(times))
    verify_all(receiver, "bookeo")


def test_a_connection_that_drops_is_an_answer_of_its_own_and_tried_again() -> None:
    with fake_receiver("drop", "drop") as receiver:
        stats = deliver(receiver.url, [change_of("calendly")])
    assert counts(stats) == {
        "answers": {"RemoteProtocolError": 2, 202: 1},
        "webhooks": 1,
        "given_up": 0,
        "latencies": 1,
    }


def test_a_webhook_nobody_takes_is_given_up_after_the_last_attempt() -> None:
    with fake_receiver(then=503) as receiver:
        stats = deliver(receiver.url, [change_of("calendly")])
    assert counts(stats) == {
        "answers": {503: QUICK.attempts},
        "webhooks": 0,
        "given_up": 1,
        "latencies": QUICK.attempts,
    }
    assert len(receiver.deliveries) == QUICK.attempts


def test_where_nobody_listens_every_webhook_is_given_up() -> None:
    with fake_receiver() as receiver:
        pass
    stats = deliver(receiver.url, CHANGES[:3])
    assert counts(stats) == {
        "answers": {"ConnectError": 3 * QUICK.attempts},
        "webhooks": 0,
        "given_up": 3,
        "latencies": 0,
    }


def test_a_webhook_sent_twice_is_counted_once_and_each_of_its_answers() -> None:
    with fake_receiver(503, "drop") as receiver:
        stats = deliver(receiver.url, CHANGES[:10], Chaos(duplicated=1, delayed=0, delay=0))
    assert counts(stats) == {
        "answers": {503: 1, "RemoteProtocolError": 1, 202: 20},
        "webhooks": 10,
        "given_up": 0,
        "latencies": 21,
    }
    bodies = [delivery.body for delivery in receiver.deliveries]
    assert {
        bodies.count(simulated_accounts(receiver.url)[change.account].webhook(change).body)
        for change in CHANGES[:10]
    } <= {2, 3, 4}


def test_late_webhooks_all_arrive_in_another_order() -> None:
    with fake_receiver() as receiver:
        stats = deliver(receiver.url, CHANGES[:30], Chaos(duplicated=0, delayed=1, delay=0.3))
    in_order = [
        simulated_accounts(receiver.url)[change.account].webhook(change).body for change in CHANGES[:30]
    ]
    arrived = [delivery.body for delivery in receiver.deliveries]
    assert stats.webhooks == 30
    assert arrived != in_order
    assert sorted(arrived) == sorted(in_order)


def test_closing_gives_up_what_nobody_answers() -> None:
    async def run(
        account: SimulatedAccount, webhook: Webhook, is_received: Callable[[], bool]
    ) -> DeliveryStats:
        sender = Sender(ORDERLY)
        sender.send(account, webhook)
        while not is_received():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.01)
        await sender.close()
        await sender.drain()
        return sender.stats

    with fake_receiver(then="never") as receiver:
        account = simulated_accounts(receiver.url)["calendly"]
        stats = asyncio.run(
            run(account, account.webhook(change_of("calendly")), lambda: bool(receiver.deliveries))
        )
    assert counts(stats) == {"answers": {}, "webhooks": 0, "given_up": 0, "latencies": 0}


def test_a_simulation_sends_what_happens_in_the_world_at_its_pace() -> None:
    async def run(receiver: FakeReceiver) -> DeliveryStats:
        sender = Sender(ORDERLY, retry_policy=QUICK)
        await run_simulation(
            world, simulated_accounts(receiver.url), sender, Pace(rate=100, seconds=1), lambda: False
        )
        await sender.close()
        return sender.stats

    world = new_world()
    with fake_receiver(503, "drop") as receiver:
        stats = asyncio.run(run(receiver))
    assert 10 <= stats.webhooks <= 102, "a hundred, but for a slow machine and a replacement, which is two"
    assert stats.given_up == 0
    assert 0 < len(world.truth()) <= stats.webhooks


def test_a_simulation_that_is_stopped_sends_no_more() -> None:
    async def run(receiver: FakeReceiver) -> DeliveryStats:
        sender = Sender(ORDERLY, retry_policy=QUICK)
        await run_simulation(
            new_world(),
            simulated_accounts(receiver.url),
            sender,
            Pace(rate=100, seconds=60),
            lambda: len(receiver.deliveries) >= 5,
        )
        await sender.close()
        return sender.stats

    with fake_receiver() as receiver:
        stats = asyncio.run(run(receiver))
    assert 5 <= stats.webhooks < 1000
