"""What the facts mean: which of them are well, which need a person, and what that person is to do. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from ingest.cli.exit_codes import ExitCode
from ingest.cli.output import counted
from ingest.cli.status.facts import Facts, Part
from ingest.disk import FULL_BYTES, LOW_BYTES
from ingest.duration import describe_duration
from ingest.finding import Finding, State, failed, ok, warning
from ingest.settings import Settings

_COMMANDS = {
    "receiver": "ingest receive",
    "consumer": "ingest consume",
    "reconciliation": "ingest reconcile --watch",
}
_SECTIONS = {"receiver": "receiver", "consumer": "consumer", "reconciliation": "reconcile"}
_LATE, _TOO_LATE = timedelta(minutes=1), timedelta(minutes=5)
_MISSED_RUNS = 3  # of reconcile.every, before an account counts as not reconciled
_WELL = {"keep", "leave"}  # states of subscriptions that need nothing
_ORDER = {State.FAILED: 0, State.WARNING: 1, State.SKIPPED: 2, State.OK: 3}


def judge(facts: Facts, settings: Settings, now: datetime) -> list[Finding]:
    """One finding for each thing that was looked at, the worst first."""
    findings = [
        *_parts(facts, settings),
        *_log(facts, now),
        *_read_again(facts),
        *_spool(facts),
        *_warehouse(facts),
        *_accounts(facts, settings, now),
        *_disks(facts),
    ]
    return sorted(findings, key=lambda finding: _ORDER[finding.state])


def exit_code(findings: list[Finding]) -> int:
    """0 healthy, 1 something needs a person, 3 what would tell could not be asked."""
    bad = [finding for finding in findings if finding.failed]
    if any(finding.unreachable for finding in bad):
        return ExitCode.UNAVAILABLE
    return 1 if bad else 0


def _parts(facts: Facts, settings: Settings) -> Iterator[Finding]:
    here = settings.log.startswith("sqlite")  # an embedded log's processes share a machine
    for part in facts.parts:
        yield _stopped(part, here) if part.state == "stopped" else _judged(part)


def _stopped(part: Part, here: bool) -> Finding:
    """With Kafka it may run on another machine."""
    if not here:
        return Finding(part.name, State.SKIPPED, f"not on this machine: nothing listens on {part.address}")
    detail = f"not running: nothing listens on {part.address}"
    return failed(part.name, detail, f"start it with `ingest up` or `{_COMMANDS[part.name]}`")


def _judged(part: Part) -> Finding:
    port = f"{_SECTIONS[part.name]}.admin_port"
    match part.state:
        case "ready":
            return ok(part.name, f"running on {part.address}")
        case "not ready":
            return failed(
                part.name, f"running, but not ready: {'; '.join(part.reasons) or 'it gives no reason'}"
            )
        case "unknown":
            return Finding(part.name, State.SKIPPED, "cannot be asked: its admin_port is 0, so any free port")
        case "refused":
            return failed(
                part.name,
                f"{part.address} does not accept the admin token",
                "restart it with the token of these settings",
            )
        case "foreign":
            return failed(
                part.name,
                f"another program listens on {part.address}",
                f"stop that program, or choose another {port}",
            )
        case _:
            return failed(
                part.name, f"no answer from {part.address}", "look at its log, and restart it if it hangs"
            )


def _log(facts: Facts, now: datetime) -> Iterator[Finding]:
    if error := facts.log.get("error"):
        yield Finding("log", State.FAILED, error, unreachable=True)
        return
    if cut := [
        f"{entry['topic']}/{entry['partition']}"
        for entry in facts.log["topics"]
        if "next" in entry and entry["committed"] > entry["next"]
    ]:
        detail = f"{', '.join(cut)} ends before what was loaded of it: the log was cut, restored or made anew"
        yield failed(
            "log",
            detail,
            "run the consumer, which reads it again by itself; `ingest reconcile --since` finds what is gone",
        )
        return
    waiting = sum(entry["lag"] for entry in facts.log["topics"])
    oldest = min(
        (entry["waiting_since"] for entry in facts.log["topics"] if entry["lag"] and entry["waiting_since"]),
        default=None,
    )
    if not waiting:
        yield ok("log", "everything in it is loaded")
        return
    age = max(now - oldest, timedelta()) if oldest else timedelta()
    detail = f"{counted(waiting, 'record')} not loaded yet" + (
        f", the oldest for {describe_duration(age)}" if oldest else ""
    )
    if age < _LATE:
        yield ok("log", detail)
    elif age < _TOO_LATE:
        yield warning("log", detail)
    else:
        yield failed(
            "log", detail, "see what the consumer logs: it is stopped, held up, or slower than what comes in"
        )


def _read_again(facts: Facts) -> Iterator[Finding]:
    """Which is over by itself; what caused it may have lost more than the log can give again."""
    causes = {
        "log": "the log was cut, restored or made anew",
        "warehouse": "the warehouse was restored, or is another one",
    }
    samples = [
        labels
        for part in facts.parts
        for name, labels, count in part.samples
        if name == "ingest_read_again_total" and count
    ]
    for because, cause in causes.items():
        if partitions := sorted(
            {f"{labels['topic']}/{labels['partition']}" for labels in samples if labels["because"] == because}
        ):
            remedy = (
                "`ingest reconcile --since`, as far back as that reaches, finds what is no longer in the log"
            )
            yield warning(
                because, f"{', '.join(partitions)} was read again since the consumer started: {cause}", remedy
            )


def _spool(facts: Facts) -> Iterator[Finding]:
    if error := facts.spool.get("error"):
        yield Finding("spool", State.FAILED, error, unreachable=True)
        return
    records = sum(file["records"] for file in facts.spool["files"])
    if records:
        age = timedelta(seconds=max(file["oldest_seconds"] for file in facts.spool["files"]))
        detail = (
            f"{counted(records, 'record')} waiting on this machine, the oldest for {describe_duration(age)}"
        )
        report = warning if age < _TOO_LATE else failed
        yield report(
            "spool",
            detail,
            "they go to the log when Kafka acknowledges again and a receiver runs; keep the folder",
        )


def _warehouse(facts: Facts) -> Iterator[Finding]:
    if error := facts.warehouse.get("error"):
        yield Finding("warehouse", State.FAILED, error, unreachable=True)
    elif nothing := facts.warehouse.get("nothing"):
        yield Finding("warehouse", State.SKIPPED, nothing)
    else:
        yield ok("warehouse", "can be asked")
        for changed in facts.warehouse.get("changed_by_hand") or ():
            yield Finding(changed["check"], State(changed["state"]), changed["detail"], changed["remedy"])
        letters = facts.warehouse["open_dead_letters"]
        if letters:
            where = ", ".join(
                f"{account or 'no account'} {number}" for account, number in sorted(letters.items())
            )
            total = counted(sum(letters.values()), "dead letter")
            yield failed(
                "dead letters",
                f"{total} open ({where})",
                "`ingest dead-letters list --open` says why; mend it, then redrive",
            )


def _accounts(facts: Facts, settings: Settings, now: datetime) -> Iterator[Finding]:
    answers, subscriptions = outcomes(facts), subscription_states(facts)
    stored = {(row["vendor"], row["account"]): row for row in facts.warehouse.get("accounts") or ()}
    unknown = (
        {"last_delivery": now} if "error" in facts.warehouse else None
    )  # an account is not blamed for what nobody could look up
    runs = {(row["vendor"], row["account"]): row for row in facts.warehouse.get("reconciliations") or ()}
    for name, account in settings.accounts.items():
        key = (account.vendor, name)
        problems = [
            *_deliveries(name, answers.get(key, {}), stored.get(key, unknown)),
            *_subscriptions(name, subscriptions.get(key, {})),
        ]
        if account.can_reconcile():
            problems += _reconciled(name, runs.get(key), settings.reconcile.every, now)
        yield from problems or [ok(name, "as it should be")]


def _deliveries(
    name: str, answers: Mapping[str, float], stored: Mapping[str, Any] | None
) -> Iterator[Finding]:
    rejected, accepted = int(answers.get("rejected", 0)), answers.get("accepted", 0)
    if rejected and not accepted:
        remedy = (
            "`delivery.rejected` in the receiver's log says why; most often the secret is not the vendor's"
        )
        yield failed(
            name,
            f"all {counted(rejected, 'delivery', 'deliveries')} since the receiver started were refused",
            remedy,
        )
    elif rejected:
        yield warning(
            name,
            f"{counted(rejected, 'delivery', 'deliveries')} refused since the receiver started, {accepted:.0f} accepted",
        )
    if not (stored and stored["last_delivery"]) and not accepted:
        yield warning(
            name, "no webhook was ever delivered", f"`ingest webhooks plan {name}` says what the vendor has"
        )


def _subscriptions(name: str, states: Mapping[str, float]) -> Iterator[Finding]:
    if wrong := sorted(state for state in states if state not in _WELL | {"unknown"}):
        yield failed(
            name,
            f"webhook subscriptions need: {', '.join(wrong)}",
            f"`ingest webhooks plan {name}`, then apply",
        )
    elif "unknown" in states:
        yield warning(
            name,
            "the vendor could not be asked about its webhook subscriptions",
            "see what reconciliation logs",
        )


def _reconciled(
    name: str, run: Mapping[str, Any] | None, every: timedelta, now: datetime
) -> Iterator[Finding]:
    if run is None:
        return  # a new account: the first run is on its way, or the part that is not running is told of above
    if run["outcome"] != "complete":
        yield failed(
            name,
            f"the last reconciliation failed, {describe_duration(now - run['finished_at'])} ago",
            f"`ingest reconcile --account {name}` says why",
        )
    elif run["missed"] > run["repaired"]:
        yield failed(
            name,
            f"{run['missed'] - run['repaired']} bookings were missed and are not repaired",
            f"`ingest reconcile --account {name}`",
        )
    elif now - run["finished_at"] > every * _MISSED_RUNS:
        yield warning(
            name,
            f"not reconciled for {describe_duration(now - run['finished_at'])}",
            "is `ingest reconcile --watch`, or `ingest up`, running?",
        )
    elif run["missed"]:
        yield warning(
            name,
            f"the last reconciliation found {counted(run['missed'], 'booking')} that no webhook delivered, and repaired them",
        )


def _disks(facts: Facts) -> Iterator[Finding]:
    for disk in facts.disks:
        if disk.free < LOW_BYTES:
            report = failed if disk.free < FULL_BYTES else warning
            yield report(
                "disk", f"{disk.free // 1024**2} MiB free for {disk.what} in {disk.folder}", "make room"
            )


def outcomes(facts: Facts) -> dict[tuple[str, str], dict[str, float]]:
    """How the receiver on this machine answered each account's deliveries since it started."""
    return _metric(facts, "receiver", "ingest_deliveries_total", "outcome")


def subscription_states(facts: Facts) -> dict[tuple[str, str], dict[str, float]]:
    """What each account's subscriptions need, as reconciliation last saw them."""
    return _metric(facts, "reconciliation", "ingest_subscription_state", "state")


def _metric(facts: Facts, part: str, metric: str, label: str) -> dict[tuple[str, str], dict[str, float]]:
    asked: Part | None = next((found for found in facts.parts if found.name == part), None)
    return asked.by_account(metric, label) if asked else {}
