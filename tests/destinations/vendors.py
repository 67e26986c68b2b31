"""The vendors' side of a black box: what happened, which webhooks arrive and how, and which never do."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import Difference, Row, SimulatedAccount, Webhook, differences
from ingest.simulator.server import RestServer
from ingest.simulator.world import World
from ingest.vendors import vendor_names
from tests.support.accounts import SECRET, simulated_account
from tests.support.polling import PATIENCE

# The world is as old as receivers take the times in webhooks, and reconciliation looks back to its beginning.
_AGE = timedelta(days=4)
SINCE = "5d"

_CHANGES, _WAVES = 90, 2
_LARGE_BODIES = (200_000, 1024 * 1024)  # the second is the largest that a receiver takes
# Longer than a text column of some databases, with what has to be escaped somewhere.
_UNREADABLE = ('{"event": "' + "it's a \\\\ and an é, 美 " * 15_000).encode()

Delivery = tuple[str, Webhook]


class Vendors:
    """An account at each vendor, its REST API, and the webhooks that are delivered of it."""

    def __init__(self, url: str, seed: int = 11) -> None:
        """`url` is the receiver's public URL."""
        self.accounts: Mapping[str, SimulatedAccount] = {
            f"sales_{vendor}": simulated_account(vendor, url, f"sales_{vendor}") for vendor in vendor_names()
        }
        self._random = random.Random(seed)
        self.world = World({name: account.capabilities for name, account in self.accounts.items()}, seed)
        self.arriving, self.missed = self._happen()
        self._api = RestServer(
            {
                name: load_simulated_vendor(account.vendor).api(account, self.world.meetings[name])
                for name, account in self.accounts.items()
            }
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the REST APIs."""
        with self._api.serving():
            yield

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the tables `accounts.NAME`, secrets included, while the APIs are served."""
        return {
            name: {
                **account.settings(),
                **self._api.apis[name].settings(),
                "api_url": self._api.api_url(name),
                "rate_limit": 0,
                "webhook_secrets": [SECRET],
            }
            for name, account in self.accounts.items()
        }

    def waves(self) -> list[list[Delivery]]:
        """Return the deliveries in waves, out of order, some of them twice and some again in a later wave."""
        deliveries = self._random.sample(self.arriving, len(self.arriving))
        waves: list[list[Delivery]] = []
        sent: list[Delivery] = []
        for start in range(_WAVES):
            new = deliveries[start::_WAVES]
            sent += new
            wave = new + self._random.sample(sent, len(new) // 5)
            waves.append(self._random.sample(wave, len(wave)))
        return waves

    def post(self, deliveries: Sequence[Delivery]) -> None:
        """Post webhooks, signed now, one after the other. Each has to be answered 202."""
        with httpx.Client(timeout=PATIENCE) as client:
            for name, webhook in deliveries:
                account = self.accounts[name]
                url = f"{account.url}?{webhook.query}" if webhook.query else account.url
                headers = {"content-type": "application/json", **account.headers(webhook, datetime.now(UTC))}
                answer = client.post(url, content=webhook.body, headers=headers)
                assert answer.status_code == 202, answer

    def unreadable(self) -> Delivery:
        """Return a signed delivery that is no JSON, and too long for a text column of some databases."""
        return next(iter(self.accounts)), Webhook("", _UNREADABLE)

    def payloads(self) -> list[bytes]:
        """Return the bodies of the webhooks that arrive, one for each event."""
        return [webhook.body for _, webhook in self.arriving]

    def booking_counts(self) -> dict[str, int]:
        """Return how many bookings each account truly has."""
        return dict(Counter(name for name, _ in self.world.truth()))

    def differences(self, rows: Sequence[Row]) -> list[Difference]:
        """Compare the rows of `bookings` with what truly happened, column by column."""
        return differences(self.world, self.accounts, rows)

    def _happen(self) -> tuple[list[Delivery], int]:
        """Let days go by; return the webhooks that arrive, and of how many bookings the newest does not."""
        webhooks: dict[tuple[str, int], list[Webhook]] = {}
        beginning = datetime.now(UTC) - _AGE
        for number in range(_CHANGES):
            for change in self.world.step(beginning + _AGE * number / (_CHANGES + 5)):
                webhook = self.accounts[change.account].webhook(change)
                webhooks.setdefault((change.account, change.meeting.number), []).append(webhook)
        arriving: list[Delivery] = []
        missed = 0
        for (name, number), about_booking in webhooks.items():
            never = {0: len(about_booking), 1: 1}.get(
                number % 8, 0
            )  # of every eighth none, of others the last
            missed += bool(never)
            arriving += [(name, webhook) for webhook in about_booking[: len(about_booking) - never]]
        for place, size in zip((0, -1), _LARGE_BODIES, strict=True):
            name, webhook = arriving[place]
            arriving[place] = name, _enlarged(webhook, size)
        return arriving, missed


def _enlarged(webhook: Webhook, size: int) -> Webhook:
    """Return the webhook with a body of this size, by one more field, which no reader asks for."""
    frame = b'{"note":"%s",' + webhook.body.removeprefix(b"{")
    room = size - len(frame) + 2
    text = "it's a \\\\ and an é, 美 ".encode()
    filling = text * (room // len(text))
    return replace(webhook, body=frame % (filling + b"." * (room - len(filling))))
