"""What every vendor's account has in the settings; a vendor adds its own fields by subclassing."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from ingest.duration import Duration


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _none_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(secret.get_secret_value().strip() for secret in secrets):
        raise ValueError("a secret is empty: anybody could sign with that")
    return secrets


Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split), AfterValidator(_none_empty)]
Words = Annotated[tuple[str, ...], BeforeValidator(_split), Field(min_length=1)]


class Account(BaseModel):
    """One account of one vendor. Its name is in its webhook URL: `/webhooks/<vendor>/<name>`.

    `tolerance` is how old a correctly signed delivery may be. It is unlimited by default, because a vendor that
    retries with the first attempt's timestamp would otherwise have every retry refused, and its webhook switched off;
    a replayed delivery changes nothing, since it has the id of the first. `rate_limit` is how many REST requests a minute we
    send at most, in place of what the vendor allows an account (not of what it allows an address); 0 for as many as it answers. `rest_credentials` are the sets of
    settings of which one must be complete to read the vendor's REST side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = ()

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    vendor: str
    webhook_secrets: Secrets = ()
    tolerance: Duration | None = None
    api_url: str | None = None
    rate_limit: int | None = Field(None, ge=0)

    def live_secrets(self) -> tuple[str, ...]:
        """The webhook secrets any of which may sign, newest first; empty when none is configured."""
        return tuple(secret.get_secret_value() for secret in self.webhook_secrets)

    def can_read(self) -> bool:
        """Whether the settings have what the REST side needs."""
        return any(all(getattr(self, name) for name in names) for names in self.rest_credentials)

    def rest_needs(self) -> str:
        """The settings that the REST side needs, in words."""
        return ", or ".join(" + ".join(names) for names in self.rest_credentials)

    def can_reconcile(self) -> bool:
        """Whether bookings can be compared too, not only synced."""
        return self.can_read()

    def reconcile_needs(self) -> str:
        """The settings that comparing needs, in words."""
        return self.rest_needs()
