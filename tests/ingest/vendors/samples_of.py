"""Sample deliveries, read from `samples/<vendor>/<case>/`; the README there describes the format."""

import importlib
import inspect
import json
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import VerificationError
from ingest.times import parse_instant
from ingest.vendors import AnyAccount, Delivery, VerifiedDelivery, load_account_class
from ingest.vendors.delivery import Headers

FOLDER = Path(__file__).with_name("samples")

_INSTANTS = {"starts_at", "ends_at", "created_at", "updated_at", "cancelled_at"}


@dataclass(frozen=True, slots=True)
class Case:
    """A case's folder, not read yet, so that one bad file fails its own tests only.

    Reading it earlier would fail the collection of all tests.
    """

    vendor: str
    name: str

    def __str__(self) -> str:
        return f"{self.vendor}/{self.name}"

    @property
    def folder(self) -> Path:
        """Return the folder of the case's files."""
        return FOLDER / self.vendor / self.name

    def has_record(self) -> bool:
        """Return whether the case shows the REST shape too."""
        return (self.folder / "record.json").exists()


@dataclass(frozen=True, slots=True)
class Sample:
    """A case as it was read: `given` is delivery.json."""

    case: Case
    given: dict[str, Any]
    body: bytes
    booking: Booking | None
    record: dict[str, object] | None

    @property
    def now(self) -> datetime:
        """Return when the delivery was received."""
        return parse_instant(self.given["now"])

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the headers as they were sent."""
        return [(name, value) for name, value in self.given["headers"]]

    @property
    def delivery(self) -> Delivery:
        """Return the delivery as the receiver got it."""
        return Delivery(self.given["query"], Headers.of(self.headers), self.body, self.now)

    def vendor(self, **settings: object) -> AnyAccount:
        """Return the sample's account, changed by these settings."""
        account_class = _account_class(self.case.vendor)
        table = {"name": "sales", "vendor": self.case.vendor, **self.given["account"], **settings}
        return account_class(account_class.settings_model.model_validate(table), self.given["public_url"])

    def verified(self) -> VerifiedDelivery:
        """Verify the delivery and return it."""
        return self.vendor().verify(self.delivery, self.now)

    def with_headers(self, headers: list[tuple[str, str]]) -> Delivery:
        """Return the delivery with other headers."""
        return replace(self.delivery, headers=Headers.of(headers))

    def headers_but(self, name: str) -> list[tuple[str, str]]:
        """Return every header except that one."""
        return [line for line in self.headers if line[0] != name]

    def is_believed(self, delivery: Delivery) -> bool:
        """Return whether the sample's account finds the delivery authentic."""
        try:
            self.vendor().verify(delivery, self.now)
        except VerificationError:
            return False
        return True

    def signed(self, body: bytes) -> Delivery:
        """Return a delivery with another body, as the vendor would sign it.

        The sample's other headers are left out.
        """
        account = self.vendor()
        query = self.given["query"]
        parts = {
            "settings": account.settings,
            "secret": next(iter(account.settings.live_secrets()), ""),
            "url": f"{account.webhook_url}?{query}",
            "body": body,
            "message_id": "message-1",
            "at": self.now,
        }
        headers = _signer(self.case.vendor)(**{part: parts[part] for part in signed_parts(self.case.vendor)})
        return Delivery(query, Headers.of(headers.items()), body, self.now)


@cache
def _account_class(vendor: str) -> type[AnyAccount]:
    return load_account_class(vendor)


@cache
def load(case: Case) -> Sample:
    """Read all files of the case."""
    record = (case.folder / "record.json").read_bytes() if case.has_record() else None
    return Sample(
        case=case,
        given=json.loads((case.folder / "delivery.json").read_bytes()),
        body=(case.folder / "body").read_bytes(),
        booking=_booking(json.loads((case.folder / "booking.json").read_bytes())),
        record=json.loads(record) if record else None,
    )


@cache
def credentials(case: Case) -> tuple[str, ...]:
    """Return the names of the headers without which the sample is not believed."""
    sample = load(case)
    return tuple(
        name
        for name, _ in sample.headers
        if not sample.is_believed(sample.with_headers(sample.headers_but(name)))
    )


def cases_of(vendor: str) -> list[Case]:
    """Return every case of a vendor; none where it has no samples."""
    folder = FOLDER / vendor
    return (
        [Case(vendor, path.name) for path in sorted(folder.iterdir()) if path.is_dir()]
        if folder.is_dir()
        else []
    )


def vendors_with_samples() -> list[str]:
    """Return the vendors that have a folder here."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def signed_parts(vendor: str) -> set[str]:
    """Return the names of the parameters of the vendor's `sign`.

    A vendor whose `sign` takes no `body` does not sign it.
    """
    return set(inspect.signature(_signer(vendor)).parameters)


def _signer(vendor: str) -> Any:
    return importlib.import_module(f"ingest.vendors.{vendor}").sign


def _booking(expected: dict[str, Any] | None) -> Booking | None:
    if expected is None:
        return None
    fields: dict[str, Any] = {
        name: parse_instant(value) if name in _INSTANTS else value for name, value in expected.items()
    }
    fields["status"] = BookingStatus(fields["status"])
    fields |= {name: tuple(fields.get(name, ())) for name in ("staff", "guests")}
    fields["answers"] = tuple(Answer(**answer) for answer in fields.get("answers", ()))
    fields["untold"] = frozenset(fields.get("untold", ()))
    fields["price"] = Decimal(fields["price"]) if "price" in fields else None
    return Booking(**fields)
