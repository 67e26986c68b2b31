"""The meaning of the facts: what is well, what needs a person, and what that person can do. Pure."""

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
_MISSED_RUNS = 3  # after so many times reconcile.every an account counts as not reconciled
_SUBSCRIPTION_OK = {"keep", "leave"}  # states of subscriptions that need nothing
_ORDER = {State.FAILED: 0, State.WARNING: 1, State.SKIPPED: 2, State.OK: 3}


def judge(facts: Facts, settings: Settings, now: datetime) -> list[Finding]:
    """Return a finding for each thing that was looked at, the worst first."""
    findings = [
        *_judge_parts(facts, settings),
        *_judge_log(facts, now),
        *_judge_repeated_reads(facts),
        *_judge_spool(facts),
        *_judge_warehouse(facts),
        *_judge_accounts(facts, settings, now),
        *_judge_disks(facts),
    ]
    return sorted(findings, key=lambda finding: _ORDER[finding.state])


def exit_code(findings: list[Finding]) -> ExitCode:
    """Return FAILED where something needs a person, UNAVAILABLE where something could not be asked."""
    failures = [finding for finding in findings if finding.failed]
    if any(finding.unreachable for finding in failures):
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if failures else ExitCode.OK


def _judge_parts(facts: Facts, settings: Settings) -> Iterator[Finding]:
    is_embedded = settings.log.startswith("sqlite")  # its processes share a machine; with Kafka they need not
    for part in facts.parts:
        if part.state != "stopped":
            yield _judge_part(part)
        elif is_embedded:
            detail = f"not running: nothing listens on {part.address}"
            yield failed(part.name, detail, f"start it with `ingest up` or `{_COMMANDS[part.name]}`")
        else:
            detail = f"not on this machine: nothing listens on {part.address}"
            yield Finding(part.name, State.SKIPPED, detail)


def _judge_part(part: Part) -> Finding:
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


def _judge_log(facts: Facts, now: datetime) -> Iterator[Finding]:
    if error := facts.log.get("error"):
        yield Finding("log", State.FAILED, error, unreachable=True)
        return
    topics = facts.log["topics"]
    if truncated := [
        f"{topic['topic']}/{topic['partition']}"
        for topic in topics
        if "next" in topic and topic["committed"] > topic["next"]
    ]:
        detail = (
            f"{', '.join(truncated)} ends before what was loaded "
            "of it: the log was cut, restored or made anew"
        )
        yield failed(
            "log",
            detail,
            "run the consumer, which reads it again by itself; `ingest reconcile --since` finds what is gone",
        )
        return
    waiting = sum(topic["lag"] for topic in topics)
    if not waiting:
        yield ok("log", "everything in it is loaded")
        return
    age, detail = timedelta(), f"{counted(waiting, 'record')} not loaded yet"
    if since := [topic["waiting_since"] for topic in topics if topic["lag"] and topic["waiting_since"]]:
        age = max(now - min(since), timedelta())
        detail += f", the oldest for {describe_duration(age)}"
    if age < _LATE:
        yield ok("log", detail)
    elif age < _TOO_LATE:
        yield warning("log", detail)
    else:
        yield failed(
            "log", detail, "see what the consumer logs: it is stopped, held up, or slower than what comes in"
        )


def _judge_repeated_reads(facts: Facts) -> Iterator[Finding]:
    """Warn of partitions that were read again.

    The repetition needs nobody, but what caused it may have lost records that the log does not have any more.
    """
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


def _judge_spool(facts: Facts) -> Iterator[Finding]:
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


def _judge_warehouse(facts: Facts) -> Iterator[Finding]:
    if error := facts.warehouse.get("error"):
        yield Finding("warehouse", State.FAILED, error, unreachable=True)
    elif nothing := facts.warehouse.get("nothing"):
        yield Finding("warehouse", State.SKIPPED, nothing)
    else:
        yield ok("warehouse", "can be asked")
        for change in facts.warehouse.get("changed_by_hand") or ():
            yield Finding(change["check"], State(change["state"]), change["detail"], change["remedy"])
        letters = facts.warehouse["open_dead_letters"]
        if letters:
            where = ", ".join(
                f"{account or 'no account'} {number}" for account, number in sorted(letters.items())
            )
            total = counted(sum(letters.values()), "dead letter")
            yield failed(
                "dead letters",
                f"{total} open ({where})",
                "`ingest dead-letters list --open` says why; fix the cause, then redrive",
            )


def _judge_accounts(facts: Facts, settings: Settings, now: datetime) -> Iterator[Finding]:
    answers, subscriptions = outcomes(facts), subscription_states(facts)
    stored = {(row["vendor"], row["account"]): row for row in facts.warehouse.get("accounts") or ()}
    # An account is not blamed for what nobody could look up.
    unknown = {"last_delivery": now} if "error" in facts.warehouse else None
    runs = {(row["vendor"], row["account"]): row for row in facts.warehouse.get("reconciliations") or ()}
    for name, account in settings.accounts.items():
        key = (account.vendor, name)
        problems = [
            *_judge_deliveries(name, answers.get(key, {}), stored.get(key, unknown)),
            *_judge_subscriptions(name, subscriptions.get(key, {})),
        ]
        if account.can_reconcile():
            problems += _judge_reconciliation(name, runs.get(key), settings.reconcile.every, now)
        yield from problems or [ok(name, "as it should be")]


def _judge_deliveries(
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
            f"{counted(rejected, 'delivery', 'deliveries')} refused "
            f"since the receiver started, {accepted:.0f} accepted",
        )
    if not (stored and stored["last_delivery"]) and not accepted:
        yield warning(
            name, "no webhook was ever delivered", f"`ingest webhooks plan {name}` says what the vendor has"
        )


def _judge_subscriptions(name: str, states: Mapping[str, float]) -> Iterator[Finding]:
    if needs := sorted(states.keys() - _SUBSCRIPTION_OK - {"unknown"}):
        yield failed(
            name,
            f"webhook subscriptions need: {', '.join(needs)}",
            f"`ingest webhooks plan {name}`, then apply",
        )
    elif "unknown" in states:
        yield warning(
            name,
            "the vendor could not be asked about its webhook subscriptions",
            "see what reconciliation logs",
        )


def _judge_reconciliation(
    name: str, run: Mapping[str, Any] | None, every: timedelta, now: datetime
) -> Iterator[Finding]:
    if run is None:
        return  # a new account, whose first run is still to come; that nothing runs is a finding of its own
    age = describe_duration(now - run["finished_at"])
    if run["outcome"] != "complete":
        yield failed(
            name,
            f"the last reconciliation failed, {age} ago",
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
            f"not reconciled for {age}",
            "is `ingest reconcile --watch`, or `ingest up`, running?",
        )
    elif run["missed"]:
        yield warning(
            name,
            f"the last reconciliation found {counted(run['missed'], 'booking')} that no webhook "
            "delivered, and repaired them",
        )


def _judge_disks(facts: Facts) -> Iterator[Finding]:
    for disk in facts.disks:
        if disk.free < LOW_BYTES:
            report = failed if disk.free < FULL_BYTES else warning
            yield report(
                "disk", f"{disk.free // 1024**2} MiB free for {disk.what} in {disk.folder}", "make room"
            )


def outcomes(facts: Facts) -> dict[tuple[str, str], dict[str, float]]:
    """Return how the receiver on this machine answered each account's deliveries since it started."""
    return _metric(facts, "receiver", "ingest_deliveries_total", "outcome")


def subscription_states(facts: Facts) -> dict[tuple[str, str], dict[str, float]]:
    """Return what each account's subscriptions need, as reconciliation last saw them."""
    return _metric(facts, "reconciliation", "ingest_subscription_state", "state")


def _metric(facts: Facts, part: str, metric: str, label: str) -> dict[tuple[str, str], dict[str, float]]:
    return next((process.by_account(metric, label) for process in facts.parts if process.name == part), {})
