"""`webhooks`: which URLs the vendors have, which the settings want, and making the two the same."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli import webhooks_trial
from ingest.cli import webhooks_view as shown
from ingest.cli.exit_codes import ExitCode
from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import confirm, print_line, show_waits
from ingest.errors import ConfigurationError
from ingest.settings import NO_ACCOUNT, Settings
from ingest.telemetry import configure_logging
from ingest.vendors import AnyAccount
from ingest.waits import announce

if TYPE_CHECKING:
    from receivers.subscriptions.apply import Registrar
    from receivers.subscriptions.check import HeardFrom
    from receivers.subscriptions.plan import Heard
    from receivers.subscriptions.secret_store import Keyring

_DIFFERENT = 2
_SECRET_BYTES = 32

Accounts = Annotated[
    list[str] | None, typer.Argument(help="Accounts.", show_default="all", autocompletion=complete_account)
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
PrintSecrets = Annotated[
    bool,
    typer.Option(
        "--print-secrets",
        help="Show new secrets, for a secret manager, instead of writing them to the secrets file.",
    ),
]
NoReconcile = Annotated[
    bool,
    typer.Option("--no-reconcile", help="Leave what may have been missed to the next apply, or `ingest up`."),
]

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The webhook URLs that vendors have: show, put right, remove, rotate.",
)


@group.command()
@show_waits()
def plan(
    accounts: Accounts = None,
    print_secrets: PrintSecrets = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Show what each vendor has, what the settings want, and what `apply` would do; nothing is changed.

    Exit code 0: as wanted; 2: there is a difference, or, where things are done by hand, nothing is known to arrive; 3: a vendor could not be asked.

    Examples:
        ingest webhooks plan
        ingest webhooks plan sales --json
    """
    settings = _settings(config)
    views = _planned(settings, accounts, secrets=print_secrets)
    shown.tell_plan(views, as_json=as_json)
    if any(view.failed for view in views):
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if any(view.differs for view in views):
        raise typer.Exit(_DIFFERENT)


@group.command()
@show_waits()
def apply(
    accounts: Accounts = None,
    yes: Yes = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Also replace what may not be ours: a URL in Bookeo's only place, or what another machine may have made.",
        ),
    ] = False,
    print_secrets: PrintSecrets = False,
    no_reconcile: NoReconcile = False,
    config: Config = None,
) -> None:
    """Do what `plan` shows: create, replace, remove ours that are stale; others' are left alone.

    What may have been missed before something was made anew is reconciled at once; a consumer must be running for that.

    Exit code 0: all is as wanted; 1: something still differs, or was not reconciled; 3: something could not be reached.

    Examples:
        ingest webhooks apply
        ingest webhooks apply sales --yes
    """
    from receivers.subscriptions.apply import Allowed

    settings = _settings(config)
    views = _planned(settings, accounts, secrets=print_secrets)
    shown.tell_plan(views, as_json=False)
    todo = [view for view in views if view.differs and not view.by_hand]
    keyrings = {view.name: _keyring(view.account, print_secrets=print_secrets) for view in views}
    if todo:
        _ask(yes, "Do this?")
    for view in todo:
        with view.caught(), _registrar(settings, view.account, keyrings[view.name]) as registrar:
            view.done = registrar.apply(Allowed(elsewhere=True, take_over=take_over)).done
    whole = no_reconcile or _close_holes(settings, [view.account for view in views])
    for view in views if todo else ():
        _look_again(settings, view, keyrings[view.name])
    shown.tell_outcome(todo)
    if any(view.failed for view in views):
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if not whole or any(view.differs for view in views):
        raise typer.Exit(1)


@group.command("list")
@show_waits()
def list_(accounts: Accounts = None, as_json: AsJson = False, config: Config = None) -> None:
    """List what the vendors have, ours and others'.

    Examples:
        ingest webhooks list
        ingest webhooks list sales --json
    """
    settings = _settings(config)
    views = [_view(settings, account, secrets=False) for account in _chosen(settings, accounts)]
    shown.tell_list(views, as_json=as_json)
    if any(view.failed for view in views):
        raise typer.Exit(ExitCode.UNAVAILABLE)


@group.command()
@show_waits()
def remove(
    accounts: Annotated[list[str], typer.Argument(help="Accounts.", autocompletion=complete_account)],
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="Only this subscription, by its id in `list`.", show_default="all of ours"),
    ] = None,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Remove our subscriptions of an account; others' are left alone.

    Example:
        ingest webhooks remove sales
    """
    settings = _settings(config)
    chosen = _chosen(settings, accounts)
    _ask(
        yes,
        f"Remove {'these' if ids else 'all our'} subscriptions of {', '.join(account.name for account in chosen)}?",
    )
    _refuse_unknown(settings, chosen, ids or [])
    for account in chosen:
        with _registrar(settings, account) as registrar:
            removed = registrar.remove(ids or [])
        for said in [f"removed {one.id}" for one in removed] or ["there is none of ours"]:
            print_line(f"{account.name}: {said}")


@group.command()
@show_waits()
def rotate(
    name: Annotated[str, typer.Argument(help="Account.", autocompletion=complete_account)],
    finish: Annotated[
        bool, typer.Option("--finish", help="End it: the old secrets go, if they are no longer seen.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --finish: do not wait for deliveries to show that.")
    ] = False,
    yes: Yes = False,
    print_secrets: PrintSecrets = False,
    no_reconcile: NoReconcile = False,
    config: Config = None,
) -> None:
    """Give an account another webhook secret. The old one stays live beside it until `--finish`.

    Exit code 0: done; 1: not all of it; 2: not possible, or, with `--finish`, not yet; 3: something could not be reached.

    Examples:
        ingest webhooks rotate sales
        ingest webhooks rotate sales --finish
    """
    settings = _settings(config)
    (account,) = _chosen(settings, [name])
    if finish:
        _ask(yes, f"Drop the old webhook secrets of {name}?")
        _finish(settings, account, print_secrets=print_secrets, force=force)
        return
    _ask(yes, f"Give {name} another webhook secret?")
    why = ""
    if shown.has_api(account):
        why = _rotate(settings, account, print_secrets=print_secrets)
    else:
        _rotate_by_hand(settings, account, print_secrets=print_secrets)
        shown.tell_steps(settings, *_chosen(read_settings(config), [name]))
    said = f"a new secret is live, and the old one too; later: ingest webhooks rotate {name} --finish"
    print_line(f"{name}: {why or said}")
    if not (no_reconcile or _close_holes(settings, [account])) or why:
        raise typer.Exit(1)


def _rotate(settings: Settings, account: AnyAccount, *, print_secrets: bool) -> str:
    """Why something has no new secret; "" when all has."""
    from receivers.subscriptions.apply import changed
    from receivers.subscriptions.check import check_url

    check_url(account)
    with _registrar(settings, account, _keyring(account, print_secrets=print_secrets)) as registrar:
        outcome = registrar.rotate()
    left = [step.why for step in outcome.now if step.is_change]
    if changed(outcome) and not left:
        return ""
    what = "not everything has another secret" if changed(outcome) else "nothing was changed"
    return "; ".join([what, *left, f"look at `ingest webhooks plan {account.name}`"])


def _finish(settings: Settings, account: AnyAccount, *, print_secrets: bool, force: bool) -> None:
    from ingest.vendors.subscriptions import Subscriptions
    from ingest.warehouse.deliveries import last_signed
    from receivers.subscriptions.check import state_of
    from receivers.subscriptions.rotation import Waiting, end

    signed = partial(last_signed, settings, account.vendor, account.name)
    keyring = _keyring(account, print_secrets=print_secrets)
    if shown.has_api(account):
        with _registrar(settings, account, keyring) as registrar:
            old = registrar.finish(signed, force=force)
    else:
        file = state_of(settings, account)
        with file.alone():
            old = end(keyring, file, (), Waiting(signed, Subscriptions.retried, force), datetime.now(UTC))
    print_line(f"{account.name}: {len(old) or 'no'} old secret{'' if len(old) == 1 else 's'} dropped")


def _rotate_by_hand(settings: Settings, account: AnyAccount, *, print_secrets: bool) -> None:
    from ingest.vendors.subscriptions import fingerprint
    from receivers.subscriptions.check import state_of

    secret = token_urlsafe(_SECRET_BYTES)
    file = state_of(settings, account)
    with file.alone():
        _keyring(account, print_secrets=print_secrets).add(secret)
        file.write(file.read().with_first(fingerprint(secret)))


def _settings(config: str | None) -> Settings:
    configure_logging("webhooks")
    return read_settings(config)


def _chosen(settings: Settings, accounts: Sequence[str] | None) -> list[AnyAccount]:
    found = settings.choose_accounts(accounts or ())
    if not found:
        raise ConfigurationError(NO_ACCOUNT)
    return found


def _ask(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "There is no terminal to confirm on. Review `ingest webhooks plan`, then pass --yes."
        )
    confirm(question)


def _planned(settings: Settings, accounts: Sequence[str] | None, *, secrets: bool) -> list[shown.View]:
    from receivers.subscriptions.check import check_url, sharing

    chosen = _chosen(settings, accounts)
    for account in chosen:
        check_url(account)
    views = [_view(settings, account, secrets=secrets) for account in chosen]
    shared = sharing(settings.build_accounts().values())
    for view in views:
        if others := shared.get(view.account.name):
            view.note = f"has the same REST credential as {', '.join(others)}: what is made for one may replace the other's"
    return views


def _view(settings: Settings, account: AnyAccount, *, secrets: bool) -> shown.View:
    """Of one account: what differs, what is to be done by hand, or why neither is known."""
    if not shown.has_api(account) or not account.settings.can_read():
        return shown.by_hand(settings, account, secrets=secrets)
    view = shown.View(account)
    _look_again(settings, view)
    return view


def _look_again(settings: Settings, view: shown.View, keyring: "Keyring | None" = None) -> None:
    """What one account's apply did may be in another's way."""
    if view.by_hand or view.failed:
        return
    announce(f"asking {view.name} …")
    with view.caught(), _registrar(settings, view.account, keyring) as registrar:
        view.steps = registrar.look()


def _refuse_unknown(settings: Settings, accounts: Sequence[AnyAccount], ids: Sequence[str]) -> None:
    """Before anything is removed."""
    left = set(ids)
    for account in accounts if ids else ():
        with _registrar(settings, account) as registrar:
            left -= {one.id for one in registrar.ours()}
    if left:
        raise ConfigurationError(
            f"no subscription of ours has the id {', '.join(sorted(left))}; `ingest webhooks list` shows those that are"
        )


@contextmanager
def _registrar(
    settings: Settings, account: AnyAccount, keyring: "Keyring | None" = None
) -> "Iterator[Registrar]":
    from receivers.subscriptions.check import open_registrar

    registrar = open_registrar(
        settings, account, heard_from(settings), keyring or _keyring(account, print_secrets=False)
    )
    try:
        yield registrar
    finally:
        registrar.close()


def _keyring(account: AnyAccount, *, print_secrets: bool) -> "Keyring":
    from ingest.settings.secrets_file import SecretsFile
    from ingest.settings.sources import current_secrets_path
    from receivers.subscriptions.secret_store import FileKeyring, PrintedKeyring

    if print_secrets:
        return PrintedKeyring(account.settings, lambda variable, value: print_line(f"{variable}={value}"))
    return FileKeyring(account.settings, SecretsFile(current_secrets_path()))


def heard_from(settings: Settings) -> "HeardFrom":
    """What the warehouse knows of an account's webhooks. Raises WarehouseUnavailable when called."""
    from ingest.warehouse.deliveries import arrivals
    from receivers.subscriptions.plan import Heard

    def heard(account: AnyAccount) -> "Heard":
        found = arrivals(settings, account.vendor, account.name)
        return Heard(found.last, found.missed)

    return heard


def _close_holes(settings: Settings, accounts: Sequence[AnyAccount]) -> bool:
    """Reconciles what may have been missed; False where that did not come to its end."""
    from ingest.cli.holes import reconcile_since
    from receivers.subscriptions.check import holes, settled

    closed = True
    for hole in holes(settings, [account for account in accounts if shown.has_api(account)]):
        if reconcile_since(settings, hole.account, hole.since):
            settled(settings, hole)
        else:
            closed = False
    return closed


group.command("test")(webhooks_trial.trial)
