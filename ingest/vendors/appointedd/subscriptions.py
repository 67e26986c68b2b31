"""The steps to create Appointedd's webhooks by hand, because Appointedd has no API for them.

With API v1: https://developers.appointedd.com/docs/webhooks.
With API v2, webhooks are created in the Enterprise Management Console.
"""

from ingest.vendors import Account
from ingest.vendors.appointedd import AppointeddSettings

_TRIGGERS = ("Booking created", "Booking updated", "Booking cancelled")


def manual_steps(account: Account[AppointeddSettings], *, show_secret: bool) -> list[str]:
    """Return the steps for a person to follow. Each webhook has one trigger."""
    site = (
        "the Enterprise Management Console, Webhooks V2"
        if account.settings.api == "v2"
        else "app.appointedd.com, Connect, Create webhooks"
    )
    steps = [
        f"{number}. make one with trigger “{trigger}”, URL {account.webhook_url}"
        for number, trigger in enumerate(_TRIGGERS, 1)
    ]
    return [f"in {site}:", *steps, f"in each: {_authentication(account.settings, show_secret=show_secret)}"]


def _authentication(settings: AppointeddSettings, *, show_secret: bool) -> str:
    """Return the header to enter in the webhook form, or the settings to set first."""
    newest = next(iter(settings.live_secrets()), "")
    missing = [
        name
        for name, value in (("webhook_header", settings.credential_header), ("webhook_secrets", newest))
        if not value
    ]
    if missing:
        return f"a custom header; first set accounts.{settings.name}.{' and '.join(missing)}"
    value = (
        newest
        if show_secret
        else f"the first of accounts.{settings.name}.webhook_secrets (--print-secrets shows it)"
    )
    if settings.webhook_user:
        return f"basic authentication, user {settings.webhook_user}, password {value}"
    return f"custom header {settings.webhook_header}, value {value}"
