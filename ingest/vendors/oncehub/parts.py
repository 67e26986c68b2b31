"""The parts of OnceHub's booking. https://help.oncehub.com/developers/api/"""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

from ingest.vendors.fields import OBJECTS, REFERENCE, AnyText, MaybeAmount, Payload, Text

# Digits after the point, where ISO 4217 does not have two.
_ZERO = (
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "ISK",
    "JPY",
    "KMF",
    "KRW",
    "PYG",
    "RWF",
    "UGX",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
)
_THREE = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
_EXPONENTS = dict.fromkeys(_ZERO, 0) | dict.fromkeys(_THREE, 3)


def _addresses(value: object) -> object:
    """One entry for each person: an e-mail address, or None where there is somebody without one."""
    entries = value if isinstance(value, list | tuple) else ()
    return [entry.get("email") if isinstance(entry, dict) else entry for entry in entries if entry]


ADDRESSES = BeforeValidator(_addresses)


class Reference(Payload):
    """Another object, by its id at least."""

    id: Text = None


class User(Reference):
    """A host."""

    first_name: Text = None
    last_name: Text = None
    email: Text = None

    @property
    def name(self) -> str | None:
        """First and last name."""
        return " ".join(part for part in (self.first_name, self.last_name) if part) or None


class Contact(User):
    """A customer, apart from any booking."""

    phone: Text = None
    mobile_phone: Text = None


class Question(Payload):
    """What a conversation asked, with the answer."""

    question: Text = None
    value: AnyText = None


class Field(Payload):
    """A custom field."""

    name: Text = None
    value: AnyText = None


Fields = Annotated[tuple[Field, ...], OBJECTS]


class Conversation(Reference):
    """Of a chatbot or routing form; by REST it may be but an id."""

    contact: Annotated[Contact | None, REFERENCE] = None
    owner: Annotated[User | None, REFERENCE] = None
    answers: Annotated[tuple[Question, ...], OBJECTS] = ()


class Conferencing(Payload):
    """Where the call is."""

    join_url: Text = None


class Change(Payload):
    """Why a booking was moved or cancelled."""

    reason: Text = None
    actioned_by: Text = None


class Form(Payload):
    """What the customer entered to book."""

    name: Text = None
    email: Text = None
    phone: Text = None
    mobile_phone: Text = None
    guests: Annotated[tuple[Text, ...], ADDRESSES] = ()
    custom_fields: Fields = ()


class Payment(Payload):
    """What was charged."""

    amount_charged: MaybeAmount = None
    currency: Text = None

    def price(self) -> tuple[Decimal, str] | tuple[None, None]:
        """Return the amount in major units and its currency: minor units mean nothing without one."""
        if self.amount_charged is None or self.currency is None:
            return None, None
        currency = self.currency.upper()
        return self.amount_charged.scaleb(-_EXPONENTS.get(currency, 2)), currency


class Calendar(Payload):
    """The host's calendar, often named by the host's address."""

    id: Text = None
    name: Text = None
