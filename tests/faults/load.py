"""The vendors' side: webhooks at a steady rate for the whole run, tried again for as long as it takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ingest.settings import Settings
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.sender import Chaos, RetryPolicy, Sender
from ingest.vendors import Delivery
from ingest.vendors.delivery import Headers

_CHAOS = Chaos(duplicated=0.05, delayed=0.1, delay=2.0)
_PATIENCE = RetryPolicy(attempts=1000, first_pause=0.2, longest_pause=3.0)

_FILLING_BYTES = 1000 * 1024  # with the webhook's own body a little less than receiver.body_limit
# What large bodies are full of: text, and JSON that takes many times its size once it is parsed.
_FILLINGS = (b'"' + b"a" * _FILLING_BYTES + b'"', b"[" + b"[]," * (_FILLING_BYTES // 3) + b"0]")

EventKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What the vendors told: `events` of all their webhooks, and of those accepted; `distinct` webhooks accepted.

    `cut`: events that somebody took out of the log after they were accepted, which may not be there. `bookings`: whose they are, by account and id.
    """

    events: frozenset[EventKey]
    accepted: frozenset[EventKey]
    distinct: int
    given_up: int
    cut: frozenset[EventKey] = frozenset()
    bookings: Mapping[EventKey, tuple[str, str]] = field(default_factory=dict)


class Vendors(Sender):
    """A sender that notes which event each webhook is to become: its source and id, by the webhook's hash."""

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(_CHAOS, seed, _PATIENCE)
        self.events: dict[int, EventKey] = {}
        self._bookings: dict[EventKey, tuple[str, str]] = {}
        self._readers = settings.build_accounts()
        self.large = 0
        """How many of the next webhooks are as large as a receiver takes them."""

    def send(self, dialect: SimulatedAccount, webhook: Webhook) -> None:
        """As ever, and noted."""
        if self.large:
            self.large -= 1
            webhook = _filled(webhook, _FILLINGS[self.large % len(_FILLINGS)])
        self.events[hash(webhook)] = self._event(dialect, webhook)
        super().send(dialect, webhook)

    def accepted(self) -> frozenset[EventKey]:
        """So far."""
        return frozenset(self.events[webhook] for webhook in self.stats.accepted)

    def told(self, cut: frozenset[EventKey] = frozenset()) -> Told:
        """So far."""
        return Told(
            frozenset(self.events.values()),
            self.accepted(),
            self.stats.webhooks,
            self.stats.given_up,
            cut,
            self._bookings,
        )

    async def _attempt(self, dialect: SimulatedAccount, webhook: Webhook) -> bool:
        try:
            return await super()._attempt(dialect, webhook)
        except AttributeError:  # by anyio, of a connection that ends just as it is made
            return False

    def _event(self, dialect: SimulatedAccount, webhook: Webhook) -> EventKey:
        now = datetime.now(UTC)
        vendor, account = dialect.url.split("/")[-2:]
        reader = self._readers[vendor, account]
        delivery = Delivery(
            webhook.query, Headers.of(dialect.headers(webhook, now).items()), webhook.body, now
        )
        event = reader.parse(reader.verify(delivery, now))
        self._bookings[event.source, event.id] = account, event.subject
        return event.source, event.id


def _filled(webhook: Webhook, filling: bytes) -> Webhook:
    """The same, with one more field, which no reader asks for."""
    return replace(webhook, body=b'{"filling":' + filling + b"," + webhook.body.removeprefix(b"{"))
