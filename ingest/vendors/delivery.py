"""A webhook delivery as it came over HTTP, before and after it was verified."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ingest.errors import VerificationError


@dataclass(frozen=True, slots=True)
class Headers:
    """HTTP header lines with lower-case names and values decoded as ISO 8859-1; a header may be there several times."""

    lines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, lines: Iterable[tuple[str, str]]) -> "Headers":
        """Make headers of lines whose names may be in any case."""
        return cls(tuple((name.lower(), value) for name, value in lines))

    def has(self, name: str) -> bool:
        """Return whether a header is there, once or more often."""
        return any(line_name == name for line_name, _ in self.lines)

    def get_single(self, name: str) -> str:
        """Return the value of a header that must be there exactly once. Raises VerificationError."""
        values = [value for line_name, value in self.lines if line_name == name]
        if not values:
            raise VerificationError(f"missing header {name}")
        if len(values) > 1:
            raise VerificationError(f"header {name} came {len(values)} times: it must come once")
        return values[0]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST: the raw query of its URL, its headers, its raw body, and when it was received by this machine's clock.

    `received_by` is the same by a clock that was compared with a vendor's; None where none was lately.
    """

    query: str
    headers: Headers
    body: bytes
    received_at: datetime
    received_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a verification: which of the live secrets signed ("1" is the first), and when the delivery says it was sent."""

    signed_by: str
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VerifiedDelivery:
    """A delivery that `Account.verify` found authentic. Only `verify` makes one of a request, and only `from_log` of a dead letter."""

    delivery: Delivery
    proof: Proof

    @classmethod
    def from_log(
        cls, delivery: Delivery, signed_by: str, sent_at: datetime | None = None
    ) -> "VerifiedDelivery":
        """Make one of a delivery that was verified when it arrived. Only the log may be its origin, which has no others.

        It cannot be verified again: a dead letter keeps no credentials, and secrets change. `signed_by` is the result of the
        verification then, and "" where an older letter does not have it.
        """
        return cls(delivery, Proof(signed_by, sent_at))

    @property
    def body(self) -> bytes:
        """Return the raw bytes that were signed."""
        return self.delivery.body

    @property
    def received_at(self) -> datetime:
        """Return when the delivery was received."""
        return self.delivery.received_at
