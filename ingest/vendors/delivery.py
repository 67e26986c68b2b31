"""A webhook delivery as it arrived over HTTP, before and after its verification."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec import Struct

from ingest.errors import VerificationError


class Headers(Struct, frozen=True):
    """The header lines of an HTTP request, as ASGI has them: names in lower case, and a name may be repeated.

    As text they are decoded as ISO 8859-1.
    """

    raw: Sequence[tuple[bytes, bytes]]

    @classmethod
    def of(cls, lines: Iterable[tuple[str, str]]) -> "Headers":
        """Return headers of lines whose names may be in any case."""
        return cls(
            [
                (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
                for name, value in lines
            ]
        )

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return all lines as text."""
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw)

    def has(self, name: str) -> bool:
        """Return whether a header is there at least once."""
        return any(line_name == name.encode() for line_name, _ in self.raw)

    def get_single(self, name: str) -> str:
        """Return the value of a header that must be there exactly once. Raises VerificationError."""
        raw_name = name.encode()
        values = [value for line_name, value in self.raw if line_name == raw_name]
        if not values:
            raise VerificationError(f"missing header {name}")
        if len(values) > 1:
            raise VerificationError(f"header {name} came {len(values)} times: it must come once")
        return values[0].decode("latin-1")

    def declared_length(self) -> int:
        """Return the length of the body by its header, 0 where that does not say it."""
        text = next((value for name, value in self.raw if name == b"content-length"), b"")
        return int(text) if text.isdigit() else 0


# Frozen ones take three times as long to make, and one is made of each delivery; nothing changes them.
@dataclass(slots=True, unsafe_hash=True)
class Delivery:
    """One POST request, whose body and query are as the vendor sent them.

    `received_at` is the time of arrival by this machine's clock. `received_by` is the same by a clock that
    was compared with a vendor's clock; it is None where there was no such comparison lately.
    """

    query: str
    headers: Headers
    body: bytes
    received_at: datetime
    received_by: datetime | None = None


class Proof(Struct, frozen=True):
    """The result of a verification.

    `signed_by` says which of the live secrets signed the delivery; "1" is the first. `sent_at` is the time of
    sending that the delivery states.
    """

    signed_by: str
    sent_at: datetime | None = None


class VerifiedDelivery(Struct, frozen=True):
    """A delivery that is authentic.

    Only `Account.verify` makes one of a request, and only `from_log` makes one of a dead letter.
    """

    delivery: Delivery
    proof: Proof

    @classmethod
    def from_log(
        cls, delivery: Delivery, signed_by: str, sent_at: datetime | None = None
    ) -> "VerifiedDelivery":
        """Return a verified delivery of one that was verified when it arrived.

        The delivery must come from the log, which only has verified ones. It cannot be verified again,
        because dead letters keep no credentials, and secrets change. `signed_by` is the result of the first
        verification, or "" where an older dead letter lacks it.
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
