"""What the parts, the log, the spools, the warehouse and the disks say of themselves, asked side by side."""

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
    "select vendor, account, count(*) as bookings, max(updated_at) as newest_change, max(loaded_at) as last_load"
    " from bookings group by vendor, account"
)
# The newest of each account; one that a clock which was ahead has written would hide all that came since.
_LAST_RUNS = (
    "select vendor, account, finished_at, outcome, seen, missed, repaired, gone from reconciliations as run where finished_at ="
    " (select max(finished_at) from reconciliations where account = run.account and vendor = run.vendor"
    " and finished_at <= current_timestamp) order by vendor, account"
)
_LETTERS_READ = 5_000  # more are not told apart into open and closed ones: each has to be read

Listener = ReceiverSettings | ConsumerSettings | ReconcileSettings
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the product.

    `state` is `ready`, `not ready`, `stopped` (nobody listens), `silent` (no answer), `refused` (the token is wrong), `foreign` (another
    program listens) or `unknown` (no fixed port). `samples` are its metrics, each a name, labels and a value.
    """

    name: str
    state: str
    address: str = ""
    reasons: tuple[str, ...] = ()
    samples: tuple[tuple[str, dict[str, str], float], ...] = field(default=(), repr=False)

    def by_account(self, metric: str, label: str) -> dict[tuple[str, str], dict[str, float]]:
        """A metric of each account, by the values of one more label."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for name, labels, value in self.samples:
            if name == metric and value and {"vendor", "account", label} <= labels.keys():
                found.setdefault((labels["vendor"], labels["account"]), {})[labels[label]] = value
        return found


@dataclass(frozen=True, slots=True)
class Disk:
    """Room on the disk of a folder, in bytes; `what` is the setting that names the folder."""

    what: str
    folder: str
    free: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that `status` knows. `log`, `spool` and `warehouse` have `error` where they could not be asked; the warehouse `nothing` before the first load."""

    parts: Sequence[Part]
    log: Row
    spool: Row
    warehouse: Row
    disks: Sequence[Disk]


def gather(settings: Settings) -> Facts:
    """Ask everything; whatever cannot be asked says why."""
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
    """What a part tells of itself; whatever else listens there answers in another form."""
    if ready.status_code == httpx.codes.UNAUTHORIZED:
        return Part(name, "refused", address)
    try:
        state = "ready" if _is_ready(ready) else "not ready"
        return Part(name, state, address, _reasons(ready), _samples(metrics.raise_for_status().text))
    except (ValueError, KeyError, TypeError):
        return Part(name, "foreign", address)


def _is_ready(ready: httpx.Response) -> bool:
    """Raises ValueError, KeyError or TypeError for what is no answer of ours."""
    return bool(ready.json()["ready"])


def _reasons(ready: httpx.Response) -> tuple[str, ...]:
    """Raises ValueError, KeyError or TypeError for what is no answer of ours."""
    return tuple(map(str, ready.json()["reasons"]))


def _samples(text: str) -> tuple[tuple[str, dict[str, str], float], ...]:
    families = text_string_to_metric_families(text)
    return tuple(
        (sample.name, sample.labels, sample.value) for family in families for sample in family.samples
    )


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
    """Of receivers on this machine; no files where none has run with these settings."""
    from receivers.spool.folder import spool_states

    return {"files": [asdict(state) for state in spool_states(settings)]}


def _ask_warehouse(settings: Settings) -> Row:
    """None stands for what a table would say that is not there: it is no empty one."""
    return {
        "accounts": _accounts(settings),
        "reconciliations": _rows(settings, _LAST_RUNS),
        "tables": [{"table": name, "rows": _count(settings, name)} for name in TABLES],
        "open_dead_letters": _open_letters(settings),
        "changed_by_hand": _changed_by_hand(settings),
    }


def _accounts(settings: Settings) -> list[Row] | None:
    """Those that have bookings, and those of the settings that have none: nothing else says that an account is silent."""
    from ingest.warehouse.deliveries import last_deliveries

    loaded = _rows(settings, _PER_ACCOUNT)
    if loaded is None:
        return None
    last = last_deliveries(settings)
    empty: Row = {"bookings": 0, "newest_change": None, "last_load": None}
    rows = [
        {"vendor": account.vendor, "account": name, **empty} for name, account in settings.accounts.items()
    ] + loaded
    by_account = {
        key: {**row, "last_delivery": last.get(key)}
        for row in rows
        for key in [(row["vendor"], row["account"])]
    }
    return [by_account[key] for key in sorted(by_account)]


def _open_letters(settings: Settings) -> dict[str, int] | None:
    """How many of the newest dead letters are not loaded yet, by account; None where there is no table."""
    from consumers.dead_letters.letters import Chosen, Letters
    from consumers.dead_letters.listing import listed
    from consumers.dead_letters.reading import Reader

    letters = Letters(settings)
    counts: dict[str, int] = {}
    for letter in listed(letters, Reader(settings), letters.ids(Chosen())[-_LETTERS_READ:]):
        if not letter.loaded:
            counts[letter.account] = counts.get(letter.account, 0) + 1
    return counts


def _changed_by_hand(settings: Settings) -> list[Row]:
    """What is not as loads make it, in tables and rows; each as a finding in JSON."""
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
    """None where the table is not there. Raises WarehouseUnavailable, of it NothingLoaded."""
    from ingest.warehouse.query import query

    try:
        answer = query(settings, sql)
    except NoSuchTable:
        return None
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _ask_disks(settings: Settings) -> list[Disk]:
    """Where this machine's files are."""
    disks = []
    for what, folder in settings.store_folders().items():
        with suppress(OSError):
            disks.append(Disk(what, str(folder), free_bytes(folder)))
    return disks
