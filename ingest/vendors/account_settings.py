"""The settings that an account of every vendor has. A vendor adds its own settings in a subclass."""

import json
import re
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from ingest.address import WebAddress
from ingest.times import Duration
from ingest.vendors.registry import vendor_names


def split_list(text: str) -> list[str]:
    """Return the items of a list that is written as text.

    Items are separated by commas or line ends, and blanks around them are removed. A list in the notation of
    JSON and TOML, `["a", "b"]`, is accepted too.
    """
    with suppress(ValueError):
        items = json.loads(text)
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return [item.strip() for item in items if item.strip()]
    return [item.strip() for item in re.split(r"[,\r\n]", text) if item.strip()]


def as_list(value: object) -> object:
    """Return the items of a text; any other value unchanged, for pydantic to check."""
    return split_list(value) if isinstance(value, str) else value


def _refuse_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(secret.get_secret_value().strip() for secret in secrets):
        raise ValueError("a secret is empty: anybody could sign with that")
    return secrets


Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(as_list), AfterValidator(_refuse_empty)]
Words = Annotated[tuple[str, ...], BeforeValidator(as_list), Field(min_length=1)]
# The description that vendors' settings have for their field `events`.
_VENDORS = ", ".join(f"`{name}`" for name in vendor_names())
EVENTS_DESCRIPTION = "List of events that webhooks are created for, in the vendor's words."


class AccountSettings(BaseModel):
    """One account of one vendor. Its name is in its webhook URL: `/webhooks/<vendor>/<name>`.

    `rest_credentials` are sets of settings, one of which must be complete to use the vendor's REST side. It
    is empty for a vendor without a REST side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = ()

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    vendor: str = Field(description=f"{' or '.join(_VENDORS.rsplit(', ', 1))}.")
    webhook_secrets: Secrets = Field(
        (), description="List of secrets; a delivery may be signed with any of them."
    )
    # Unlimited by default: otherwise every retry of a vendor that repeats the first attempt's timestamp would
    # be refused, and the vendor would switch the webhook off. A repeated delivery changes nothing, because it
    # has the id of the first one.
    tolerance: Duration | None = Field(
        None, description="How old a signed delivery may be. Unlimited by default."
    )
    api_url: WebAddress | None = Field(
        None, description="Another base URL of the vendor's REST API, for tests and proxies."
    )
    rate_limit: int | None = Field(
        None,
        ge=0,
        description=(
            "REST requests per minute, instead of the vendor's limit for an account;"
            " the vendor's limit for an IP address still applies. `0` switches both off."
        ),
    )

    def live_secrets(self) -> tuple[str, ...]:
        """Return the webhook secrets, newest first. A delivery may be signed with any of them."""
        return tuple(secret.get_secret_value() for secret in self.webhook_secrets)

    def can_read(self) -> bool:
        """Return whether the settings have what the REST side needs."""
        return any(all(getattr(self, name) for name in names) for names in self.rest_credentials)

    def rest_needs(self) -> str:
        """Return the settings that the REST side needs, in words; "" where the vendor has no REST side."""
        return ", or ".join(" + ".join(names) for names in self.rest_credentials)

    def without_rest(self) -> str:
        """Return the message that the vendor has no REST side."""
        return f"{self.vendor} has no REST side here, only webhooks"

    def rest_fingerprint(self) -> str:
        """Return a digest of the REST credential, which identifies the credential without showing it."""
        names = sorted({name for names in self.rest_credentials for name in names})
        fields = [getattr(self, name) for name in names]
        values = [field.get_secret_value() if isinstance(field, SecretStr) else field for field in fields]
        return sha256(repr([self.vendor, *zip(names, values, strict=True)]).encode()).hexdigest()

    def can_reconcile(self) -> bool:
        """Return whether bookings can be compared too, not only synced."""
        return self.can_read()

    def reconcile_needs(self) -> str:
        """Return the settings that comparing needs, in words."""
        return self.rest_needs()
