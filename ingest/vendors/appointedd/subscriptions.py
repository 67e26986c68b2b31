"""Appointedd's webhooks, which only its own screens can make: the steps, for a person to follow.

API v1: https://developers.appointedd.com/docs/webhooks. For API v2, the Enterprise Management Console has them.
"""

from ingest.vendors import Vendor
from ingest.vendors.appointedd import AppointeddAccount

_TRIGGERS = ("Booking created", "Booking updated", "Booking cancelled")


def manual_steps(vendor: Vendor[AppointeddAccount], *, show_secret: bool) -> list[str]:
    """One webhook takes one trigger."""
    where = (
        "the Enterprise Management Console, Webhooks V2"
        if vendor.account.api == "v2"
        else "app.appointedd.com, Connect, Create webhooks"
    )
    made = [
        f"{number}. make one with trigger “{trigger}”, URL {vendor.webhook_url}"
        for number, trigger in enumerate(_TRIGGERS, 1)
    ]
    return [f"in {where}:", *made, f"in each: {_authentication(vendor.account, show_secret=show_secret)}"]


def _authentication(account: AppointeddAccount, *, show_secret: bool) -> str:
    newest = next(iter(account.live_secrets()), "")
    missing = [
        name
        for name, there in (("webhook_header", account.credential_header), ("webhook_secrets", newest))
        if not there
    ]
    if missing:
        return f"a custom header; first set accounts.{account.name}.{' and '.join(missing)}"
    value = (
        newest
        if show_secret
        else f"the first of accounts.{account.name}.webhook_secrets (--print-secrets shows it)"
    )
    if account.webhook_user:
        return f"basic authentication, user {account.webhook_user}, password {value}"
    return f"custom header {account.webhook_header}, value {value}"
