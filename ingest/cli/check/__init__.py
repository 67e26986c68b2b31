"""`check`: try what receiver, consumer, reconciliation and sync need, and leave nothing behind."""

import logging
from collections.abc import Iterator
from functools import partial

import typer

from ingest.cli.check.local import check_accounts, check_disk, check_folders, check_listeners
from ingest.cli.check.network import check_clock, check_public_url
from ingest.cli.check.run import Check, run_groups
from ingest.cli.check.vendors import check_rest, check_webhooks
from ingest.cli.exit_codes import ExitCode
from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import Console, print_json, print_line
from ingest.finding import Finding, State
from ingest.settings import Settings
from ingest.telemetry import configure_logging

_LABELS = {
    State.OK: ("ok  ", "green"),
    State.WARNING: ("warn", "yellow"),
    State.FAILED: ("FAIL", "red"),
    State.SKIPPED: ("skip", "yellow"),
}


def check(as_json: AsJson = False, config: Config = None) -> None:
    """Try all that is needed to run, say what to do where something fails, and what to give each vendor.

    Nothing is written, created or changed: not on this machine, in Kafka, in the warehouse or at a vendor.

    Exit code 0: all works, perhaps with warnings; 1: something fails; 2: the settings cannot be read; 3: all
    that fails cannot be reached right now.

    Examples:
        ingest check
        ingest check --json
    """
    settings = read_settings(config)
    configure_logging("check", level=logging.CRITICAL)  # the findings say it all
    findings = []
    for finding in _run_checks(settings, quiet=as_json):
        findings.append(finding)
        if not as_json:
            print_line(_LABELS[finding.state], " ", (finding.check, "bold"), f": {finding.sentence}")
    urls = {name: account.webhook_urls for (_, name), account in settings.build_accounts().items()}
    if as_json:
        print_json({"checks": [finding.to_json() for finding in findings], "webhook_urls": urls})
    else:
        _print_urls(urls)
    if failures := [finding for finding in findings if finding.failed]:
        is_unavailable = all(finding.unreachable for finding in failures)
        raise typer.Exit(ExitCode.UNAVAILABLE if is_unavailable else ExitCode.FAILED)


def _run_checks(settings: Settings, *, quiet: bool) -> Iterator[Finding]:
    """Run all checks and yield their findings.

    Those of this machine come first: they are done before the modules of the others are imported.
    """
    console = Console(stderr=True, quiet=quiet)
    for build_groups in (_local_checks, _other_checks):
        with console.status("checking …"):
            groups = build_groups(settings)
        pending = [check.name for group in groups for check in group]
        results = run_groups(groups)
        while pending:
            # The status ends before the findings are printed: it would catch what is printed inside.
            with console.status(f"checking {', '.join(pending[:3])} …"):
                check, findings = next(results)
            pending.remove(check.name)
            yield from findings


def _local_checks(settings: Settings) -> list[list[Check]]:
    return [
        [
            Check("accounts", partial(check_accounts, settings)),
            Check("listeners", partial(check_listeners, settings)),
            Check("folders", partial(check_folders, settings)),
            Check("disk", partial(check_disk, settings)),
        ]
    ]


def _other_checks(settings: Settings) -> list[list[Check]]:
    # All that needs dlt is imported here, because two threads cannot do it at once.
    from consumers.table_check import check_tables
    from consumers.warehouse.rights import check_warehouse
    from receivers.spool.folder import check_spool

    accounts = list(settings.build_accounts().values())
    for account in accounts:
        _ = account.rest_class  # imports the vendor's REST side
    return [
        [Check("public url", partial(check_public_url, settings))],
        [Check("clock", partial(check_clock, settings))],
        [Check("log", settings.build_log().check), Check("spool", partial(check_spool, settings))],
        *([Check(f"REST {account.name}", partial(check_rest, settings, account))] for account in accounts),
        [  # one group, because DuckDB lets a process open a file in one way at a time
            Check("warehouse", partial(check_warehouse, settings)),
            Check("tables", partial(check_tables, settings)),
            *(
                Check(f"webhooks {account.name}", partial(check_webhooks, settings, account))
                for account in accounts
            ),
        ],
    ]


def _print_urls(urls_of_accounts: dict[str, list[str]]) -> None:
    print_line("")
    print_line(
        "Give each vendor its webhook URL (`ingest webhooks apply` does it, where the vendor has an API):"
    )
    for name, urls in urls_of_accounts.items():
        for url in urls:
            print_line(f"  {name}: {url}")
