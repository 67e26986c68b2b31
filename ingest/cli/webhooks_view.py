"""The output of `webhooks`: tables and lines for people, JSON for scripts."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ingest.cli.output import print_json, print_line, print_note, print_table, styled
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.words import counted

if TYPE_CHECKING:
    from receivers.reconcile.report import Report
    from receivers.subscriptions.account_plan import AccountPlan
    from receivers.subscriptions.check import UncheckedSpan

_WORDS = {
    "keep": ("as wanted", "green"),
    "create": ("create", "yellow"),
    "replace": ("replace", "yellow"),
    "adopt": ("store its secret", "yellow"),
    "remove": ("remove", "yellow"),
    "take_over": ("take over (--take-over)", "red"),
    "leave": ("leave alone", "dim"),
}
_PAST = {
    "create": "created",
    "replace": "replaced",
    "adopt": "stored the secret of",
    "remove": "removed",
    "take_over": "took over",
}


def has_api(account: AnyAccount) -> bool:
    """Return whether the vendor has an API by which webhooks are registered."""
    return account.subscriptions_class is not None


def state_in_words(state: str) -> str:
    """Return the words that `plan` has for a state of a subscription, or the state itself."""
    return _WORDS[state][0] if state in _WORDS else state


def print_steps(settings: Settings, account: AnyAccount) -> None:
    """Print what is to be done by hand."""
    from receivers.subscriptions.account_plan import plan_by_hand

    plan = plan_by_hand(settings, account, show_secrets=False)
    _print_lines(plan.name, plan.by_hand)


def print_plans(plans: Sequence["AccountPlan"], *, as_json: bool) -> None:
    """Print the plan of every account, in the order of the settings."""
    if as_json:
        print_json([plan.to_json() for plan in plans])
        return
    rows = []
    for plan in plans:
        for step in plan.steps:
            old_events = frozenset[str]().union(*(old.events for old in step.old))
            events = step.wanted.events if step.wanted else old_events
            rows.append(
                {
                    "account": plan.name,
                    "do": styled(*_WORDS[step.action.value]),
                    "what": step.urls,
                    "for": ", ".join(sorted(events)),
                    "why": step.why,
                }
            )
    print_table(rows)
    for plan in plans:
        _print_lines(plan.name, plan.by_hand)
        for line in filter(None, (plan.note, plan.failure)):
            print_line(f"{plan.name}: {line}")
    if not any(plan.differs or plan.failure for plan in plans):
        print_line("nothing to change: the vendors have what the settings want")


def print_applied(plans: Iterable["AccountPlan"]) -> None:
    """Print what `apply` has done, and what is left to do."""
    for plan in plans:
        for step in plan.done:
            print_line(f"{plan.name}: {_PAST[step.action.value]} {step.urls}")
        remaining = [step for step in plan.steps if step.is_change]
        if plan.failure:
            print_line(("failed", "red"), f" {plan.name}: {plan.failure}")
        elif remaining:
            whys = [
                f"{step.why} (--take-over replaces it)" if step.action.value == "take_over" else step.why
                for step in remaining
            ]
            print_line(f"{plan.name}: left as it is: {'; '.join(whys)}")
        else:
            print_line(("done", "green"), f" {plan.name}: as wanted")


def print_subscriptions(plans: Sequence["AccountPlan"], *, as_json: bool) -> None:
    """Print which subscriptions the vendors have."""
    rows: list[dict[str, Any]] = [
        {
            "vendor": plan.account.vendor,
            "account": plan.account.name,
            "id": subscription.id,
            "url": subscription.url,
            "events": sorted(subscription.events),
            "created_at": subscription.created_at.isoformat() if subscription.created_at else None,
            "ours": step.action.value not in {"leave", "take_over"},
            "stopped": subscription.stopped,
        }
        for plan in plans
        for step in plan.steps
        for subscription in step.old
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        [
            {
                "account": f"{row['vendor']}/{row['account']}",
                "id": row["id"],
                "url": row["url"],
                "for": ", ".join(row["events"]),
                "ours": "yes" if row["ours"] else "no",
                "state": row["stopped"] or "active",
            }
            for row in rows
        ]
    )
    for plan in plans:
        if plan.failure or plan.by_hand:
            by_hand = "its vendor cannot be asked: `ingest webhooks plan` shows what to do by hand"
            print_line(f"{plan.name}: {plan.failure or by_hand}")


def print_span(span: "UncheckedSpan") -> None:
    """Print that bookings are looked for which webhooks missed."""
    name = span.account.name
    print_note(f"{name}: looking for bookings that webhooks missed since {span.since:%Y-%m-%d %H:%M} UTC")
    print_note(f"{name}: needs a running consumer (`ingest up`); otherwise it stops after 1 minute")


def print_checked(span: "UncheckedSpan", report: "Report") -> str:
    """Print what was repaired; return why the span is not checked, "" when it is."""
    if report.failure:
        return str(report.failure)
    counts = report.counts
    summary = f"{counted(counts.seen, 'booking')} compared, none was missing"
    if counts.missed or counts.gone:
        gone = f", {counts.gone} no longer at the vendor" if counts.gone else ""
        summary = (
            f"{counted(counts.seen, 'booking')} compared, {counts.missed} were missing or out of date,"
            f" {counts.repaired} of these repaired{gone}"
        )
    print_line(f"{span.account.name}: {summary}")
    if report.unproven:
        return report.unproven
    if report.settled:
        return ""
    if counts.unreadable:
        return f"{counted(counts.unreadable, 'booking')} not readable (see the table dead_letters)"
    return f"{counted(counts.missed - counts.repaired, 'booking')} not repaired yet"


def print_unchecked(span: "UncheckedSpan", trouble: str) -> None:
    """Print why a span is not checked, and how to go on."""
    print_note(
        f"{span.account.name}: not finished: {trouble}. Run `ingest webhooks apply` again;"
        " `ingest up` continues by itself"
    )


def _print_lines(name: str, lines: Sequence[str]) -> None:
    """Print lines behind a name, which only the first one shows."""
    for number, line in enumerate(lines):
        print_line(f"{' ' * len(name) if number else name}  {line}")
