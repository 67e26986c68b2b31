"""What `webhooks` shows of each account: tables for people, JSON for scripts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingest.cli.output import print_json, print_line, print_table, styled
from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.vendors import AnyAccount

if TYPE_CHECKING:
    from ingest.vendors.subscriptions import Registered
    from receivers.subscriptions.plan import Step

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
_ARRIVED = "arrived so far: "


@dataclass(slots=True)
class View:
    """One account: its steps, and those that were done; or what to do by hand; or why neither is known. `waits`: nothing is known to arrive."""

    account: AnyAccount
    steps: "list[Step]" = field(default_factory=list)
    done: "list[Step]" = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    waits: bool = False
    note: str = ""
    failed: IngestError | None = None

    @property
    def name(self) -> str:
        """Vendor and account."""
        return f"{self.account.vendor}/{self.account.name}"

    @property
    def differs(self) -> bool:
        """Whether something is to be done, by us or by hand."""
        return self.waits or any(step.is_change for step in self.steps)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """One account's trouble is shown, and does not stop the others."""
        try:
            yield
        except IngestError as error:
            self.failed = error


def has_api(account: AnyAccount) -> bool:
    """Whether the vendor's webhooks can be registered from here."""
    from ingest.vendors.subscriptions import load_subscriptions

    return load_subscriptions(account.vendor) is not None


def state_in_words(state: str) -> str:
    """Return the words that `plan` has for a state of a subscription, or `unknown` where the vendor could not be asked."""
    return _WORDS[state][0] if state in _WORDS else state


def by_hand(settings: Settings, account: AnyAccount, *, secrets: bool) -> View:
    """What to do, and what came of it so far."""
    from ingest.vendors.subscriptions import manual_steps

    came = arrived(settings, account)
    return View(
        account,
        by_hand=[*manual_steps(account, show_secret=secrets), came],
        waits=not came.startswith(_ARRIVED),
    )


def arrived(settings: Settings, account: AnyAccount) -> str:
    """What the warehouse has of its webhooks: the only proof where the vendor cannot be asked."""
    from ingest.warehouse.deliveries import arrived_types

    try:
        types = arrived_types(settings, account.vendor, account.name)
    except IngestError as error:
        return f"what arrived so far is not known: {error}"
    if not types:
        return "nothing has arrived yet: make a test booking, move it and cancel it"
    return _ARRIVED + ", ".join(
        f"{name.partition('.')[2]} ({at:%Y-%m-%d %H:%M} UTC)" for name, at in types.items()
    )


def tell_steps(settings: Settings, account: AnyAccount) -> None:
    """What to do by hand."""
    view = by_hand(settings, account, secrets=False)
    _print_lines(view.name, view.by_hand)


def tell_plan(views: Sequence[View], *, as_json: bool) -> None:
    """Every account, in the order of the settings."""
    if as_json:
        print_json([_view_json(view) for view in views])
        return
    print_table(
        [
            {
                "account": view.name,
                "do": styled(*_WORDS[step.kind.value]),
                "what": _what(step),
                "for": _events(step),
                "why": step.why,
            }
            for view in views
            for step in view.steps
        ]
    )
    for view in views:
        _print_lines(view.name, view.by_hand)
        for said in filter(None, (view.note, view.failed)):
            print_line(f"{view.name}: {said}")
    if not any(view.differs or view.failed for view in views):
        print_line("nothing to change: the vendors have what the settings want")


def tell_outcome(views: Iterable[View]) -> None:
    """After `apply`."""
    for view in views:
        for step in view.done:
            print_line(f"{view.name}: {_PAST[step.kind.value]} {_what(step)}")
        left = [step for step in view.steps if step.is_change]
        if view.failed:
            print_line(("failed", "red"), f" {view.name}: {view.failed}")
        elif left:
            print_line(f"{view.name}: left as it is: {'; '.join(map(_why_left, left))}")
        else:
            print_line(("done", "green"), f" {view.name}: as wanted")


def _why_left(step: "Step") -> str:
    return f"{step.why} (--take-over replaces it)" if step.kind.value == "take_over" else step.why


def tell_list(views: Sequence[View], *, as_json: bool) -> None:
    """What the vendors have."""
    rows = [_row(view, step, one) for view in views for step in view.steps for one in step.old]
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
    for view in views:
        if view.failed or view.by_hand:
            why = view.failed or "its vendor cannot be asked: `ingest webhooks plan` shows what to do by hand"
            print_line(f"{view.name}: {why}")


def _print_lines(name: str, lines: Sequence[str]) -> None:
    for at, line in enumerate(lines):
        print_line(f"{name if not at else ' ' * len(name)}  {line}")


def _what(step: "Step") -> str:
    return step.wanted.url if step.wanted else ", ".join(one.url for one in step.old)


def _events(step: "Step") -> str:
    events = step.wanted.events if step.wanted else frozenset[str]().union(*(one.events for one in step.old))
    return ", ".join(sorted(events))


def _view_json(view: View) -> dict[str, Any]:
    return {
        "vendor": view.account.vendor,
        "account": view.account.name,
        "steps": [_step_json(step) for step in view.steps],
        "by_hand": view.by_hand,
        "note": view.note,
        "error": str(view.failed) if view.failed else None,
    }


def _step_json(step: "Step") -> dict[str, Any]:
    return {
        "do": step.kind.value,
        "difference": step.is_change,
        "url": step.wanted.url if step.wanted else None,
        "events": sorted(step.wanted.events) if step.wanted else None,
        "at_vendor": [{"id": one.id, "url": one.url} for one in step.old],
        "why": step.why,
    }


def _row(view: View, step: "Step", one: "Registered") -> dict[str, Any]:
    return {
        "vendor": view.account.vendor,
        "account": view.account.name,
        "id": one.id,
        "url": one.url,
        "events": sorted(one.events),
        "created_at": one.created_at.isoformat() if one.created_at else None,
        "ours": step.kind.value not in {"leave", "take_over"},
        "stopped": one.stopped,
    }
