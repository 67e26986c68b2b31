"""What is to be done about an account's webhooks: by the vendor's API, or by hand where it has none."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.waits import announce
from ingest.warehouse.deliveries import arrived_types
from receivers.subscriptions.check import check_url, find_shared_credentials, open_manager
from receivers.subscriptions.plan import Step
from receivers.subscriptions.webhook_secrets import SecretStore

_ARRIVED = "arrived so far: "


@dataclass(slots=True)
class AccountPlan:
    """What is to be done for one account: steps, or lines for a person to follow, or neither after a failure.

    `done` are the steps that were done. `awaits_delivery`: what is done by hand has not shown any effect yet.
    """

    account: AnyAccount
    steps: list[Step] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    awaits_delivery: bool = False
    note: str = ""
    failure: IngestError | None = None

    @property
    def name(self) -> str:
        """The vendor and the account."""
        return f"{self.account.vendor}/{self.account.name}"

    @property
    def differs(self) -> bool:
        """Whether something is to be done, by us or by hand."""
        return self.awaits_delivery or any(step.is_change for step in self.steps)

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Note a failure, which does not stop the other accounts."""
        try:
            yield
        except IngestError as error:
            self.failure = error

    def ask_vendor(self, settings: Settings, store: SecretStore | None = None) -> None:
        """Plan the steps by what the vendor has now, unless the plan is a person's or has failed."""
        if self.by_hand or self.failure:
            return
        announce(f"asking {self.name} …")
        with self.noting_failure(), closing(open_manager(settings, self.account, store)) as manager:
            self.steps = manager.plan()

    def to_json(self) -> dict[str, Any]:
        """Return the plan for scripts and pages."""
        return {
            "vendor": self.account.vendor,
            "account": self.account.name,
            "steps": [_step_json(step) for step in self.steps],
            "by_hand": self.by_hand,
            "note": self.note,
            "error": str(self.failure) if self.failure else None,
        }


def make_plans(
    settings: Settings, accounts: Sequence[AnyAccount], *, show_secrets: bool = False
) -> list[AccountPlan]:
    """Return the plan of each account. Raises ConfigurationError where no vendor could reach public_url."""
    for account in accounts:
        check_url(account)
    plans = [make_plan(settings, account, show_secrets=show_secrets) for account in accounts]
    shared = find_shared_credentials(settings.build_accounts().values())
    for plan in plans:
        if others := shared.get(plan.account.name):
            plan.note = (
                f"has the same REST credential as {', '.join(others)}:"
                " what is made for one may replace the other's"
            )
    return plans


def make_plan(settings: Settings, account: AnyAccount, *, show_secrets: bool = False) -> AccountPlan:
    """Return what differs for an account, what is to be done by hand, or why neither is known."""
    if not account.manages_subscriptions:
        return plan_by_hand(settings, account, show_secrets=show_secrets)
    plan = AccountPlan(account)
    plan.ask_vendor(settings)
    return plan


def plan_by_hand(settings: Settings, account: AnyAccount, *, show_secrets: bool) -> AccountPlan:
    """Return what a person has to do, and what came of it so far."""
    arrived = describe_arrivals(settings, account)
    return AccountPlan(
        account,
        by_hand=[*account.manual_steps(show_secret=show_secrets), arrived],
        awaits_delivery=not arrived.startswith(_ARRIVED),
    )


def describe_arrivals(settings: Settings, account: AnyAccount) -> str:
    """Say which webhooks the warehouse has: the only proof where the vendor cannot be asked."""
    try:
        types = arrived_types(settings, account.vendor, account.name)
    except IngestError as error:
        return f"what arrived so far is not known: {error}"
    if not types:
        return "nothing has arrived yet: make a test booking, move it and cancel it"
    return _ARRIVED + ", ".join(
        f"{name.partition('.')[2]} ({at:%Y-%m-%d %H:%M} UTC)" for name, at in types.items()
    )


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "do": step.action.value,
        "difference": step.is_change,
        "url": step.wanted.url if step.wanted else None,
        "events": sorted(step.wanted.events) if step.wanted else None,
        "at_vendor": [{"id": old.id, "url": old.url} for old in step.old],
        "why": step.why,
    }
