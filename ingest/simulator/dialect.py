"""How a vendor tells the world's truth: its webhooks' bytes and signatures, and what a right reading of them is."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ingest.simulator.world import Change, Habits, Meeting


@dataclass(frozen=True, slots=True)
class Webhook:
    """One delivery as the vendor composes it once; retries and duplicates send the same body, signed anew."""

    query: str
    body: bytes
    message_id: str = ""


class Dialect(ABC):
    """A vendor's wire format, for one account whose webhook URL and secret it was given."""

    vendor: ClassVar[str]
    habits: ClassVar[Habits]

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The account's table in `ingest.toml`, without secrets."""

    @abstractmethod
    def webhook(self, change: Change) -> Webhook:
        """What the vendor sends of this change."""

    def tells_all(self, meeting: Meeting) -> bool:
        """Say whether the webhook of the meeting's latest change tells every column; what it leaves out, earlier webhooks tell."""
        return True

    @abstractmethod
    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        """What authenticates it when it is sent at this time."""

    @abstractmethod
    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        """Columns of `bookings` a right reading gives for this meeting, `booking_id` and `status` among them."""


def milliseconds(moment: datetime) -> str:
    """`2026-06-10T06:30:00.000Z`, as several vendors write instants."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def load_dialect(vendor: str) -> type[Dialect]:
    """The dialect's class, from the module named like the vendor."""
    module = importlib.import_module(f"ingest.simulator.{vendor}.webhooks")
    found: type[Dialect] = module.DIALECT
    return found
