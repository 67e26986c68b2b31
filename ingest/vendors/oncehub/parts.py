"""The parts of OnceHub's booking.

https://help.oncehub.com/developers/api/
"""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

from ingest.vendors.fields import OBJECTS, REFERENCE, AnyText, MaybeAmount, Payload, Text

# Currencies whose number of digits after the point is not two. ISO 4217.
_WITHOUT_DIGITS = (
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
_WITH_THREE_DIGITS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
_EXPONENTS = dict.fromkeys(_WITHOUT_DIGITS, 0) | dict.fromkeys(_WITH_THREE_DIGITS, 3)


def _addresses(value: object) -> object:
    """Return one entry for each person: the e-mail address, or None where there is none."""
    entries = value if isinstance(value, list | tuple) else ()
    return [entry.get("email") if isinstance(entry, dict) else entry for entry in entries if entry]


ADDRESSES = BeforeValidator(_addresses)


class Reference(Payload):
    """A reference to another object, which has at least the object's id."""

    id: Text = None


class User(Reference):
    """A host."""

    first_name: Text = None
    last_name: Text = None
    email: Text = None

    @property
    def name(self) -> str | None:
        """Return the first and the last name."""
        return " ".join(part for part in (self.first_name, self.last_name) if part) or None


class Contact(User):
    """A customer, independent of any booking."""

    phone: Text = None
    mobile_phone: Text = None


class Question(Payload):
    """A question of a conversation, with its answer."""

    question: Text = None
    value: AnyText = None


class Field(Payload):
    """A custom field."""

    name: Text = None
    value: AnyText = None


Fields = Annotated[tuple[Field, ...], OBJECTS]


class Conversation(Reference):
    """A conversation with a chatbot or a routing form. In REST it may be only an id."""

    contact: Annotated[Contact | None, REFERENCE] = None
    owner: Annotated[User | None, REFERENCE] = None
    answers: Annotated[tuple[Question, ...], OBJECTS] = ()


class Conferencing(Payload):
    """The video call."""

    join_url: Text = None


class Change(Payload):
    """The reason for moving or cancelling a booking."""

    reason: Text = None
    actioned_by: Text = None


class Form(Payload):
    """The form that the customer filled in."""

    name: Text = None
    email: Text = None
    phone: Text = None
    mobile_phone: Text = None
    guests: Annotated[tuple[Text, ...], ADDRESSES] = ()
    custom_fields: Fields = ()


class Payment(Payload):
    """The amount that was charged."""

    amount_charged: MaybeAmount = None
    currency: Text = None

    def price(self) -> tuple[Decimal, str] | tuple[None, None]:
        """Return the amount in major units and its currency, or None for both.

        The vendor's amount is in minor units, which mean nothing without a currency.
        """
        if self.amount_charged is None or self.currency is None:
            return None, None
        currency = self.currency.upper()
        return self.amount_charged.scaleb(-_EXPONENTS.get(currency, 2)), currency


class Calendar(Payload):
    """The host's calendar, often named by the host's address."""

    id: Text = None
    name: Text = None
