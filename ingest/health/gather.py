"""Gather the facts about everything that runs and is stored."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from ingest.address import local_address
from ingest.errors import IngestError, NoSuchTable, NothingLoaded
from ingest.files import free_bytes
from ingest.health.facts import Disk, Facts, Part, Row
from ingest.readiness import State
from ingest.rhythm import WEEKS, Rhythm, learn_rhythm, start_of_hour
from ingest.settings import ConsumerSettings, ReceiverSettings, ReconcileSettings, Settings

_TABLES = (
    "bookings",
    "booking_events",
    "dead_letters",
    "reconciliations",
    "completeness",
    "gaps",
    "freshness",
)
_RHYTHM_SECONDS = 86_400.0  # for which rhythms are used
_ANSWER_SECONDS = 5.0  # longer than /readyz takes for its own probes
_PER_ACCOUNT = (
    "select vendor, account, count(*) as bookings, max(updated_at) as newest_change, "
    "max(loaded_at) as last_load"
    " from bookings group by vendor, account"
)
# The newest run of each account that is not in the future: one written by a clock that was ahead would hide
# all later ones.
_LAST_RUNS = (
    "select vendor, account, finished_at, outcome, seen, missed, repaired, gone from "
    "reconciliations as run where finished_at ="
    " (select max(finished_at) from reconciliations where account = run.account and vendor = run.vendor"
    " and finished_at <= current_timestamp) order by vendor, account"
)
_OPEN_GAPS = (
    "select vendor, account, cause, from_at, until_at, found_at, missed, repaired, waits_for from gaps"
    " where closed_at is null order by found_at"
)

Listener = ReceiverSettings | ConsumerSettings | ReconcileSettings


class Rhythms:
    """The rhythms of all accounts, learned anew each day."""

    def __init__(self) -> None:
        self._learned_at = -math.inf
        self._rhythms: dict[tuple[str, str], Rhythm] = {}

    def of_accounts(self, settings: Settings, now: datetime) -> Mapping[tuple[str, str], Rhythm]:
        """Return the rhythm of each account that has one, by vendor and account.

        Raises WarehouseUnavailable.
        """
        from ingest.warehouse.deliveries import hourly_deliveries
        from ingest.warehouse.gaps import read_gaps
        from receivers.completeness.gaps import outage_hours

        if time.monotonic() >= self._learned_at + _RHYTHM_SECONDS:
            since = start_of_hour(now) - timedelta(weeks=WEEKS)
            gaps = read_gaps(settings, since)
            learned = {
                key: learn_rhythm(
                    counts, now, outage_hours((gap for gap in gaps if (gap.vendor, gap.account) == key), now)
                )
                for key, counts in hourly_deliveries(settings, since).items()
            }
            self._rhythms = {key: rhythm for key, rhythm in learned.items() if rhythm}
            self._learned_at = time.monotonic()
        return self._rhythms


def gather(settings: Settings, rhythms: Rhythms | None = None) -> Facts:
    """Gather all facts side by side. Raises nothing: what cannot be asked has the reason instead.

    Whoever gathers often keeps the `rhythms`.
    """
    from receivers.spool.folder import spool_states

    def ask(read: Callable[[Settings], Row]) -> Row:
        try:
            return read(settings)
        except NothingLoaded as nothing:
            return {"nothing": str(nothing)}
        except IngestError as error:
            return {"error": str(error)}

    listeners: dict[str, Listener] = {"receiver": settings.receiver, "consumer": settings.consumer}
    if any(account.can_reconcile() for account in settings.accounts.values()):
        listeners["reconciliation"] = settings.reconcile
    with ThreadPoolExecutor() as threads:
        parts = [threads.submit(_ask_part, name, listener) for name, listener in listeners.items()]
        log = threads.submit(ask, _ask_log)
        spool = threads.submit(ask, lambda _: {"files": [asdict(state) for state in spool_states(settings)]})
        known = rhythms or Rhythms()
        warehouse = threads.submit(ask, lambda settings: _ask_warehouse(settings, known))
        disks = []
        for name, folder in settings.store_folders().items():
            with suppress(OSError):
                disks.append(Disk(name, str(folder), free_bytes(folder)))
        return Facts(
            [part.result() for part in parts], log.result(), spool.result(), warehouse.result(), disks
        )


def _ask_part(name: str, listener: Listener) -> Part:
    """Ask a process how it is. Another program that listens there answers in another form."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    if not listener.admin_port:
        return Part(name, "unknown")
    address = str(local_address(listener.admin_host, listener.admin_port))
    token = listener.admin_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        with httpx.Client(
            base_url=f"http://{address}", headers=headers, timeout=_ANSWER_SECONDS, trust_env=False
        ) as client:
            ready, metrics = client.get("/readyz"), client.get("/metrics")
        if ready.status_code == httpx.codes.UNAUTHORIZED:
            return Part(name, "refused", address)
        readiness = ready.json()
        state = "ready" if readiness["ready"] else "not ready"
        reasons = tuple(map(str, readiness["reasons"]))
        families = text_string_to_metric_families(metrics.raise_for_status().text)
        samples = tuple(
            (sample.name, sample.labels, sample.value) for family in families for sample in family.samples
        )
        return Part(name, state, address, reasons, samples)
    except httpx.ConnectError:
        return Part(name, "stopped", address)
    except httpx.HTTPError as error:
        return Part(name, "foreign" if isinstance(error, httpx.RemoteProtocolError) else "silent", address)
    except (ValueError, KeyError, TypeError):
        return Part(name, "foreign", address)


def _ask_log(settings: Settings) -> Row:
    return {
        "topics": [
            {
                "topic": entry.partition.topic,
                "partition": entry.partition.number,
                "next": entry.next,
                "committed": entry.committed,
                "lag": entry.lag,
                "waiting_since": entry.waiting_since,
            }
            for entry in settings.build_log().backlog()
        ]
    }


def _ask_warehouse(settings: Settings, rhythms: Rhythms) -> Row:
    """Return what the warehouse has.

    A value is None where its table is missing, which is not the same as empty.
    """
    accounts, runs = _accounts(settings, rhythms), _rows(settings, _LAST_RUNS)
    tables = []
    for name in _TABLES:
        rows = _rows(settings, f"select count(*) as number from {name}")  # noqa: S608 - our own names
        tables.append({"table": name, "rows": None if rows is None else int(rows[0]["number"])})
    # Imported only now, because that takes longer than to say that nothing was loaded yet.
    from consumers.dead_letters.redrive import open_letters
    from consumers.table_check import check_tables

    letters = open_letters(settings)
    changes = [
        finding.to_json()
        for finding in check_tables(settings)
        if finding.state not in {State.OK, State.SKIPPED}
    ]
    return {
        "accounts": accounts,
        "reconciliations": runs,
        "gaps": _rows(settings, _OPEN_GAPS),
        "complete_until": _complete_until(settings),
        "tables": tables,
        "open_dead_letters": Counter(letter.account for letter in letters),
        "dead_letters_by_reason": {
            account: dict(Counter(letter.reason for letter in letters if letter.account == account))
            for account in {letter.account for letter in letters}
        },
        "changed_by_hand": changes,
    }


def _complete_until(settings: Settings) -> Row:
    """Return until when each account is proven complete, by account; None where it is not."""
    from ingest.warehouse.completeness import CompletenessTable

    table = CompletenessTable(settings)
    return {
        name: table.complete_until(account.vendor, name)
        for name, account in settings.accounts.items()
        if account.can_reconcile()
    }


def _accounts(settings: Settings, rhythms: Rhythms) -> list[Row] | None:
    """Return a row for each account of the warehouse, and of the settings: silent accounts must show."""
    from ingest.warehouse.deliveries import hourly_deliveries, last_deliveries

    rows = _rows(settings, _PER_ACCOUNT)
    if rows is None:
        return None
    now = datetime.now(UTC)
    last_delivery, in_hour = last_deliveries(settings), hourly_deliveries(settings, start_of_hour(now))
    rhythm = rhythms.of_accounts(settings, now)
    without_bookings = {"bookings": 0, "newest_change": None, "last_load": None}
    by_account: dict[tuple[str, str], Row] = {
        (account.vendor, name): {"vendor": account.vendor, "account": name, **without_bookings}
        for name, account in settings.accounts.items()
    }
    by_account |= {(row["vendor"], row["account"]): row for row in rows}
    return [
        {
            **row,
            "last_delivery": last_delivery.get(key),
            "in_hour": sum(in_hour.get(key, {}).values()),
            **_compare(rhythm.get(key), last_delivery.get(key), now),
        }
        for key, row in sorted(by_account.items())
    ]


def _compare(rhythm: Rhythm | None, last_delivery: datetime | None, now: datetime) -> Row:
    """Return what is usual by a rhythm, and whether no delivery came for longer than it explains."""
    if rhythm is None or last_delivery is None:
        return {"usual_in_hour": 0, "usual_since_delivery": 0, "is_silent": False}
    hour = start_of_hour(now)
    return {
        "usual_in_hour": round(rhythm.expected(hour, hour + timedelta(hours=1))),
        "usual_since_delivery": round(rhythm.expected(last_delivery, now)),
        "is_silent": rhythm.is_silence(last_delivery, now),
    }


def _rows(settings: Settings, sql: str) -> list[Row] | None:
    """Query the warehouse.

    Returns None where the table is missing. Raises WarehouseUnavailable, of it NothingLoaded.
    """
    from ingest.warehouse.query import query

    try:
        answer = query(settings, sql)
    except NoSuchTable:
        return None
    return answer.dicts()
