"""What a fault may have cut includes the events whose answers were on their way when it came."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingest.simulator.simulation import Sender
from tests.faults.load import Vendors


def test_an_event_that_is_answered_late_was_accepted_before_the_fault_and_a_later_one_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> frozenset[tuple[str, str]]:
        answers = {"early": asyncio.Event(), "late": asyncio.Event(), "after": asyncio.Event()}

        async def attempt(_self: object, _account: object, webhook: str) -> bool:
            await answers[webhook].wait()
            return True

        monkeypatch.setattr(Sender, "_attempt", attempt)
        monkeypatch.setattr(Vendors, "_event", lambda _self, _account, webhook: ("source", webhook))
        monkeypatch.setattr(Sender, "send", send_at_once)
        vendors = Vendors(cast("Any", SimpleNamespace(build_accounts=dict)), seed=1)
        for webhook in ("early", "late"):
            vendors.send(cast("Any", None), cast("Any", webhook))
        answers["early"].set()
        await let_others_run()
        asking = asyncio.create_task(vendors.accepted_by_now())
        await let_others_run()
        vendors.send(cast("Any", None), cast("Any", "after"))
        answers["after"].set()
        await let_others_run()
        assert not asking.done()
        assert ("source", "after") in vendors.accepted()
        answers["late"].set()
        accepted = await asking
        await vendors.close()
        return accepted

    assert asyncio.run(run()) == {("source", "early"), ("source", "late")}


async def let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def send_at_once(sender: Sender, account: Any, webhook: Any) -> None:
    """Deliver without the chaos of a run."""
    sender._start(sender._deliver(account, webhook, 0, duplicate=False))
