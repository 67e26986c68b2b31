"""`check`: tries what receiver, consumer, reconciliation and sync need, and leaves nothing behind."""

import logging
from collections.abc import Iterator
from functools import partial

import typer

from ingest.cli.check.local import check_accounts, check_disk, check_folders, check_listeners
from ingest.cli.check.network import check_clock, check_public_url
from ingest.cli.check.run import Check, run_lanes
from ingest.cli.check.vendors import check_rest, check_webhooks
from ingest.cli.options import UNAVAILABLE, AsJson, Config, settings_of
from ingest.cli.output import Console, print_json, print_line
from ingest.finding import Finding, State
from ingest.settings import Settings
from ingest.telemetry import configure_logging
from ingest.vendors import AnyAccount

_WORDS = {
    State.OK: ("ok  ", "green"),
    State.WARNING: ("warn", "yellow"),
    State.FAILED: ("FAIL", "red"),
    State.SKIPPED: ("skip", "yellow"),
}


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(check)


def check(as_json: AsJson = False, config: Config = None) -> None:
    """Try everything that is needed to run, say what to do where something fails, and what to give each vendor.

    Nothing is written, created or changed: not on this machine, in Kafka, in the warehouse or at a vendor.

    Exit code 0: all works, perhaps with warnings; 1: something fails; 2: the settings cannot be read; 3: all that fails cannot be reached right now.

    Examples:
        ingest check
        ingest check --json
    """
    settings = settings_of(config)
    configure_logging("check", level=logging.CRITICAL)  # the findings tell it all
    findings = []
    for found in _findings(settings, quiet=as_json):
        findings.append(found)
        if not as_json:
            _tell(found)
    urls = {name: _webhook_urls(account) for (_, name), account in settings.build_accounts().items()}
    if as_json:
        print_json({"checks": [found.to_json() for found in findings], "webhook_urls": urls})
    else:
        _tell_urls(urls)
    if failures := [found for found in findings if found.failed]:
        raise typer.Exit(UNAVAILABLE if all(found.unreachable for found in failures) else 1)


def _findings(settings: Settings, *, quiet: bool) -> Iterator[Finding]:
    """What can be looked at here comes first: it is there at once, while the rest is still being loaded."""
    console = Console(stderr=True, quiet=quiet)
    for lanes in (_local, _others):
        with console.status("checking …"):
            checks = lanes(settings)
        left = [check.name for lane in checks for check in lane]
        results = run_lanes(checks)
        while left:
            with console.status(
                f"checking {', '.join(left[:3])} …"
            ):  # ends before anything is printed, which it would catch
                done, findings = next(results)
            left.remove(done.name)
            yield from findings


def _local(settings: Settings) -> list[list[Check]]:
    looks = {
        "accounts": check_accounts,
        "listeners": check_listeners,
        "folders": check_folders,
        "disk": check_disk,
    }
    return [[Check(name, partial(look, settings)) for name, look in looks.items()]]


def _others(settings: Settings) -> list[list[Check]]:
    """Those that ask the warehouse are one lane: DuckDB lets a process open a file in one way at a time.

    All that needs dlt is imported here, because two threads cannot do it at once.
    """
    from consumers.table_check import check_tables
    from consumers.warehouse.rights import check_warehouse
    from ingest.vendors.rest import load_rest
    from receivers.spool.folder import check_spool

    accounts = list(settings.build_accounts().values())
    for account in accounts:
        load_rest(account.vendor)
    return [
        [Check("public url", partial(check_public_url, settings))],
        [Check("clock", partial(check_clock, settings))],
        [Check("log", settings.build_log().check), Check("spool", partial(check_spool, settings))],
        *([Check(f"REST {account.name}", partial(check_rest, settings, account))] for account in accounts),
        [
            Check("warehouse", partial(check_warehouse, settings)),
            Check("tables", partial(check_tables, settings)),
            *(
                Check(f"webhooks {account.name}", partial(check_webhooks, settings, account))
                for account in accounts
            ),
        ],
    ]


def _webhook_urls(account: AnyAccount) -> list[str]:
    return [account.webhook_url + (f"?{query}" if query else "") for query in account.webhook_queries()]


def _tell(found: Finding) -> None:
    print_line(_WORDS[found.state], " ", (found.check, "bold"), f": {found.sentence}")


def _tell_urls(urls: dict[str, list[str]]) -> None:
    print_line("")
    print_line(
        "Give each vendor its webhook URL (`ingest webhooks apply` does it, where the vendor has an API):"
    )
    for name, lines in urls.items():
        for line in lines:
            print_line(f"  {name}: {line}")
