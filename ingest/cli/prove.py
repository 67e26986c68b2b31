"""`prove`: say which hours of each account are complete, what is missing, and what would make it provable."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.cli import ExitCode, Stopped
from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import Console, new_table, print_json, print_line, show_waits
from ingest.cli.reconcile import show_progress
from ingest.errors import ConfigurationError, PayloadError
from ingest.settings import Settings
from ingest.spans import PeriodKind, parse_span
from ingest.telemetry import configure_logging
from ingest.times import format_instant, parse_instant
from ingest.warehouse.values import json_value
from ingest.words import counted

if TYPE_CHECKING:
    from ingest.vendors import AnyAccount
    from ingest.warehouse.completeness import HourVerdict
    from receivers.completeness.periods import Period
    from receivers.reconcile.report import Report

_SPANS_SHOWN = 20
_IDS_SHOWN = 10
_KINDS = ("complete", "incomplete", "open", "unprovable")


def prove(
    since: Annotated[
        str,
        typer.Option(
            help="A date, an instant, or how long ago: 2026-03-01, 2026-03-01T09:00Z, 30d.",
            show_default="the first hour that was ever asked for",
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            help="Written like --since.", show_default="the last hour that vendors can be asked for"
        ),
    ] = "",
    account: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this account; can be repeated.",
            show_default="all",
            autocompletion=complete_account,
        ),
    ] = None,
    no_ask: Annotated[
        bool, typer.Option("--no-ask", help="Say what is known, and neither ask vendors nor repair anything.")
    ] = False,
    by: Annotated[
        PeriodKind | None,
        typer.Option(help="Also say it for each day or month, with a digest of its bookings."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the bookings of one account to this CSV file: id, version, time of change."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare one account with this CSV file, which the vendor exported.")
    ] = None,
    id_column: Annotated[
        str, typer.Option(help="With --against: the column with the bookings' ids.")
    ] = "booking_id",
    version_column: Annotated[
        str,
        typer.Option(
            help="With --against: the column with the times of the last change.",
            show_default="only ids are compared",
        ),
    ] = "",
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Say which hours are proven complete, what is missing in the others, and why.

    An hour is complete if every booking that the vendor lists as changed in it is in the warehouse, at that
    version or a newer one. Vendors are asked for the hours that are not proven yet, within their rate limits;
    what is missing is repaired, for which a consumer must be running.

    Exit code 0: all is complete; 1: something is missing or not proven; 2: an argument or a setting is wrong;
    3: a vendor could not be asked, or cannot be asked for a part of it.

    Examples:
        ingest prove
        ingest prove --since 2026-03-01 --until 2026-04-01 --account sales
        ingest prove --no-ask --json
        ingest prove --no-ask --since 2026-01-01 --by month
        ingest prove --account sales --against export.csv --id-column Number --version-column "Last change"
    """
    from ingest.warehouse.completeness import CompletenessTable, hour_of
    from receivers.completeness.verdicts import CLOCK_MARGIN

    settings = read_settings(config)
    configure_logging("prove")
    if export or against:
        if len(account or ()) != 1 or (export and against):
            raise ConfigurationError("--export and --against need one --account, and go one at a time")
        [chosen] = settings.choose_accounts(account or [])
        held = CompletenessTable(settings).held(chosen.vendor, chosen.name)
        if export:
            print_line(f"{counted(_write_export(export, held), 'booking')} written to {export}")
        if against:
            _compare_with_export(held, against, (id_column, version_column), as_json=as_json)
        return
    now = datetime.now(UTC)
    start, end = parse_span(since, until, now)
    last = hour_of(now - settings.reconcile.lag - CLOCK_MARGIN)
    end = min(end, last) if end else last
    accounts = settings.choose_accounts(account or [])
    failed = {} if no_ask else _ask(settings, accounts, start, end, quiet=as_json)
    proofs = [_AccountProof(settings, each, start, end, failed.get(each.name)) for each in accounts]
    if as_json:
        print_json([proof.to_json(by) for proof in proofs], json_value)
    else:
        _print_proofs(proofs)
        if by:
            _print_periods(proofs, by)
    if code := max((proof.exit_code() for proof in proofs), key=_SEVERITY.index, default=0):
        raise typer.Exit(code)


_SEVERITY = (ExitCode.OK, ExitCode.UNAVAILABLE, ExitCode.FAILED)


class _AccountProof:
    """What is known about one account's hours in [since, until), and why its vendor could not be asked."""

    def __init__(
        self,
        settings: Settings,
        account: "AnyAccount",
        since: datetime | None,
        until: datetime,
        failure: str | None,
    ) -> None:
        from ingest.warehouse.completeness import HOUR, CompletenessTable, complete_until, hours_between
        from receivers.completeness.verdicts import unknown_hour

        self.vendor, self.account = account.vendor, account.name
        stored = CompletenessTable(settings).verdicts(account.vendor, account.name, since, until)
        first = since or min(stored, default=None)
        hours = hours_between(first, until) if first else ()
        self.verdicts = [
            stored.get(hour) or unknown_hour(account.vendor, account.name, hour, until) for hour in hours
        ]
        self.complete_until = complete_until(self.verdicts)
        self.failure = failure
        if not account.settings.can_reconcile():
            needed = account.settings.reconcile_needs()
            self.failure = (
                f"the vendor cannot be asked: set {needed}" if needed else account.settings.without_rest()
            )
        self.counts = Counter(verdict.verdict.value for verdict in self.verdicts)
        self._hour = HOUR

    def exit_code(self) -> ExitCode:
        """Return what the account contributes to the exit code."""
        if self.counts["incomplete"] or (self.counts["open"] and not self.failure):
            return ExitCode.FAILED
        if self.failure or self.counts["unprovable"]:
            return ExitCode.UNAVAILABLE
        return ExitCode.OK if self.verdicts else ExitCode.FAILED

    def spans(self) -> Iterator[dict[str, Any]]:
        """Yield the hours that are not complete, those that follow each other for one reason together."""
        for (verdict, reason), group in groupby(self.verdicts, lambda of: (of.verdict.value, of.reason)):
            hours: Sequence[HourVerdict] = list(group)
            if verdict != "complete":
                yield {
                    "from": hours[0].hour,
                    "until": hours[-1].hour + self._hour,
                    "verdict": verdict,
                    "missing": sum(hour.missing for hour in hours),
                    "reason": reason,
                }

    def periods(self, by: PeriodKind) -> "list[Period]":
        """Return the days or months of the hours."""
        from receivers.completeness.periods import roll_up

        return roll_up(self.verdicts, by)

    def to_json(self, by: PeriodKind | None) -> dict[str, Any]:
        """Return what a script needs."""
        periods = {"periods": [asdict(period) for period in self.periods(by)]} if by else {}
        return periods | {
            "vendor": self.vendor,
            "account": self.account,
            "complete_until": self.complete_until,
            "hours": dict(self.counts),
            "listed": sum(verdict.listed for verdict in self.verdicts),
            "missing": sum(verdict.missing for verdict in self.verdicts),
            "failure": self.failure,
            "not_complete": list(self.spans()),
        }


def _ask(
    settings: Settings,
    accounts: "Sequence[AnyAccount]",
    since: datetime | None,
    until: datetime,
    *,
    quiet: bool,
) -> dict[str, str]:
    """Ask the vendors for what is not proven, and return why some could not be asked, by account."""
    from consumers.dead_letters.redrive import open_letter_times
    from receivers.completeness.asking import ask_again
    from receivers.reconcile.run import open_reconciler

    failed: dict[str, str] = {}
    try:
        with (
            show_waits(),
            show_progress(quiet=quiet) as follow,
            open_reconciler(settings, follow, lambda: open_letter_times(settings)) as reconciler,
        ):
            for account in accounts:
                if not account.settings.can_reconcile():
                    continue
                begin = since
                if begin is None and not _has_verdicts(settings, account):
                    begin = until - settings.reconcile.lookback
                reports: list[Report] = ask_again(settings, reconciler, account, begin, until)
                failed |= {report.account: str(report.failure) for report in reports if report.failure}
    except KeyboardInterrupt:
        raise Stopped("stopped: what was proven until now is in the table completeness") from None
    return failed


def _has_verdicts(settings: Settings, account: "AnyAccount") -> bool:
    """Return whether hours were ever asked for, also where a restored warehouse lacks their verdicts."""
    from ingest.warehouse.completeness import CompletenessTable
    from receivers.reconcile.checkpoint import Checkpoint

    checkpoint = Checkpoint(Path(settings.reconcile.state_dir), account.name, dry_run=True)
    stored = CompletenessTable(settings).first_stored(account.vendor, account.name)
    return bool(stored or checkpoint.asked_since())


def _print_proofs(proofs: Sequence[_AccountProof]) -> None:
    table = new_table("account", "complete until", *_KINDS, "missing")
    for proof in proofs:
        until = f"{proof.complete_until:%Y-%m-%d %H:%M} UTC" if proof.complete_until else "not proven"
        kinds = (str(proof.counts[kind]) for kind in _KINDS)
        missing = sum(verdict.missing for verdict in proof.verdicts)
        table.add_row(f"{proof.vendor}/{proof.account}", until, *kinds, str(missing))
    Console().print(table)
    for proof in proofs:
        name = f"{proof.vendor}/{proof.account}"
        if proof.failure:
            print_line(("not asked", "red"), f" {name}: {proof.failure}")
        spans = list(proof.spans())
        for span in spans[:_SPANS_SHOWN]:
            times = f"{span['from']:%Y-%m-%d %H:%M} … {span['until']:%Y-%m-%d %H:%M} UTC"
            print_line((span["verdict"], "red"), f" {name}: {times}: {span['reason']}")
        if len(spans) > _SPANS_SHOWN:
            print_line(
                f"{name}: {len(spans) - _SPANS_SHOWN} more spans: see the table completeness, or --json"
            )


def _print_periods(proofs: Sequence[_AccountProof], by: PeriodKind) -> None:
    table = new_table("account", by.value, *_KINDS, "listed", "missing", "digest")
    for proof in proofs:
        for period in proof.periods(by):
            kinds = (str(period.hours.get(kind, 0)) for kind in _KINDS)
            counts = (str(period.listed), str(period.missing), period.digest or "not proven")
            table.add_row(f"{proof.vendor}/{proof.account}", period.period, *kinds, *counts)
    Console().print(table)


def _compare_with_export(
    held: Iterator[tuple[str, str]], against: Path, columns: tuple[str, str], *, as_json: bool
) -> None:
    """Compare the bookings of an account with an exported file. Ends with 1 if something is missing.

    `columns` are those of ids and of times of change, of which the second may be "".
    """
    from receivers.completeness.comparison import compare_export

    comparison = compare_export(held, _read_export(against, *columns))
    if as_json:
        print_json(asdict(comparison))
    else:
        print_line(
            f"{counted(comparison.exported, 'booking')} in {against}: {len(comparison.missing)} missing here,"
            f" {len(comparison.older)} older here; {len(comparison.only_here)} only here"
        )
        print_line(f"digest here {comparison.digest_here}, there {comparison.digest_there}")
        for what, ids in (("missing here", comparison.missing), ("older here", comparison.older)):
            if ids:
                more = f" and {len(ids) - _IDS_SHOWN} more" if len(ids) > _IDS_SHOWN else ""
                print_line((what, "red"), f": {', '.join(ids[:_IDS_SHOWN])}{more}")
    if not comparison.is_complete:
        raise typer.Exit(ExitCode.FAILED)


def _write_export(file: Path, held: Iterator[tuple[str, str]]) -> int:
    """Write ids, versions and times of change to a CSV file, and return their number."""
    from ingest.clock import version_instant

    number = 0
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["booking_id", "version", "changed_at"])
            for booking_id, version in held:
                number += 1
                changed_at = version_instant(version)
                writer.writerow([booking_id, version, format_instant(changed_at) if changed_at else ""])
    except OSError as error:
        raise ConfigurationError(f"--export {file} cannot be written: {error.strerror}") from None
    return number


def _read_export(file: Path, id_column: str, version_column: str) -> Mapping[str, datetime | None]:
    """Return the time of change of each booking in a CSV file, by id. Raises ConfigurationError."""
    exported: dict[str, datetime | None] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            wanted = [id_column, version_column] if version_column else [id_column]
            if absent := [name for name in wanted if name not in (reader.fieldnames or ())]:
                columns = ", ".join(reader.fieldnames or ()) or "none"
                raise ConfigurationError(f"{file} has no column {absent[0]!r}; its columns: {columns}")
            for line in reader:
                text = (line[version_column] or "").strip() if version_column else ""
                exported[(line[id_column] or "").strip()] = parse_instant(text) if text else None
    except OSError as error:
        raise ConfigurationError(f"--against {file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise ConfigurationError(f"--against {file} is not a CSV file in UTF-8") from None
    except PayloadError as error:
        raise ConfigurationError(f"--against {file}, column {version_column}: {error}") from None
    exported.pop("", None)
    return exported
