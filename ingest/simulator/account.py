"""An account at a simulated vendor: the webhooks that the vendor sends, and the rows they should become."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ingest.simulator.world import Capabilities, Change, Meeting


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as the vendor composes it once; every attempt sends the same body, signed anew."""

    query: str
    body: bytes
    message_id: str = ""


class SimulatedAccount(ABC):
    """An account that knows its webhook URL and its secret, and the vendor's wire format."""

    vendor: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the account's table in `ingest.toml`, without secrets."""

    @abstractmethod
    def webhook(self, change: Change) -> Webhook:
        """Compose the webhook that the vendor sends about a change."""

    def is_complete(self, meeting: Meeting) -> bool:
        """Say whether the webhook about the meeting's latest change has a value for every column.

        The values that it leaves out are those of earlier webhooks.
        """
        return True

    @abstractmethod
    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        """Return the headers that authenticate a webhook sent at this time."""

    @abstractmethod
    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        """Return the expected columns of `bookings` for a meeting, `booking_id` and `status` among them."""


def format_milliseconds(moment: datetime) -> str:
    """Format an instant as several vendors do: `2026-06-10T06:30:00.000Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
