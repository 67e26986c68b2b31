"""`webhooks`: which URLs the vendors have, which the settings want, and making the two the same."""

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli import ExitCode
from ingest.cli import webhooks_view as view
from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import confirm, print_line, show_waits
from ingest.errors import ConfigurationError, IngestError
from ingest.settings import NO_ACCOUNT, Settings
from ingest.telemetry import configure_logging
from ingest.vendors import AnyAccount
from ingest.words import counted

if TYPE_CHECKING:
    from receivers.subscriptions.apply import SubscriptionManager
    from receivers.subscriptions.webhook_secrets import SecretStore

_DIFFERENT = 2
_TRIAL_SECONDS = 60.0

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
    typer.Option("--no-reconcile", help="Leave what was missed to the next apply or `ingest up`."),
]

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Webhook subscriptions at the vendors: show, repair and remove them, and rotate secrets.",
)


@group.command()
@show_waits()
def plan(
    accounts: Accounts = None,
    print_secrets: PrintSecrets = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Show what each vendor has, what the settings want, and what `apply` would do. Nothing is changed.

    Exit code 0: everything is as wanted; 2: something differs, or no delivery has arrived yet for webhooks
    that are made by hand; 3: a vendor could not be reached.

    Examples:
        ingest webhooks plan
        ingest webhooks plan sales --json
    """
    from receivers.subscriptions.account_plan import make_plans

    settings = _settings(config)
    plans = make_plans(settings, _choose_accounts(settings, accounts), show_secrets=print_secrets)
    view.print_plans(plans, as_json=as_json)
    if any(plan.failure for plan in plans):
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if any(plan.differs for plan in plans):
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
            help="Also replace subscriptions that may not be ours: those that another machine may have"
            " made, and the only one that a vendor such as Bookeo has room for.",
        ),
    ] = False,
    print_secrets: PrintSecrets = False,
    no_reconcile: NoReconcile = False,
    config: Config = None,
) -> None:
    """Do what `plan` shows: create and replace subscriptions, and remove our outdated ones.

    Subscriptions of others are not changed. If webhooks may have been missed before a subscription was made,
    the account is reconciled at once; this needs a running consumer.

    Exit code 0: everything is as wanted; 1: something still differs, or was not reconciled; 3: something
    could not be reached.

    Examples:
        ingest webhooks apply
        ingest webhooks apply sales --yes
    """
    from receivers.subscriptions.account_plan import make_plans
    from receivers.subscriptions.apply import Permissions
    from receivers.subscriptions.state import note_changed

    settings = _settings(config)
    plans = make_plans(settings, _choose_accounts(settings, accounts), show_secrets=print_secrets)
    view.print_plans(plans, as_json=False)
    changed = [plan for plan in plans if plan.differs and not plan.by_hand]
    stores = {plan.name: _secret_store(plan.account, print_secrets=print_secrets) for plan in plans}
    if changed:
        _confirm(yes, "Do this?")
    permissions = Permissions(elsewhere=True, take_over=take_over)
    for plan in changed:
        with plan.noting_failure(), _manager(settings, plan.account, stores[plan.name]) as manager:
            plan.done = manager.apply(permissions).done
    are_checked = no_reconcile or _check_spans(settings, [plan.account for plan in plans])
    if changed:
        # What was done for one account may be in another's way.
        for plan in plans:
            plan.ask_vendor(settings, stores[plan.name])
    note_changed(settings)
    view.print_applied(changed)
    if any(plan.failure for plan in plans):
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if not are_checked or any(plan.differs for plan in plans):
        raise typer.Exit(ExitCode.FAILED)


@group.command("list")
@show_waits()
def list_(accounts: Accounts = None, as_json: AsJson = False, config: Config = None) -> None:
    """List the subscriptions that the vendors have, ours and others.

    Examples:
        ingest webhooks list
        ingest webhooks list sales --json
    """
    from receivers.subscriptions.account_plan import make_plan

    settings = _settings(config)
    plans = [make_plan(settings, account) for account in _choose_accounts(settings, accounts)]
    view.print_subscriptions(plans, as_json=as_json)
    if any(plan.failure for plan in plans):
        raise typer.Exit(ExitCode.UNAVAILABLE)


@group.command()
@show_waits()
def remove(
    accounts: Annotated[list[str], typer.Argument(help="Accounts.", autocompletion=complete_account)],
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="Only the subscription with this id, as `list` shows it.", show_default="all of ours"
        ),
    ] = None,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Remove our subscriptions of an account. Those of others are not changed.

    Example:
        ingest webhooks remove sales
    """
    from receivers.subscriptions.state import note_changed

    settings = _settings(config)
    chosen = _choose_accounts(settings, accounts)
    names = ", ".join(account.name for account in chosen)
    _confirm(yes, f"Remove {'these' if ids else 'all our'} subscriptions of {names}?")
    unknown = set(ids or ())
    for account in chosen if unknown else ():
        with _manager(settings, account) as manager:
            unknown -= {subscription.id for subscription in manager.ours()}
    if unknown:  # before anything is removed
        raise ConfigurationError(
            f"no subscription of ours has the id {', '.join(sorted(unknown))};"
            " `ingest webhooks list` shows their ids"
        )
    for account in chosen:
        with _manager(settings, account) as manager:
            removed = manager.remove(ids or [])
        for line in [f"removed {subscription.id}" for subscription in removed] or ["there is none of ours"]:
            print_line(f"{account.name}: {line}")
    note_changed(settings)


@group.command()
@show_waits()
def rotate(
    name: Annotated[str, typer.Argument(help="Account.", autocompletion=complete_account)],
    finish: Annotated[
        bool,
        typer.Option("--finish", help="End the rotation: remove the old secrets if they are no longer used."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --finish: do not wait until deliveries show that.")
    ] = False,
    yes: Yes = False,
    print_secrets: PrintSecrets = False,
    no_reconcile: NoReconcile = False,
    config: Config = None,
) -> None:
    """Give an account another webhook secret. The old one stays valid too, until `--finish`.

    Exit code 0: done; 1: done in part; 2: not possible, or, with `--finish`, not yet possible; 3: something
    could not be reached.

    Examples:
        ingest webhooks rotate sales
        ingest webhooks rotate sales --finish
    """
    from receivers.subscriptions.check import check_url
    from receivers.subscriptions.state import note_changed
    from receivers.subscriptions.webhook_secrets import Rotation

    settings = _settings(config)
    (account,) = _choose_accounts(settings, [name])
    store = _secret_store(account, print_secrets=print_secrets)
    if finish:
        _confirm(yes, f"Drop the old webhook secrets of {name}?")
        _finish_rotation(settings, account, store, force=force)
        return
    _confirm(yes, f"Give {name} another webhook secret?")
    trouble = ""
    if view.has_api(account):
        check_url(account)
        with _manager(settings, account, store) as manager:
            applied = manager.rotate()
        remaining = [step.why for step in applied.plan if step.is_change]
        if remaining or not applied.created:
            trouble = "not everything has another secret" if applied.created else "nothing was changed"
            trouble = "; ".join([trouble, *remaining, f"look at `ingest webhooks plan {name}`"])
    else:
        Rotation(settings, account, store).begin_by_hand()
        view.print_steps(settings, *_choose_accounts(read_settings(config), [name]))
    done = f"a new secret is live, and the old one too; later: ingest webhooks rotate {name} --finish"
    print_line(f"{name}: {trouble or done}")
    is_checked = no_reconcile or _check_spans(settings, [account])
    note_changed(settings)
    if not is_checked or trouble:
        raise typer.Exit(ExitCode.FAILED)


@group.command("test")
@show_waits()
def trial(
    name: Annotated[str, typer.Argument(help="Account.", autocompletion=complete_account)],
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            min=0,
            help="Seconds to wait until a consumer has loaded it.",
            show_default="60, and the time between two loads",
        ),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Send a harmless signed delivery to the account's public URL, and say where it stops, and why.

    The delivery is followed to the warehouse. The vendor is not called, and no booking is made: the delivery
    becomes a row of booking_events with type <vendor>.ingest.test.

    Exit code 0: it is in the warehouse; 1: something on the way is wrong; 2: a setting is wrong; 3: something
    cannot be reached, or is not running.

    Examples:
        ingest webhooks test sales
        ingest webhooks test sales --json
    """
    from ingest.cli.webhooks_trial import run_trial

    settings = _settings(config)
    (account,) = settings.choose_accounts([name])
    patience = _TRIAL_SECONDS + settings.linger.total_seconds() if wait is None else wait
    raise typer.Exit(run_trial(settings, account, patience, as_json=as_json))


def _finish_rotation(settings: Settings, account: AnyAccount, store: "SecretStore", *, force: bool) -> None:
    from receivers.subscriptions.webhook_secrets import Rotation

    if view.has_api(account):
        with _manager(settings, account, store) as manager:
            dropped = manager.finish_rotation(force=force)
    else:
        dropped = Rotation(settings, account, store).finish_by_hand(force=force)
    count = counted(len(dropped), "old secret") if dropped else "no old secrets"
    print_line(f"{account.name}: {count} dropped")


def _settings(config: str | None) -> Settings:
    configure_logging("webhooks")
    return read_settings(config)


def _choose_accounts(settings: Settings, names: Sequence[str] | None) -> list[AnyAccount]:
    accounts = settings.choose_accounts(names or ())
    if not accounts:
        raise ConfigurationError(NO_ACCOUNT)
    return accounts


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "There is no terminal to confirm on. Review `ingest webhooks plan`, then pass --yes."
        )
    confirm(question)


def _manager(
    settings: Settings, account: AnyAccount, store: "SecretStore | None" = None
) -> "closing[SubscriptionManager]":
    from receivers.subscriptions.check import open_manager

    return closing(open_manager(settings, account, store))


def _secret_store(account: AnyAccount, *, print_secrets: bool) -> "SecretStore":
    from receivers.subscriptions.webhook_secrets import FileSecretStore, PrintedSecretStore

    if print_secrets:
        return PrintedSecretStore(account.settings, lambda variable, value: print_line(f"{variable}={value}"))
    return FileSecretStore(account.settings)


def _check_spans(settings: Settings, accounts: Sequence[AnyAccount]) -> bool:
    """Reconcile what webhooks may have missed; return whether nothing is missing any more."""
    from consumers.dead_letters.redrive import open_letter_times
    from receivers.reconcile.run import open_reconciler
    from receivers.subscriptions.check import check_span, unchecked_spans

    spans = unchecked_spans(settings, [account for account in accounts if view.has_api(account)])
    troubles = []
    for span in spans:
        view.print_span(span)
        try:
            with open_reconciler(
                settings, lambda *_: None, lambda: open_letter_times(settings)
            ) as reconciler:
                report = check_span(settings, span, reconciler)
            if report is None:
                raise AssertionError("nobody stops this reconciler")
            trouble = view.print_checked(span, report)
        except IngestError as error:
            trouble = str(error)
        if trouble:
            troubles.append(trouble)
            view.print_unchecked(span, trouble)
    return not troubles
