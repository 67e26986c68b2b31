"""The end of a rotation: when the old secrets may go, and which those are."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ingest.clock import is_future
from ingest.errors import ConfigurationError
from ingest.vendors.subscriptions import fingerprint
from receivers.subscriptions.secret_store import Keyring
from receivers.subscriptions.state import StateFile

# When the newest deliveries since then came: that none of these had signed, and that one of them had; by their places, from "1" on.
Signed = Callable[[datetime, Sequence[str]], tuple[datetime | None, datetime | None]]


def spent(live: Sequence[str], used: Collection[str]) -> list[str]:
    """Of the live secrets, newest first, those that no subscription has (`used`: fingerprints); the newest never is."""
    return [secret for secret in live[1:] if fingerprint(secret) not in used]


def obstacle(
    since: datetime, by_new: datetime | None, by_old: datetime | None, retried: timedelta, now: datetime
) -> str:
    """Why not yet, "" when nothing speaks against it: by whose deliveries came since the newest secret is that.

    What an old one has signed may come again for as long as the vendor tries it (`retried`).
    """
    quiet = max(filter(None, (since, by_old))) + retried
    if now < quiet:
        return f"until {quiet:%Y-%m-%d %H:%M} UTC the vendor may send again what an old secret signed"
    if by_new is None:
        return "no delivery signed with the new secret was loaded since the rotation"
    return ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is waited for: that nothing an old secret signed comes any more. `force` does not wait."""

    signed: Signed
    retried: timedelta
    force: bool


def end(
    keyring: Keyring, file: StateFile, used: Collection[str], waiting: Waiting, now: datetime
) -> list[str]:
    """Drops the old secrets and returns them; `now` is by the vendor's clock. Hold the account's lock. Raises ConfigurationError."""
    live = keyring.live()
    old = spent(live, used)
    if not old:
        return []
    state, first = file.read(), fingerprint(live[0])
    since = state.first_since(first)
    if since is None or is_future(since, now):
        file.write(replace(state, first=first, rotated_at=now))
        raise ConfigurationError(
            f"account {file.account}: it was not known since when the newest secret is the first; from now on it is, so come back later"
        )
    places = [str(place) for place, secret in enumerate(live, 1) if secret in old]
    why_not = "" if waiting.force else obstacle(since, *waiting.signed(since, places), waiting.retried, now)
    if why_not:
        raise ConfigurationError(f"account {file.account}: {why_not}; wait, or use --force")
    keyring.drop(old)
    return old
