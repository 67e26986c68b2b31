"""`webhooks`: which URLs the vendors have, which the settings want, and making the two the same."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ingest.cli import webhooks_shown as shown
from ingest.cli.options import UNAVAILABLE, AsJson, Config, settings_of
from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.telemetry import configure_logging
from ingest.vendors import AnyVendor

if TYPE_CHECKING:
    from receivers.subscriptions.keyring import Keyring
    from receivers.subscriptions.opening import HeardFrom
    from receivers.subscriptions.plan import Heard
    from receivers.subscriptions.registrar import Registrar

_DIFFERENT = 2
_SECRET_BYTES = 32

Accounts = Annotated[list[str] | None, typer.Argument(help="These accounts.", show_default="all")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
PrintSecrets = Annotated[
    bool, typer.Option("--print-secrets", help="Show new secrets, for a secret manager, instead of writing them to the secrets file.")
]
NoReconcile = Annotated[bool, typer.Option("--no-reconcile", help="Leave what may have been missed to the next apply, or `ingest up`.")]

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="The webhook URLs that vendors have: show, put right, remove, rotate."
)


def register(app: typer.Typer) -> None:
    """Adds this module's group of commands."""
    app.add_typer(group, name="webhooks")


@group.command()
def plan(accounts: Accounts = None, print_secrets: PrintSecrets = False, as_json: AsJson = False, config: Config = None) -> None:
    """Show what each vendor has, what the settings want, and what `apply` would do; nothing is changed.

    Exit code 0: as wanted; 2: there is a difference; 3: a vendor or the warehouse could not be asked.

    Examples: [bold]ingest webhooks plan[/bold]   [bold]ingest webhooks plan sales --json[/bold]
    """
    from receivers.subscriptions.opening import differs

    settings = _settings(config)
    views = [_view(settings, vendor, named=bool(accounts), secrets=print_secrets) for vendor in _chosen(settings, accounts)]
    shown.tell_plan(views, as_json=as_json)
    if any(view.failed for view in views):
        raise typer.Exit(UNAVAILABLE)
    if any(differs(view.steps) for view in views):
        raise typer.Exit(_DIFFERENT)


@group.command()
def apply(
    accounts: Accounts = None,
    yes: Yes = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="Bookeo: also replace a URL that is not ours, in its only place.")] = False,
    print_secrets: PrintSecrets = False,
    no_reconcile: NoReconcile = False,
    config: Config = None,
) -> None:
    """Do what `plan` shows: create, replace, remove ours that are stale; others' are left alone.

    What may have been missed before something was made anew is reconciled at once; a consumer must be running for that.
    Exit code 0: all is as wanted; 1: something still differs; 3: something could not be reached.

    Examples: [bold]ingest webhooks apply[/bold]   [bold]ingest webhooks apply sales --yes[/bold]
    """
    from receivers.subscriptions.opening import differs
    from receivers.subscriptions.registrar import Allowed

    settings = _settings(config)
    vendors = _chosen(settings, accounts)
    views = [_view(settings, vendor, named=bool(accounts), secrets=print_secrets) for vendor in vendors]
    shown.tell_plan(views, as_json=False)
    todo = [view for view in views if differs(view.steps)]
    if todo:
        _ask(yes, "Do this?")
    allowed = Allowed(elsewhere=True, take_over=take_over)
    for view in todo:
        with view.caught(), _registrar(settings, view.vendor, print_secrets=print_secrets) as registrar:
            view.steps = registrar.apply(allowed).now
    whole = no_reconcile or _close_holes(settings, vendors)
    shown.tell_outcome(todo)
    if any(view.failed for view in views):
        raise typer.Exit(UNAVAILABLE)
    if not whole or any(differs(view.steps) for view in views):
        raise typer.Exit(1)


@group.command("list")
def list_(accounts: Accounts = None, as_json: AsJson = False, config: Config = None) -> None:
    """List what the vendors have, ours and others'.

    Examples: [bold]ingest webhooks list[/bold]   [bold]ingest webhooks list sales --json[/bold]
    """
    settings = _settings(config)
    views = [_view(settings, vendor, named=bool(accounts), secrets=False) for vendor in _chosen(settings, accounts)]
    shown.tell_list(views, as_json=as_json)
    if any(view.failed for view in views):
        raise typer.Exit(UNAVAILABLE)


@group.command()
def remove(
    accounts: Annotated[list[str], typer.Argument(help="These accounts.")],
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Only this subscription, by its id in `list`.", show_default="all of ours")
    ] = None,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Remove our subscriptions of an account; others' are left alone.

    Example: [bold]ingest webhooks remove sales[/bold]
    """
    settings = _settings(config)
    vendors = _chosen(settings, accounts)
    _ask(yes, f"Remove {'these' if ids else 'all our'} subscriptions of {', '.join(vendor.account.name for vendor in vendors)}?")
    console = Console(highlight=False)
    for vendor in vendors:
        with _registrar(settings, vendor) as registrar:
            for one in registrar.remove(ids or []):
                console.print(f"{vendor.account.name}: removed {one.id}", soft_wrap=True)


@group.command()
def rotate(
    account: Annotated[str, typer.Argument(help="The account.")],
    finish: Annotated[bool, typer.Option("--finish", help="End it: the old secrets go, if they are no longer seen.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --finish: also if they are.")] = False,
    yes: Yes = False,
    print_secrets: PrintSecrets = False,
    no_reconcile: NoReconcile = False,
    config: Config = None,
) -> None:
    """Give an account another webhook secret. The old one stays live beside it until `--finish`.

    Examples: [bold]ingest webhooks rotate sales[/bold]   [bold]ingest webhooks rotate sales --finish[/bold]
    """
    settings = _settings(config)
    (vendor,) = _chosen(settings, [account])
    if finish:
        _finish(settings, vendor, print_secrets=print_secrets, force=force)
        return
    _ask(yes, f"Give {account} another webhook secret?")
    if shown.has_api(vendor):
        with _registrar(settings, vendor, print_secrets=print_secrets) as registrar:
            registrar.rotate()
        whole = no_reconcile or _close_holes(settings, [vendor])
    else:
        whole = _rotate_by_hand(settings, vendor, print_secrets=print_secrets)
    Console(highlight=False).print(
        f"{account}: a new secret is live, and the old one too; later: ingest webhooks rotate {account} --finish"
    )
    if not whole:
        raise typer.Exit(1)


def _finish(settings: Settings, vendor: AnyVendor, *, print_secrets: bool, force: bool) -> None:
    from consumers.arrivals import last_signed
    from receivers.subscriptions.opening import state_of
    from receivers.subscriptions.rotation import obstacle, spent

    state = state_of(settings, vendor).read()
    keyring = _keyring(vendor, print_secrets=print_secrets)
    old = spent(keyring.live(), set(state.made.values()))
    since = state.rotated_at or datetime.fromtimestamp(0, UTC)
    why_not = obstacle(*last_signed(settings, vendor.name, vendor.account.name, since), datetime.now(UTC))
    if old and why_not and not force:
        raise ConfigurationError(f"account {vendor.account.name}: {why_not}; wait, or use --force")
    if old:
        keyring.drop(old)
    Console(highlight=False).print(f"{vendor.account.name}: {len(old)} old secrets are no longer live")


def _rotate_by_hand(settings: Settings, vendor: AnyVendor, *, print_secrets: bool) -> bool:
    from dataclasses import replace

    from receivers.subscriptions.opening import state_of

    _keyring(vendor, print_secrets=print_secrets).add(token_urlsafe(_SECRET_BYTES))
    file = state_of(settings, vendor)
    with file.alone():
        file.write(replace(file.read(), rotated_at=datetime.now(UTC)))
    shown.tell_steps(settings, vendor)
    return True


def _settings(config: str | None) -> Settings:
    configure_logging("webhooks")
    return settings_of(config)


def _chosen(settings: Settings, accounts: Sequence[str] | None) -> list[AnyVendor]:
    from receivers.subscriptions.opening import chosen

    found = chosen(settings, accounts or ())
    if not found:
        raise ConfigurationError("no account is configured: `ingest init` writes an example of each vendor's")
    return found


def _ask(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody can be asked here: look at `ingest webhooks plan`, then use --yes")
    typer.confirm(question, abort=True)


def _view(settings: Settings, vendor: AnyVendor, *, named: bool, secrets: bool) -> shown.View:
    """Of one account: what differs, what is to be done by hand, or why neither is known."""
    view = shown.View(vendor)
    if not shown.has_api(vendor):
        view.by_hand = shown.steps_by_hand(settings, vendor, secrets=secrets)
    elif not vendor.account.can_read() and not named:
        view.note = "no REST credential is set, so this is to be done by hand"
    else:
        with view.caught(), _registrar(settings, vendor) as registrar:
            view.steps = registrar.look()
    return view


@contextmanager
def _registrar(settings: Settings, vendor: AnyVendor, *, print_secrets: bool = False) -> "Iterator[Registrar]":
    from receivers.subscriptions.opening import open_registrar

    registrar = open_registrar(settings, vendor, heard_from(settings), _keyring(vendor, print_secrets=print_secrets))
    try:
        yield registrar
    finally:
        registrar.close()


def _keyring(vendor: AnyVendor, *, print_secrets: bool) -> "Keyring":
    from ingest.settings.secrets_file import SecretsFile
    from ingest.settings.sources import current_secrets_path
    from receivers.subscriptions.keyring import FileKeyring, PrintedKeyring

    if print_secrets:
        return PrintedKeyring(vendor.account, lambda variable, value: print(f"{variable}={value}", flush=True))
    return FileKeyring(vendor.account, SecretsFile(current_secrets_path()))


def heard_from(settings: Settings) -> "HeardFrom":
    """What the warehouse knows of an account's webhooks. Raises WarehouseUnavailable when called."""
    from consumers.arrivals import arrivals
    from receivers.subscriptions.plan import Heard

    def heard(vendor: AnyVendor) -> "Heard":
        found = arrivals(settings, vendor.name, vendor.account.name)
        return Heard(found.last, found.missed)

    return heard


def _close_holes(settings: Settings, vendors: Sequence[AnyVendor]) -> bool:
    """Reconciles what may have been missed; False where that did not come to its end."""
    from ingest.cli.holes import reconcile_since
    from receivers.subscriptions.opening import holes, settled

    closed = True
    for hole in holes(settings, [vendor for vendor in vendors if shown.has_api(vendor)]):
        if reconcile_since(settings, hole.vendor, hole.since):
            settled(settings, hole)
        else:
            closed = False
    return closed
