"""`check`: try what receiver, consumer, reconciliation and sync need, and leave nothing behind."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import typer

from ingest.cli import ExitCode
from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import Console, print_json, print_line
from ingest.errors import IngestError
from ingest.readiness import Finding, State, failed, failure
from ingest.settings import Settings
from ingest.telemetry import configure_logging

_LIMIT_SECONDS = 30.0
_TRIAL_SECONDS = 150.0  # a warehouse of a cloud takes seconds for each statement, and may have to be resumed
_LABELS = {
    State.OK: ("ok  ", "green"),
    State.WARNING: ("warn", "yellow"),
    State.FAILED: ("FAIL", "red"),
    State.SKIPPED: ("skip", "yellow"),
}

RunCheck = Callable[[], Sequence[Finding]]


def check(as_json: AsJson = False, config: Config = None) -> None:
    """Try everything that is needed to run, say how to fix what fails, and print what to give each vendor.

    It leaves nothing behind on this machine, in Kafka, in the warehouse or at a vendor. It tries the
    destination by two loads into a scratch dataset, which cost what loads cost there. With DuckDB that is in
    a file of its own.

    Exit code 0: everything works, perhaps with warnings; 1: something fails; 2: the settings cannot be read;
    3: something cannot be reached right now, and nothing else fails.

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
        print_line("")
        print_line(
            "Give each vendor its webhook URL (`ingest webhooks apply` does it if the vendor has an API):"
        )
        for name, account_urls in urls.items():
            for url in account_urls:
                print_line(f"  {name}: {url}")
    if failures := [finding for finding in findings if finding.failed]:
        is_unavailable = all(finding.unreachable for finding in failures)
        raise typer.Exit(ExitCode.UNAVAILABLE if is_unavailable else ExitCode.FAILED)


def _run_checks(settings: Settings, *, quiet: bool) -> Iterator[Finding]:
    """Run all checks and yield their findings."""
    console = Console(stderr=True, quiet=quiet)
    stages = _check_groups(settings)
    while True:
        with console.status("checking …"):
            groups = next(stages, None)
        if groups is None:
            return
        pending = [check.name for group in groups for check in group]
        results = run_groups(groups)
        while pending:
            # The status ends before the findings are printed: it would catch what is printed inside.
            with console.status(f"checking {', '.join(pending[:3])} …"):
                check, findings = next(results)
            pending.remove(check.name)
            yield from findings


def _check_groups(settings: Settings) -> "Iterator[list[list[Check]]]":
    """Yield groups of checks: those of this machine, then the others.

    The first are done before what the others need is imported. The checks of a group use the same thing.
    """
    from ingest.cli.check import checks

    yield [
        [
            Check("accounts", partial(checks.check_accounts, settings)),
            Check("listeners", partial(checks.check_listeners, settings)),
            Check("folders", partial(checks.check_folders, settings)),
            Check("disk", partial(checks.check_disk, settings)),
        ]
    ]
    # All that needs dlt is imported here, because two threads cannot do it at once.
    from consumers.table_check import check_tables
    from consumers.warehouse.rights import check_warehouse
    from receivers.spool.folder import check_spool

    accounts = list(settings.build_accounts().values())
    for account in accounts:
        _ = account.rest_class  # imports the vendor's REST side
    log = settings.build_log()
    feed = [Check("feed", log.check_feed)] if settings.feed.enabled else []
    yield [
        [Check("public url", partial(checks.check_public_url, settings))],
        [Check("clock", partial(checks.check_clock, settings))],
        [Check("log", log.check), *feed, Check("spool", partial(check_spool, settings))],
        *(
            [Check(f"REST {account.name}", partial(checks.check_rest, settings, account))]
            for account in accounts
        ),
        [  # one group, because DuckDB lets a process open a file in one way at a time
            Check("warehouse", partial(check_warehouse, settings), _TRIAL_SECONDS),
            Check("tables", partial(check_tables, settings)),
            *(
                Check(f"webhooks {account.name}", partial(checks.check_webhooks, settings, account))
                for account in accounts
            ),
        ],
    ]


@dataclass(slots=True)
class Check:
    """One check. `name` is that of its finding; a check with several findings names them itself.

    `limit` is the time in seconds that it may take, if that is another one than usual.
    """

    name: str
    find: RunCheck
    limit: float | None = None
    findings: Sequence[Finding] = ()
    started: float | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Run the check. Whatever goes wrong becomes a finding."""
        self.started = time.monotonic()
        try:
            self.findings = self.find()
        except IngestError as error:
            self.findings = [failure(self.name, error)]
        except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others; its text may quote a secret
            self.findings = [
                failed(self.name, f"the check itself failed ({type(error).__name__})", "report this as a bug")
            ]
        finally:
            self.finished.set()

    def wait(self, limit: float) -> bool:
        """Wait until the check is done. Returns False when it takes longer than `limit` seconds."""
        while not self.finished.wait(0.05):
            if self.started is not None and time.monotonic() - self.started > limit:
                return False
        return True


def run_groups(
    groups: Sequence[Sequence[Check]], limit: float = _LIMIT_SECONDS
) -> Iterator[tuple[Check, Sequence[Finding]]]:
    """Run the groups side by side, and the checks of a group, which use the same thing, one by one.

    Yields every check with its findings in the order given, as soon as it and those before it are done.
    """

    def run_group(group: Sequence[Check]) -> None:
        for check in group:
            check.run()

    for group in groups:
        threading.Thread(target=run_group, args=(group,), daemon=True).start()
    for group in groups:
        late = ""
        for check in group:
            if late:
                yield check, [failed(check.name, f"not checked, because {late} takes too long")]
            elif check.wait(check.limit or limit):
                yield check, check.findings
            else:
                late = check.name
                yield check, [failed(check.name, f"no answer within {check.limit or limit:.0f} s")]
