"""What the facts mean: what is well, and what a person has to do. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ingest.files import FULL_BYTES, LOW_BYTES
from ingest.health.facts import Facts, outcomes, subscription_states
from ingest.readiness import Finding, State, failed, ok, warning
from ingest.settings import Settings
from ingest.times import describe_duration
from ingest.words import counted

# The command that starts a part, and the section of its settings.
_COMMANDS = {
    "receiver": ("ingest receive", "receiver"),
    "consumer": ("ingest consume", "consumer"),
    "reconciliation": ("ingest reconcile --watch", "reconcile"),
}
# What is wrong with a part in each state that a person has to end, and what to do.
_PART_FAILURES = {
    "stopped": ("not running: nothing listens on {address}", "start it with `ingest up` or `{command}`"),
    "silent": ("no answer from {address}", "look at its log, and restart it if it hangs"),
    "refused": (
        "{address} does not accept the admin token",
        "restart it with the token of these settings",
    ),
    "foreign": ("another program listens on {address}", "stop that program, or choose another {port}"),
}
_LATE, _TOO_LATE = timedelta(minutes=1), timedelta(minutes=5)
_MISSED_RUNS = 3  # after so many times reconcile.every an account counts as not reconciled
_GAP_CLOSES_WITHIN = timedelta(hours=3)  # also by the rules for Prometheus
_SUBSCRIPTION_OK = {"keep", "leave"}  # states of subscriptions that need nothing
_ORDER = {State.FAILED: 0, State.WARNING: 1, State.SKIPPED: 2, State.OK: 3}


def judge(facts: Facts, settings: Settings, now: datetime) -> list[Finding]:
    """Return a finding for each thing that was looked at, the worst first."""
    findings = [
        *_judge_parts(facts, settings),
        *_judge_log(facts, settings.linger, now),
        *_judge_repeated_reads(facts),
        *_judge_spool(facts),
        *_judge_warehouse(facts),
        *_judge_accounts(facts, settings, now),
    ]
    for disk in facts.disks:
        if disk.free < LOW_BYTES:
            report = failed if disk.free < FULL_BYTES else warning
            detail = f"{disk.free // 1024**2} MiB free for {disk.what} in {disk.folder}"
            findings.append(report("disk", detail, "make room"))
    return sorted(findings, key=lambda finding: _ORDER[finding.state])


def _judge_parts(facts: Facts, settings: Settings) -> Iterator[Finding]:
    is_embedded = settings.log.startswith("sqlite")  # its processes share a machine; with Kafka they need not
    for part in facts.parts:
        if part.state == "ready":
            yield ok(part.name, f"running on {part.address}")
        elif part.state == "not ready":
            reasons = "; ".join(part.reasons) or "it gives no reason"
            yield failed(part.name, f"running, but not ready: {reasons}")
        elif part.state == "unknown":
            detail = "cannot be asked: its admin_port is 0, so any free port"
            yield Finding(part.name, State.SKIPPED, detail)
        elif part.state == "stopped" and not is_embedded:
            detail = f"not on this machine: nothing listens on {part.address}"
            yield Finding(part.name, State.SKIPPED, detail)
        else:
            detail, remedy = _PART_FAILURES[part.state]
            command, section = _COMMANDS[part.name]
            yield failed(
                part.name,
                detail.format(address=part.address),
                remedy.format(command=command, port=f"{section}.admin_port"),
            )


def _judge_log(facts: Facts, interval: timedelta, now: datetime) -> Iterator[Finding]:
    """Judge how long records wait, and whether that is longer than `interval`, the time between two loads."""
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
            "run the consumer, which reads it again by itself; `ingest reconcile --since 30d` finds what is"
            " gone",
        )
        return
    waiting = facts.waiting_in_log
    if not waiting:
        yield ok("log", "everything in it is loaded")
        return
    age, detail = timedelta(), f"{counted(waiting, 'record')} not loaded yet"
    if since := [topic["waiting_since"] for topic in topics if topic["lag"] and topic["waiting_since"]]:
        age = max(now - min(since), timedelta())
        detail += f", the oldest for {describe_duration(age)}"
    overdue = age - interval
    if overdue < _LATE:
        yield ok("log", detail)
    elif overdue < _TOO_LATE:
        yield warning("log", detail)
    else:
        yield failed(
            "log", detail, "look at the consumer's log: it is stopped, held up, or slower than records arrive"
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
                "`ingest reconcile --since 30d`, or as far back as that reaches, finds what is gone from the"
                " log"
            )
            yield warning(
                because, f"{', '.join(partitions)} was read again since the consumer started: {cause}", remedy
            )


def _judge_spool(facts: Facts) -> Iterator[Finding]:
    if error := facts.spool.get("error"):
        yield Finding("spool", State.FAILED, error, unreachable=True)
        return
    records = facts.waiting_in_spool
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
        problems = list(
            _judge_webhooks(
                name, answers.get(key, {}), stored.get(key, unknown), subscriptions.get(key, {}).keys(), now
            )
        )
        if account.can_reconcile():
            problems += _judge_reconciliation(name, runs.get(key), settings.reconcile.every, now)
        gaps = [gap for gap in facts.warehouse.get("gaps") or () if (gap["vendor"], gap["account"]) == key]
        problems += _judge_gaps(name, gaps, now)
        yield from problems or [ok(name, "as it should be")]


def _judge_webhooks(
    name: str,
    answers: Mapping[str, float],
    stored: Mapping[str, Any] | None,
    subscriptions: Collection[str],
    now: datetime,
) -> Iterator[Finding]:
    """Judge how an account's deliveries were answered, whether any came, and what its subscriptions need."""
    rejected, accepted = int(answers.get("rejected", 0)), answers.get("accepted", 0)
    refused = counted(rejected, "delivery", "deliveries")
    if rejected and not accepted:
        yield failed(
            name,
            f"all {refused} since the receiver started were refused",
            "`delivery.rejected` in the receiver's log says why; most often the secret is not the vendor's",
        )
    elif rejected:
        yield warning(name, f"{refused} refused since the receiver started, {accepted:.0f} accepted")
    if not (stored and stored["last_delivery"]) and not accepted:
        remedy = f"`ingest webhooks plan {name}` says what the vendor has"
        yield warning(name, "no webhook was ever delivered", remedy)
    elif stored and stored.get("is_silent"):
        age = describe_duration(now - stored["last_delivery"])
        detail = f"no webhook has come for {age}, in which {stored['usual_since_delivery']} are usual"
        yield warning(name, detail, f"`ingest webhooks test {name}` says where deliveries stop")
    if needs := sorted(set(subscriptions) - _SUBSCRIPTION_OK - {"unknown"}):
        remedy = (
            f"`ingest webhooks plan {name}` asks the vendor now; if it wants a change, `ingest webhooks apply"
            f" {name}`, which is seen here within seconds; what is changed at the vendor, within"
            " webhooks.every"
        )
        yield failed(name, f"webhook subscriptions need: {', '.join(needs)}", remedy)
    elif "unknown" in subscriptions:
        detail = "the vendor could not be asked about its webhook subscriptions"
        yield warning(name, detail, "see what reconciliation logs")


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
            f"the last reconciliation found and repaired {counted(run['missed'], 'booking')} that no webhook "
            "delivered",
        )


def _judge_gaps(name: str, gaps: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[Finding]:
    """Judge the open gaps of an account, those that were found first before others."""
    if not gaps:
        return
    oldest = gaps[0]
    age = now - oldest["found_at"]
    end = f"{oldest['until_at']:%Y-%m-%d %H:%M}" if oldest["until_at"] else "now"
    waits_for = oldest["waits_for"] or "its first comparison with the vendor"
    detail = (
        f"{counted(len(gaps), 'gap')} in what was delivered, the first found {describe_duration(age)} ago:"
        f" {oldest['cause']} from {oldest['from_at']:%Y-%m-%d %H:%M} to {end} UTC, waits for {waits_for}"
    )
    report = warning if age < _GAP_CLOSES_WITHIN else failed
    remedy = f"gaps close by themselves; `ingest reconcile --account {name}` says what a comparison finds"
    yield report(name, detail, remedy)
