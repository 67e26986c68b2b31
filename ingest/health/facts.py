"""What is known about the processes, the log, the spool, the warehouse and the disks at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the product, as its admin listener describes it.

    `state` is `ready`, `not ready`, `stopped` (nobody listens), `silent` (no answer), `refused` (the token is
    wrong), `foreign` (another program listens) or `unknown` (no fixed port). `samples` are its metrics, each
    a name, labels and a value.
    """

    name: str
    state: str
    address: str = ""
    reasons: tuple[str, ...] = ()
    samples: tuple[tuple[str, dict[str, str], float], ...] = field(default=(), repr=False)

    def by_account(self, metric: str, label: str) -> dict[tuple[str, str], dict[str, float]]:
        """Return a metric's values for each account, by the value of another label."""
        values: dict[tuple[str, str], dict[str, float]] = {}
        for name, labels, value in self.samples:
            if name == metric and value and {"vendor", "account", label} <= labels.keys():
                values.setdefault((labels["vendor"], labels["account"]), {})[labels[label]] = value
        return values


@dataclass(frozen=True, slots=True)
class Disk:
    """Free bytes on the disk of a folder. `what` is the setting that names the folder."""

    what: str
    folder: str
    free: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of one moment.

    `log`, `spool` and `warehouse` have the key `error` where they could not be asked, the warehouse the key
    `nothing` before the first load.
    """

    parts: Sequence[Part]
    log: Row
    spool: Row
    warehouse: Row
    disks: Sequence[Disk]

    @property
    def waiting_in_log(self) -> int | None:
        """The number of the log's records that are not loaded yet; None where the log could not be asked."""
        return None if "error" in self.log else sum(topic["lag"] for topic in self.log["topics"])

    @property
    def waiting_in_spool(self) -> int | None:
        """The number of records in the spool; None where it could not be read."""
        return None if "error" in self.spool else sum(file["records"] for file in self.spool["files"])


def outcomes(facts: Facts) -> dict[tuple[str, str], dict[str, float]]:
    """Return how the receiver on this machine answered each account's deliveries since it started."""
    return account_samples(facts, "receiver", "ingest_deliveries_total", "outcome")


def subscription_states(facts: Facts) -> dict[tuple[str, str], dict[str, float]]:
    """Return what each account's subscriptions need, as reconciliation last saw them."""
    return account_samples(facts, "reconciliation", "ingest_subscription_state", "state")


def account_samples(
    facts: Facts, part: str, metric: str, label: str
) -> dict[tuple[str, str], dict[str, float]]:
    """Return what a part measured of each account, by the value of another label."""
    return next((process.by_account(metric, label) for process in facts.parts if process.name == part), {})
