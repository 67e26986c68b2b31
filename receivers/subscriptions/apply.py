"""The manager of one account's subscriptions: plan, do, and plan again, until nothing is left to do."""

import random
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from ingest.errors import ConfigurationError, VendorRefused, VendorUnavailable, WarehouseUnavailable
from ingest.settings import Settings
from ingest.vendors.subscriptions import AnySubscriptions, SecretFrom, Subscription, fingerprint
from ingest.warehouse.deliveries import Arrivals, arrivals
from receivers.subscriptions.plan import CREATING, Action, Facts, Step, hides_secret, is_at, plan
from receivers.subscriptions.state import SubscriptionState, open_state
from receivers.subscriptions.webhook_secrets import SECRET_BYTES, Rotation, SecretStore

log = structlog.get_logger()

_ROUNDS = 5
_PAUSE_SECONDS = 0.1
# A shorter secret is somebody's own, whose fingerprint would tell too much.
_SHORTEST_OF_OURS = 32


@dataclass(frozen=True, slots=True)
class Permissions:
    """What may be changed beside what is clearly ours.

    `elsewhere`: what goes to another public URL. `take_over`: what may be somebody else's.
    """

    elsewhere: bool = False
    take_over: bool = False

    def allow(self, step: Step) -> bool:
        """Return whether a step may be done."""
        if step.action is Action.TAKE_OVER:
            return self.take_over
        return step.is_change and (self.elsewhere or not step.by_hand)


@dataclass(slots=True)
class Applied:
    """The steps that were done, and the plan after that: its changes were not allowed."""

    done: list[Step] = field(default_factory=list)
    plan: list[Step] = field(default_factory=list)

    @property
    def created(self) -> bool:
        """Whether something was made anew."""
        return any(step.action in CREATING for step in self.done)


class SubscriptionManager:
    """Brings the subscriptions of one account into the state that the settings want.

    Methods raise VendorUnavailable, VendorRefused and ConfigurationError. What is half done then is put right
    the next time.
    """

    def __init__(self, settings: Settings, subscriptions: AnySubscriptions, store: SecretStore) -> None:
        self.account = subscriptions.account
        self.state = open_state(settings, self.account)
        self._settings = settings
        self._subscriptions = subscriptions
        self._store = store
        self._has_fixed_secret = subscriptions.secret_from is SecretFrom.FIXED
        self._registered: list[Subscription] = []
        self._ids_before: set[str] = set()
        self._new_secrets: dict[str, str] = {}  # by slot
        self._doubtful_secrets: set[str] = set()  # those of creations whose answer was lost
        self._trouble = ""
        self._preexisting: tuple[str, ...] | None = None

    def plan(self, renew: frozenset[str] = frozenset()) -> list[Step]:
        """Return what is to be done, and do nothing. `renew`: ids of those to have another secret."""
        self._registered = self._subscriptions.registered()
        # What is there at the very first look may be another machine's, which depends on it.
        if self.state.exists():
            self._preexisting = self.state.read().preexisting
        elif self._preexisting is None:
            url = self.account.webhook_url
            self._preexisting = tuple(old.id for old in self._registered if is_at(url, old))
        fingerprints = self.state.read().fingerprints
        needs_arrivals = not self._subscriptions.tells_state or (
            not self._has_fixed_secret
            and any(hides_secret(subscription, fingerprints) for subscription in self._registered)
        )
        facts = Facts(
            url=self.account.webhook_url,
            fingerprints=fingerprints,
            live=None if self._has_fixed_secret else frozenset(map(fingerprint, self._store.live())),
            arrivals=self._read_arrivals() if needs_arrivals else Arrivals(),
            replaces=self._subscriptions.replaces,
            tells_state=self._subscriptions.tells_state,
            renew=renew,
            preexisting=frozenset(self._preexisting or ()),
        )
        return plan(self._subscriptions.needed(), self._registered, facts)

    def apply(self, permissions: Permissions) -> Applied:
        """Do what is planned and allowed. Other processes of this machine wait meanwhile."""
        with self.state.lock():
            return self._apply(permissions)

    def rotate(self) -> Applied:
        """Make all of ours anew, with a new secret beside the old one, which stays live."""
        name = self.account.name
        if self._has_fixed_secret:
            raise ConfigurationError(
                f"{self._subscriptions.rest.label}: {self.account.vendor} signs with the application's secret"
                f' key. First set accounts.{name}.webhook_secrets = ["new", "old"], then change the key'
                " at the vendor."
            )
        with self.state.lock():
            renewed = {Action.KEEP, Action.ADOPT}
            renew = frozenset(old.id for step in self.plan() if step.action in renewed for old in step.old)
            return self._apply(Permissions(), renew, rotating=True)

    def finish_rotation(self, *, force: bool) -> list[str]:
        """Drop the secrets that no subscription has, and return them.

        `force` does not wait until deliveries show that they are not seen any more.
        """
        with self.state.lock():
            used = self._fingerprints_in_use()
            # The vendor's answers have told its time by now.
            now = self._subscriptions.rest.now()
            rotation = Rotation(self._settings, self.account, self._store)
            return rotation.drop_old(used, self._subscriptions.retried, now, force=force)

    def ours(self) -> list[Subscription]:
        """Return the subscriptions at the vendor that are ours."""
        not_ours = {Action.LEAVE, Action.TAKE_OVER}
        return [old for step in self.plan() if step.action not in not_ours for old in step.old]

    def remove(self, ids: Collection[str]) -> list[Subscription]:
        """Remove those of ours that have these ids, or all of ours without any, and return them."""
        with self.state.lock():
            chosen = [subscription for subscription in self.ours() if not ids or subscription.id in ids]
            self._delete(chosen)
            removed = {subscription.id for subscription in chosen}
            state = self.state.read()
            fingerprints = {
                name: secret for name, secret in state.fingerprints.items() if name not in removed
            }
            self._write(replace(state, fingerprints=fingerprints))
        return chosen

    def close(self) -> None:
        """Close the connections to the vendor."""
        self._subscriptions.close()

    def _fingerprints_in_use(self) -> set[str]:
        """Return the fingerprints of the secrets that sign.

        Raises ConfigurationError where one is not known: it may be an old one.
        """
        if self._has_fixed_secret:
            return set()  # one secret is for all, and the settings say which
        label, name = self._subscriptions.rest.label, self.account.name
        steps = self.plan()
        if change := next((step for step in steps if step.is_change), None):
            raise ConfigurationError(
                f"{label}: the subscriptions are not as wanted ({change.why}), so no secret can be "
                f"removed safely: run `ingest webhooks apply {name}` first"
            )
        fingerprints = self.state.read().fingerprints
        used: set[str] = set()
        for subscription in [old for step in steps if step.action is Action.KEEP for old in step.old]:
            if hides_secret(subscription, fingerprints):
                raise ConfigurationError(
                    f"{label}: {subscription.id} was made by hand and its secret is not known, so no "
                    f"secret can be removed safely: run `ingest webhooks rotate {name}` first, which "
                    "makes it anew"
                )
            used |= {subscription.mark, fingerprints.get(subscription.id, "")} - {""}
        return used

    def _apply(
        self, permissions: Permissions, renew: frozenset[str] = frozenset(), *, rotating: bool = False
    ) -> Applied:
        """Plan and do, until nothing that is allowed is left to do."""
        applied = Applied()
        for attempt in range(_ROUNDS + 1):
            if attempt > 1:
                # Two processes that undo each other's work have to fall out of step.
                time.sleep(random.uniform(0, _PAUSE_SECONDS * 2**attempt))  # noqa: S311 - as above
            applied.plan = self.plan(renew)
            if attempt == 0:
                self._ids_before = {subscription.id for subscription in self._registered}
            allowed = [step for step in applied.plan if permissions.allow(step)]
            if not allowed:
                self._remember(applied.plan)
                return applied
            for step in allowed if attempt < _ROUNDS else ():
                self._do(step, rotating=rotating)
                applied.done.append(step)
        trouble = f" ({self._trouble})" if self._trouble else ": is somebody else changing it?"
        raise VendorUnavailable(
            f"{self._subscriptions.rest.label}: the subscriptions are not as wanted after {_ROUNDS} attempts"
            f"{trouble}"
        )

    def _do(self, step: Step, *, rotating: bool) -> None:
        log.info("subscription.change", source=self.account.source, kind=step.action.value, why=step.why)
        if step.action is Action.ADOPT:
            self._store_secret(step.old[0].id, step.old[0].secret)
        elif step.action is Action.REMOVE:
            self._delete(step.old)
        else:
            # What came up since the first look is ours of a lost answer, and nobody knows its secret.
            strays = [old for old in step.old if old.id not in self._ids_before]
            self._delete(strays)
            # Where a new one replaces the old, the two may have one id.
            if self._create(step, rotating=rotating) and not self._subscriptions.replaces:
                self._delete([old for old in step.old if old not in strays])

    def _delete(self, subscriptions: Sequence[Subscription]) -> None:
        for subscription in subscriptions:
            self._subscriptions.delete(subscription.id)

    def _create(self, step: Step, *, rotating: bool) -> bool:
        """Create a subscription; return False if it is unknown whether it was made."""
        if step.wanted is None:
            raise AssertionError(step.action)
        # Before anything changes, note that all since the last delivery is to be reconciled.
        state = self.state.read()
        since = self._read_arrivals().last or datetime.now(UTC) - self._settings.reconcile.lookback
        self._write(replace(state, unchecked_since=min(filter(None, (state.unchecked_since, since)))))
        secret = self._choose_secret(step.wanted.slot, rotating=rotating)
        try:
            created = self._subscriptions.create(step.wanted, secret)
        except VendorUnavailable as error:
            self._trouble = str(error)
            self._doubtful_secrets.add(secret)
            return False
        except VendorRefused:
            # A call whose answer was lost may have used the secret: then it stays.
            if secret in self._new_secrets.values() and secret not in self._doubtful_secrets:
                self._store.drop([secret])
                self._new_secrets = {slot: new for slot, new in self._new_secrets.items() if new != secret}
            raise
        self._store_secret(created.id, created.secret, chosen=secret)
        return True

    def _choose_secret(self, slot: str, *, rotating: bool) -> str:
        """Return a secret that is live before it is used, "" where it is not ours to make.

        A creation that came to nothing is repeated with the same secret.
        """
        if self._subscriptions.secret_from is SecretFrom.VENDOR:
            self._store.check()
        if self._subscriptions.secret_from is not SecretFrom.US:
            return ""
        if slot not in self._new_secrets:
            newest = next(iter(self._store.live()), "")
            used = {subscription.mark for subscription in self._registered}
            used |= set(self.state.read().fingerprints.values())
            if len(newest) >= _SHORTEST_OF_OURS and fingerprint(newest) not in used and not rotating:
                return newest
            secret = secrets.token_urlsafe(SECRET_BYTES)
            self._store.add(secret)
            self._new_secrets[slot] = secret
        return self._new_secrets[slot]

    def _store_secret(self, subscription_id: str, from_vendor: str, chosen: str = "") -> None:
        """Store the secret of a subscription, and then that the subscription is ours."""
        if from_vendor and from_vendor not in self._store.live():
            self._store.add(from_vendor)
        secret = from_vendor or chosen
        state = self.state.read()
        if subscription_id:
            mark = fingerprint(secret) if secret else ""
            state = replace(state, fingerprints={**state.fingerprints, subscription_id: mark})
        self._write(self._with_newest(state))

    def _write(self, state: SubscriptionState) -> None:
        self.state.write(replace(state, preexisting=self._preexisting or ()))

    def _with_newest(self, state: SubscriptionState) -> SubscriptionState:
        """Note the newest secret: what it has signed proves something of it only since it is the newest."""
        live = self._store.live()
        return state.with_newest(fingerprint(live[0])) if live else state

    def _remember(self, steps: Sequence[Step]) -> None:
        """Store which subscriptions are ours, even if public_url changes; forget those that are gone."""
        state = self.state.read()
        not_ours = {Action.LEAVE, Action.TAKE_OVER}
        # What was made by hand and delivers has the only live secret; of several, nobody knows which.
        live = () if self._has_fixed_secret else self._store.live()
        proven = fingerprint(live[0]) if len(live) == 1 else ""
        fingerprints = {
            old.id: state.fingerprints.get(old.id)
            or old.mark
            or (proven if step.action is Action.KEEP else "")
            for step in steps
            if step.action not in not_ours
            for old in step.old
        }
        if fingerprints != state.fingerprints:
            self._write(self._with_newest(replace(state, fingerprints=fingerprints)))

    def _read_arrivals(self) -> Arrivals:
        """Return what came of the account's webhooks, nothing if the warehouse cannot be asked.

        That must not keep a subscription from being registered.
        """
        try:
            return arrivals(self._settings, self.account.vendor, self.account.name)
        except WarehouseUnavailable as error:
            log.warning("subscription.arrivals_unknown", source=self.account.source, why=str(error))
            return Arrivals()
