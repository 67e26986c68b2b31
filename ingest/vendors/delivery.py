"""A webhook delivery as it came over HTTP, before and after it was found authentic."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ingest.errors import VerificationError


@dataclass(frozen=True, slots=True)
class Headers:
    """HTTP header lines with lower-case names, repetitions kept; values decoded as ISO 8859-1."""

    lines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, lines: Iterable[tuple[str, str]]) -> "Headers":
        """Names in any case."""
        return cls(tuple((name.lower(), value) for name, value in lines))

    def has(self, name: str) -> bool:
        """Whether a header is there, once or more often."""
        return any(own == name for own, _ in self.lines)

    def one(self, name: str) -> str:
        """The value of a header that must be there exactly once. Raises VerificationError."""
        values = [value for given, value in self.lines if given == name]
        if not values:
            raise VerificationError(f"missing header {name}")
        if len(values) > 1:
            raise VerificationError(f"header {name} came {len(values)} times: it must come once")
        return values[0]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST: the raw query of its URL, its headers, its raw body, and when we got it by this machine's clock.

    `received_by` is the same by a clock that was checked with a vendor's; None where none was lately.
    """

    query: str
    headers: Headers
    body: bytes
    received_at: datetime
    received_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a delivery is believed: which of the live secrets signed it ("1" is the first), and when it says it was sent."""

    signed_by: str
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VerifiedDelivery:
    """A delivery that `Account.verify` found authentic. Made there of a request, and by `from_log` of a dead letter; nowhere else."""

    delivery: Delivery
    proof: Proof

    @classmethod
    def from_log(
        cls, delivery: Delivery, signed_by: str, sent_at: datetime | None = None
    ) -> "VerifiedDelivery":
        """One that was verified when it arrived: nothing else gets into the log, and only the log may be its origin.

        It cannot be verified again: a dead letter keeps no credentials, and secrets change. `signed_by` is what was found
        then, "" where a letter of before does not tell.
        """
        return cls(delivery, Proof(signed_by, sent_at))

    @property
    def body(self) -> bytes:
        """The raw bytes that were signed."""
        return self.delivery.body

    @property
    def received_at(self) -> datetime:
        """When we got it."""
        return self.delivery.received_at
