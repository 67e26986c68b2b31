"""What every vendor's account has in the settings; a vendor adds its own fields by subclassing."""

import json
import re
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from ingest.address import WebAddress
from ingest.duration import Duration


def split_list(text: str) -> list[str]:
    """The items of a list that is one text, separated by commas or line ends; blanks around an item do not count.

    A list as JSON and TOML write it, `["a", "b"]`, is read as such.
    """
    with suppress(ValueError):
        items = json.loads(text)
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return [item.strip() for item in items if item.strip()]
    return [item.strip() for item in re.split(r"[,\r\n]", text) if item.strip()]


def _as_list(value: object) -> object:
    return split_list(value) if isinstance(value, str) else value


def _none_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(secret.get_secret_value().strip() for secret in secrets):
        raise ValueError("a secret is empty: anybody could sign with that")
    return secrets


Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_as_list), AfterValidator(_none_empty)]
EVENTS = "List of events that webhooks are created for, in the vendor's words."  # what vendors' accounts say about `events`
Words = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class AccountSettings(BaseModel):
    """One account of one vendor. Its name is in its webhook URL: `/webhooks/<vendor>/<name>`.

    `tolerance` is unlimited by default, because a vendor that retries with the first attempt's timestamp would otherwise have
    every retry refused, and its webhook switched off; a replayed delivery changes nothing, since it has the id of the first.
    `rest_credentials` are the sets of settings of which one must be complete to read the vendor's REST side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = ()

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    vendor: str = Field(description="`calendly`, `oncehub`, `appointedd` or `bookeo`.")
    webhook_secrets: Secrets = Field(
        (), description="List of secrets; a delivery may be signed with any of them."
    )
    tolerance: Duration | None = Field(
        None, description="How old a signed delivery may be. Unlimited by default."
    )
    api_url: WebAddress | None = Field(
        None, description="Another base URL of the vendor's REST API, for tests and proxies."
    )
    rate_limit: int | None = Field(
        None,
        ge=0,
        description="REST requests per minute, instead of the vendor's limit for an account; the vendor's limit for an IP address still applies."
        " `0` switches both off.",
    )

    def live_secrets(self) -> tuple[str, ...]:
        """The webhook secrets any of which may sign, newest first; empty when none is configured."""
        return tuple(secret.get_secret_value() for secret in self.webhook_secrets)

    def can_read(self) -> bool:
        """Whether the settings have what the REST side needs."""
        return any(all(getattr(self, name) for name in names) for names in self.rest_credentials)

    def rest_needs(self) -> str:
        """The settings that the REST side needs, in words."""
        return ", or ".join(" + ".join(names) for names in self.rest_credentials)

    def rest_fingerprint(self) -> str:
        """Tell one REST credential from another without showing it: a digest of the settings that open the REST side."""
        names = sorted({name for names in self.rest_credentials for name in names})
        values = [getattr(self, name) for name in names]
        told = [value.get_secret_value() if isinstance(value, SecretStr) else value for value in values]
        return sha256(repr([self.vendor, *zip(names, told, strict=True)]).encode()).hexdigest()

    def can_reconcile(self) -> bool:
        """Whether bookings can be compared too, not only synced."""
        return self.can_read()

    def reconcile_needs(self) -> str:
        """The settings that comparing needs, in words."""
        return self.rest_needs()
