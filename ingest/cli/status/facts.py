"""Facts about the processes, the log, the spools, the warehouse and the disks, gathered side by side."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ingest.address import local_address
from ingest.disk import free_bytes
from ingest.errors import IngestError, NoSuchTable, NothingLoaded
from ingest.finding import State
from ingest.settings import ConsumerSettings, ReceiverSettings, ReconcileSettings, Settings

TABLES = ("bookings", "booking_events", "dead_letters", "reconciliations")
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
_LETTERS_READ = 5_000  # of the newest letters; each has to be read to know whether it is still open

Listener = ReceiverSettings | ConsumerSettings | ReconcileSettings
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the product, as its admin listener describes it.

    `state` is `ready`, `not ready`, `stopped` (nobody listens), `silent` (no answer), `refused` (the token is
    wrong), `foreign` (another program listens) or `unknown` (no fixed port). `samples` are its metrics, each
    a name, labels and a value.
    """

    name: str
    state: str
    address: str = ""
    reasons: tuple[str, ...] = ()
    samples: tuple[tuple[str, dict[str, str], float], ...] = field(default=(), repr=False)

    def by_account(self, metric: str, label: str) -> dict[tuple[str, str], dict[str, float]]:
        """Return a metric's values for each account, by the value of another label."""
        values: dict[tuple[str, str], dict[str, float]] = {}
        for name, labels, value in self.samples:
            if name == metric and value and {"vendor", "account", label} <= labels.keys():
                values.setdefault((labels["vendor"], labels["account"]), {})[labels[label]] = value
        return values


@dataclass(frozen=True, slots=True)
class Disk:
    """Free bytes on the disk of a folder. `what` is the setting that names the folder."""

    what: str
    folder: str
    free: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that `status` knows.

    `log`, `spool` and `warehouse` have the key `error` where they could not be asked, the warehouse the key
    `nothing` before the first load.
    """

    parts: Sequence[Part]
    log: Row
    spool: Row
    warehouse: Row
    disks: Sequence[Disk]


def gather(settings: Settings) -> Facts:
    """Gather all facts. Raises nothing: what cannot be asked has the reason instead."""
    listeners: dict[str, Listener] = {"receiver": settings.receiver, "consumer": settings.consumer}
    if any(account.can_reconcile() for account in settings.accounts.values()):
        listeners["reconciliation"] = settings.reconcile
    with ThreadPoolExecutor() as threads:
        parts = [threads.submit(_ask_part, name, listener) for name, listener in listeners.items()]
        log, spool, warehouse = (
            threads.submit(_or_error, ask, settings) for ask in (_ask_log, _ask_spool, _ask_warehouse)
        )
        return Facts(
            [part.result() for part in parts],
            log.result(),
            spool.result(),
            warehouse.result(),
            _ask_disks(settings),
        )


def _or_error(ask: Callable[[Settings], Row], settings: Settings) -> Row:
    try:
        return ask(settings)
    except NothingLoaded as nothing:
        return {"nothing": str(nothing)}
    except IngestError as error:
        return {"error": str(error)}


def _ask_part(name: str, listener: Listener) -> Part:
    if not listener.admin_port:
        return Part(name, "unknown")
    address = str(local_address(listener.admin_host, listener.admin_port))
    token = listener.admin_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        with httpx.Client(
            base_url=f"http://{address}", headers=headers, timeout=_ANSWER_SECONDS, trust_env=False
        ) as client:
            return _part_of(name, address, client.get("/readyz"), client.get("/metrics"))
    except httpx.ConnectError:
        return Part(name, "stopped", address)
    except httpx.HTTPError as error:
        return Part(name, "foreign" if isinstance(error, httpx.RemoteProtocolError) else "silent", address)


def _part_of(name: str, address: str, ready: httpx.Response, metrics: httpx.Response) -> Part:
    """Read what a process says of itself. Another program that listens there answers in another form."""
    if ready.status_code == httpx.codes.UNAUTHORIZED:
        return Part(name, "refused", address)
    try:
        readiness = ready.json()
        state = "ready" if readiness["ready"] else "not ready"
        reasons = tuple(map(str, readiness["reasons"]))
        families = text_string_to_metric_families(metrics.raise_for_status().text)
        samples = tuple(
            (sample.name, sample.labels, sample.value) for family in families for sample in family.samples
        )
        return Part(name, state, address, reasons, samples)
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


def _ask_spool(settings: Settings) -> Row:
    """Return the spool files of the receivers on this machine."""
    from receivers.spool.folder import spool_states

    return {"files": [asdict(state) for state in spool_states(settings)]}


def _ask_warehouse(settings: Settings) -> Row:
    """Return what the warehouse has.

    A value is None where its table is missing, which is not the same as empty.
    """
    return {
        "accounts": _accounts(settings),
        "reconciliations": _rows(settings, _LAST_RUNS),
        "tables": [{"table": name, "rows": _count(settings, name)} for name in TABLES],
        "open_dead_letters": _open_letters(settings),
        "changed_by_hand": _changed_by_hand(settings),
    }


def _accounts(settings: Settings) -> list[Row] | None:
    """Return a row for each account of the warehouse, and of the settings: silent accounts must show."""
    from ingest.warehouse.deliveries import last_deliveries

    rows = _rows(settings, _PER_ACCOUNT)
    if rows is None:
        return None
    last_delivery = last_deliveries(settings)
    without_bookings = {"bookings": 0, "newest_change": None, "last_load": None}
    by_account: dict[tuple[str, str], Row] = {
        (account.vendor, name): {"vendor": account.vendor, "account": name, **without_bookings}
        for name, account in settings.accounts.items()
    }
    by_account |= {(row["vendor"], row["account"]): row for row in rows}
    return [{**row, "last_delivery": last_delivery.get(key)} for key, row in sorted(by_account.items())]


def _open_letters(settings: Settings) -> dict[str, int]:
    """Count which of the newest dead letters are not loaded yet, by account."""
    from consumers.dead_letters.letters import DeadLettersTable, LetterFilter
    from consumers.dead_letters.redrive import LetterReader, summarize

    letters = DeadLettersTable(settings)
    newest = summarize(letters, LetterReader(settings), letters.ids(LetterFilter())[-_LETTERS_READ:])
    return Counter(letter.account for letter in newest if not letter.loaded)


def _changed_by_hand(settings: Settings) -> list[Row]:
    """Return findings, as JSON, of tables and rows that are not as loads make them."""
    from consumers.table_check import check_tables

    return [
        finding.to_json()
        for finding in check_tables(settings)
        if finding.state not in {State.OK, State.SKIPPED}
    ]


def _count(settings: Settings, table: str) -> int | None:
    rows = _rows(settings, f"select count(*) as number from {table}")  # noqa: S608 - our own names
    return None if rows is None else int(rows[0]["number"])


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


def _ask_disks(settings: Settings) -> list[Disk]:
    """Return the disks that hold this machine's files."""
    disks = []
    for what, folder in settings.store_folders().items():
        with suppress(OSError):
            disks.append(Disk(what, str(folder), free_bytes(folder)))
    return disks
