"""One account's subscriptions put right: look, do what differs, and look again, until nothing does."""

import random
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog

from ingest.errors import ConfigurationError, VendorRefused, VendorUnavailable, WarehouseUnavailable
from ingest.vendors.subscriptions import AnySubscriptions, Registered, SecretFrom, fingerprint
from receivers.subscriptions.plan import CREATING, Facts, Heard, Kind, Step, hides_secret, is_at, plan
from receivers.subscriptions.rotation import Signed, Waiting, end
from receivers.subscriptions.secret_store import Keyring
from receivers.subscriptions.state import State, StateFile

log = structlog.get_logger()

_ROUNDS = 5
_PAUSE = 0.1
# A shorter secret is somebody's own, whose fingerprint would tell too much.
_OURS = 32


@dataclass(frozen=True, slots=True)
class Allowed:
    """`elsewhere`: change what goes to another public URL. `take_over`: take the only place from a URL that is not ours."""

    elsewhere: bool = False
    take_over: bool = False

    def covers(self, step: Step) -> bool:
        """Whether it may be done."""
        if step.kind is Kind.TAKE_OVER:
            return self.take_over
        return step.is_change and (self.elsewhere or not step.by_hand)


@dataclass(slots=True)
class Outcome:
    """What was done, and how it is now: differences are those that were not allowed."""

    done: list[Step] = field(default_factory=list)
    now: list[Step] = field(default_factory=list)


class Registrar:
    """Everything raises VendorUnavailable, VendorRefused, ConfigurationError; then whatever is half done is put right the next time."""

    def __init__(
        self,
        side: AnySubscriptions,
        keyring: Keyring,
        state: StateFile,
        lookback: timedelta,
        heard: Callable[[], Heard],
    ) -> None:
        """`lookback`: how far back webhooks may have been missed where none ever came."""
        self.side = side
        self.state = state
        self._keyring = keyring
        self._lookback = lookback
        self._heard = heard
        self._registered: list[Registered] = []
        self._before: set[str] = set()
        self._fresh: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self._trouble = ""
        self._strange: tuple[str, ...] | None = None

    def look(self, renew: frozenset[str] = frozenset()) -> list[Step]:
        """What differs; nothing is changed. `renew`: ids of those that are to have another secret."""
        self._registered = self.side.registered()
        self._meet()
        fixed = self.side.secret_from is SecretFrom.FIXED
        made = self.state.read().made
        asks_arrivals = not self.side.tells_state or (
            not fixed and any(hides_secret(one, made) for one in self._registered)
        )
        facts = Facts(
            url=self.side.account.webhook_url,
            made=made,
            live=None if fixed else frozenset(map(fingerprint, self._keyring.live())),
            heard=self._arrivals() if asks_arrivals else Heard(),
            replaces=self.side.replaces,
            tells_state=self.side.tells_state,
            renew=renew,
            strange=frozenset(self._strange or ()),
        )
        return plan(self.side.wanted(), self._registered, facts)

    def _meet(self) -> None:
        """What is there at the very first look may be what another machine made, and lives by."""
        if self.state.is_known():
            self._strange = self.state.read().strange
        elif self._strange is None:
            self._strange = tuple(
                one.id for one in self._registered if is_at(self.side.account.webhook_url, one)
            )

    def close(self) -> None:
        """Its connections."""
        self.side.close()

    def apply(self, allowed: Allowed) -> Outcome:
        """Alone with the account on this machine; what somebody elsewhere does meanwhile is seen in the next look."""
        with self.state.alone():
            return self._settle(allowed)

    def rotate(self) -> Outcome:
        """All of ours anew, with a new secret beside the old, which stays live."""
        if self.side.secret_from is SecretFrom.FIXED:
            raise ConfigurationError(
                f"{self.side.rest.label}: {self.side.account.vendor} signs with the application's secret key. First set "
                f'accounts.{self.side.account.name}.webhook_secrets = ["new", "old"], then change the key at the vendor.'
            )
        with self.state.alone():
            old = frozenset(
                one.id for step in self.look() if step.kind in {Kind.KEEP, Kind.ADOPT} for one in step.old
            )
            return self._settle(Allowed(), old, renewing=True)

    def finish(self, signed: Signed, *, force: bool) -> list[str]:
        """The end of a rotation: the secrets that went. `force` skips the waiting, and nothing else."""
        with self.state.alone():
            used = self._in_use()  # the vendor's answers tell its time
            return end(
                self._keyring,
                self.state,
                used,
                Waiting(signed, self.side.retried, force),
                self.side.rest.now(),
            )

    def _in_use(self) -> set[str]:
        """Fingerprints of the secrets that sign. Raises ConfigurationError where it is not known of all: the old ones may be those."""
        if self.side.secret_from is SecretFrom.FIXED:
            return set()  # one is for all, and the settings say which
        steps = self.look()
        if odd := next((step for step in steps if step.is_change), None):
            raise ConfigurationError(
                f"{self.side.rest.label}: not everything there is as wanted ({odd.why}), so no secret is safe to drop: "
                f"`ingest webhooks apply {self.side.account.name}` first"
            )
        made = self.state.read().made
        if hidden := next(
            (one for step in steps if step.kind is Kind.KEEP for one in step.old if hides_secret(one, made)),
            None,
        ):
            raise ConfigurationError(
                f"{self.side.rest.label}: {hidden.id} was made by hand, and which secret it has is not to be seen, so none is safe to drop: "
                f"`ingest webhooks rotate {self.side.account.name}` first, which makes it anew"
            )
        return {
            mark
            for step in steps
            if step.kind is Kind.KEEP
            for one in step.old
            for mark in (one.mark, made.get(one.id, ""))
            if mark
        }

    def ours(self) -> list[Registered]:
        """What the vendor has of us."""
        return [
            one for step in self.look() if step.kind not in {Kind.LEAVE, Kind.TAKE_OVER} for one in step.old
        ]

    def remove(self, ids: Collection[str]) -> list[Registered]:
        """Of ours, those with these ids, or all of them; what was removed."""
        with self.state.alone():
            ours = self.ours()
            chosen = [one for one in ours if not ids or one.id in ids]
            self._delete(chosen)
            state, gone = self.state.read(), {one.id for one in chosen}
            self._write(
                replace(state, made={name: mark for name, mark in state.made.items() if name not in gone})
            )
        return chosen

    def _settle(
        self, allowed: Allowed, renew: frozenset[str] = frozenset(), *, renewing: bool = False
    ) -> Outcome:
        outcome = Outcome()
        for attempt in range(_ROUNDS + 1):
            if attempt > 1:
                time.sleep(random.uniform(0, _PAUSE * 2**attempt))  # noqa: S311 - so that two that undo each other's work fall out of step
            outcome.now = self.look(renew)
            self._before = self._before if attempt else {one.id for one in self._registered}
            todo = [step for step in outcome.now if allowed.covers(step)]
            if not todo:
                self._remember(outcome.now)
                return outcome
            for step in todo if attempt < _ROUNDS else ():
                self._do(step, renewing=renewing)
                outcome.done.append(step)
        trouble = f" ({self._trouble})" if self._trouble else ": is somebody else changing it?"
        raise VendorUnavailable(
            f"{self.side.rest.label}: the subscriptions are not as wanted after {_ROUNDS} attempts{trouble}"
        )

    def _do(self, step: Step, *, renewing: bool) -> None:
        log.info("subscription.change", source=self.side.account.source, kind=step.kind.value, why=step.why)
        if step.kind is Kind.ADOPT:
            self._keep(step.old[0].id, step.old[0].secret)
        elif step.kind is Kind.REMOVE:
            self._delete(step.old)
        else:
            # What came up since the first look is ours of a lost answer, and nobody knows its secret.
            strays = [old for old in step.old if old.id not in self._before]
            self._delete(strays)
            # Where a new one replaces the old, the two may have one id.
            if self._create(step, renewing=renewing) and not self.side.replaces:
                self._delete([old for old in step.old if old not in strays])

    def _delete(self, old: Sequence[Registered]) -> None:
        for one in old:
            self.side.delete(one.id)

    def _create(self, step: Step, *, renewing: bool) -> bool:
        """False when nobody knows whether it was made: the next look tells."""
        if step.wanted is None:
            raise AssertionError(step.kind)
        self._open_hole()
        secret = self._secret(step.wanted.slot, renewing=renewing)
        try:
            made = self.side.create(step.wanted, secret)
        except VendorUnavailable as error:
            self._trouble = str(error)
            self._doubtful.add(secret)
            return False
        except VendorRefused:
            self._take_back(secret)
            raise
        self._keep(made.id, made.secret, known=secret)
        return True

    def _secret(self, slot: str, *, renewing: bool) -> str:
        """One that is live before it is used, if it is ours to make; of a creation that came to nothing, the same again."""
        if self.side.secret_from is SecretFrom.VENDOR:
            self._keyring.check()
        if self.side.secret_from is not SecretFrom.US:
            return ""
        newest = next(iter(self._keyring.live()), "")
        unused = len(newest) >= _OURS and fingerprint(newest) not in self._used()
        if slot not in self._fresh and unused and not renewing:
            return newest
        if slot not in self._fresh:
            made = secrets.token_urlsafe(_OURS)
            self._keyring.add(made)
            self._fresh[slot] = made
        return self._fresh[slot]

    def _used(self) -> set[str]:
        """Fingerprints of the secrets of what the vendor has."""
        return {one.mark for one in self._registered} | set(self.state.read().made.values())

    def _take_back(self, secret: str) -> None:
        """A secret of this run that the vendor did not take, unless something may have been made with it by a call whose answer was lost."""
        if secret in self._fresh.values() and secret not in self._doubtful:
            self._keyring.drop([secret])
            self._fresh = {slot: kept for slot, kept in self._fresh.items() if kept != secret}

    def _keep(self, name: str, told: str, known: str = "") -> None:
        """The secret first: a subscription that is remembered has one that is stored."""
        if told and told not in self._keyring.live():
            self._keyring.add(told)
        secret = told or known
        state = self.state.read()
        if name:
            state = replace(state, made={**state.made, name: fingerprint(secret) if secret else ""})
        self._write(self._dated(state))

    def _write(self, state: State) -> None:
        self.state.write(replace(state, strange=self._strange or ()))

    def _dated(self, state: State) -> State:
        """Deliveries that the first secret signed prove something of it only since it is the first."""
        live = self._keyring.live()
        return state.with_first(fingerprint(live[0])) if live else state

    def _remember(self, now: Sequence[Step]) -> None:
        """What is there is ours from now on, also when public_url should change; what is gone is forgotten."""
        state = self.state.read()
        ours = [
            one
            for step in now
            if step.kind is not Kind.LEAVE
            for one in step.old
            if step.kind is not Kind.TAKE_OVER
        ]
        made = {one.id: state.made.get(one.id) or one.mark or self._proven_mark(one, now) for one in ours}
        if made != state.made:
            self._write(self._dated(replace(state, made=made)))

    def _proven_mark(self, one: Registered, now: Sequence[Step]) -> str:
        """The fingerprint of the only live secret, for one that was made by hand and delivers; "" where several are live."""
        live = self._keyring.live()
        proven = (
            any(step.kind is Kind.KEEP and one in step.old for step in now)
            and self.side.secret_from is not SecretFrom.FIXED
        )
        return fingerprint(live[0]) if proven and len(live) == 1 else ""

    def _open_hole(self) -> None:
        """Before anything changes: whatever happens then, from the last delivery on all is looked through again."""
        state = self.state.read()
        since = self._arrivals().last or datetime.now(UTC) - self._lookback
        self._write(replace(state, hole_since=min(filter(None, (state.hole_since, since)))))

    def _arrivals(self) -> Heard:
        """Nothing must stay unregistered because the warehouse cannot be asked: then it is as if nothing had come."""
        try:
            return self._heard()
        except WarehouseUnavailable as error:
            log.warning("subscription.arrivals_unknown", source=self.side.account.source, why=str(error))
            return Heard()


def changed(outcome: Outcome) -> bool:
    """Whether something was made anew."""
    return any(step.kind in CREATING for step in outcome.done)
