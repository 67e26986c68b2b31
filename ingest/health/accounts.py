"""The verdict on each account: how it is, why in one sentence, and the command to run next. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

from ingest.health.facts import Facts, Part, account_samples, subscription_states
from ingest.health.judge import judge
from ingest.readiness import Finding, State
from ingest.settings import Settings
from ingest.times import describe_duration

_CHECK = "ingest check"


class Verdict(StrEnum):
    """How an account is; `UNKNOWN` where the log or the warehouse cannot be asked, and nothing else fails."""

    HEALTHY = "Healthy"
    WARNING = "Warning"
    DEGRADED = "Degraded"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class AccountHealth:
    """The verdict on an account, and the figures behind it.

    `verdict` is None for an account that the settings do not have. `command` is "" where nothing has to be
    run. `in_hour` are the deliveries since the full hour, `usual_in_hour` those usual in such an hour.
    `freshness_*` are seconds from receipt to a visible row since the consumer started, None where nothing was
    loaded since. `reconciliation` is the last run's row, `dead_letters` counts the open ones by reason.
    `complete_until` is None where nothing is proven.
    """

    vendor: str
    account: str
    verdict: Verdict | None = None
    why: str = ""
    command: str = ""
    bookings: int = 0
    last_delivery: datetime | None = None
    in_hour: int = 0
    usual_in_hour: int = 0
    freshness_p50: float | None = None
    freshness_p95: float | None = None
    lag: int = 0
    waiting_since: datetime | None = None
    subscriptions: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    reconciliation: Mapping[str, Any] | None = None
    complete_until: datetime | None = None

    @property
    def name(self) -> str:
        """Return the vendor and the account."""
        return f"{self.vendor}/{self.account}"


def accounts_health(facts: Facts, settings: Settings, now: datetime) -> list[AccountHealth]:
    """Return the health of every account of the settings, in their order.

    An account is judged as the whole product is, by the facts that concern it alone.
    """
    return [
        _account_health(facts, settings, account.vendor, name, now)
        for name, account in settings.accounts.items()
    ]


def _account_health(facts: Facts, settings: Settings, vendor: str, name: str, now: datetime) -> AccountHealth:
    own_settings = settings.model_copy(update={"accounts": {name: settings.accounts[name]}})
    own_facts = _facts_of(facts, vendor, name, settings.topic(vendor))
    findings = judge(own_facts, own_settings, now)
    verdict, why, command = _verdict(findings, name)
    key = (vendor, name)
    row: Mapping[str, Any] = next(iter(own_facts.warehouse.get("accounts") or ()), {})
    topics = own_facts.log.get("topics") or ()
    buckets = account_samples(facts, "consumer", "ingest_freshness_seconds_bucket", "le").get(key, {})
    last_delivery = row.get("last_delivery")
    if verdict is Verdict.HEALTHY and last_delivery:
        age = describe_duration(max(now - last_delivery, timedelta()))
        why = f"deliveries arrive and are loaded; the last one came {age} ago"
    return AccountHealth(
        vendor=vendor,
        account=name,
        verdict=verdict,
        why=why,
        command=command,
        bookings=row.get("bookings", 0),
        last_delivery=last_delivery,
        in_hour=row.get("in_hour", 0),
        usual_in_hour=row.get("usual_in_hour", 0),
        freshness_p50=quantile(buckets, 0.5),
        freshness_p95=quantile(buckets, 0.95),
        lag=sum(topic["lag"] for topic in topics),
        waiting_since=min(
            (topic["waiting_since"] for topic in topics if topic["waiting_since"]), default=None
        ),
        subscriptions={
            state: int(number) for state, number in subscription_states(facts).get(key, {}).items()
        },
        dead_letters=(own_facts.warehouse.get("dead_letters_by_reason") or {}).get(name, {}),
        reconciliation=next(iter(own_facts.warehouse.get("reconciliations") or ()), None),
        complete_until=(facts.warehouse.get("complete_until") or {}).get(name),
    )


def _verdict(findings: Sequence[Finding], account: str) -> tuple[Verdict, str, str]:
    """Return the verdict of findings, of which the worst come first, with its reason and its command."""
    failures = [finding for finding in findings if finding.failed]
    known = [finding for finding in failures if not finding.unreachable]
    if known:
        return Verdict.DEGRADED, _reason(known[0], account), known[0].command or _CHECK
    if failures:
        return Verdict.UNKNOWN, _reason(failures[0], account), failures[0].command or _CHECK
    warnings = [finding for finding in findings if finding.state is State.WARNING]
    if warnings:
        return Verdict.WARNING, _reason(warnings[0], account), warnings[0].command or _CHECK
    return Verdict.HEALTHY, "as it should be", ""


def _reason(finding: Finding, account: str) -> str:
    return finding.detail if finding.check == account else f"{finding.check}: {finding.detail}"


def _facts_of(facts: Facts, vendor: str, name: str, topic: str) -> Facts:
    """Return the facts that concern one account: its rows, its topic, and what all accounts share."""

    def own(rows: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
        return [row for row in rows or () if (row["vendor"], row["account"]) == (vendor, name)]

    warehouse = dict(facts.warehouse)
    for key in ("accounts", "reconciliations", "gaps"):
        if key in warehouse:
            warehouse[key] = own(warehouse[key])
    letters = warehouse.get("open_dead_letters")
    if letters is not None:
        warehouse["open_dead_letters"] = {name: letters[name]} if letters.get(name) else {}
    log = dict(facts.log)
    if "topics" in log:
        log["topics"] = [entry for entry in log["topics"] if entry["topic"] == topic]
    return replace(facts, parts=[_part_of(part, topic) for part in facts.parts], log=log, warehouse=warehouse)


def _part_of(part: Part, topic: str) -> Part:
    """Return a part without what it measured of other topics."""
    samples = tuple(sample for sample in part.samples if sample[1].get("topic", topic) == topic)
    return replace(part, samples=samples)


def quantile(buckets: Mapping[str, float], share: float) -> float | None:
    """Return a quantile of a Prometheus histogram, given as counts by upper bound; None of an empty one.

    Within a bucket values are taken to be spread evenly; beyond the last bound, that bound is returned.
    """
    bounds = sorted((float(bound), count) for bound, count in buckets.items())
    if not bounds or not bounds[-1][1]:
        return None
    rank = share * bounds[-1][1]
    for (below, fewer), (bound, count) in pairwise([(0.0, 0.0), *bounds]):
        if count >= rank:
            is_last = bound == float("inf")
            return below if is_last else below + (bound - below) * (rank - fewer) / (count - fewer)
    return None
