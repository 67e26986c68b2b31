"""The end of a rotation: when the old secrets may go, and which those are. Pure."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from ingest.vendors.subscriptions import fingerprint

# The old one is not seen any more when it signed nothing for so long.
_QUIET = timedelta(hours=1)


def spent(live: Sequence[str], used: Collection[str]) -> list[str]:
    """Of the live secrets, newest first, those that no subscription has (`used`: fingerprints); the newest never is."""
    return [secret for secret in live[1:] if fingerprint(secret) not in used]


def obstacle(by_new: datetime | None, by_old: datetime | None, now: datetime) -> str:
    """Why not yet, "" when nothing speaks against it: what the newest delivery since the rotation says, by which secret signed it."""
    if by_new is None:
        return "no delivery signed with the new secret was loaded since the rotation"
    if by_old and now - by_old < _QUIET:
        return f"a delivery signed with an old secret came at {by_old:%H:%M} UTC, less than an hour ago"
    return ""
