"""Which accounts and resources to sync, one after the other; what goes wrong with one is told and does not stop the others."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from consumers.warehouse.sync import Loaded, SyncPipeline
from ingest.errors import ConfigurationError, IngestError, LoadRefused, VendorBusy
from ingest.settings import NO_CREDENTIALS, Settings
from ingest.vendors import AnyAccount
from ingest.vendors.rest import AnyRest, load_rest

log = structlog.get_logger()

# Told of account, resource and rows read so far: 0 when it begins.
Follow = Callable[[str, str, int], None]


@dataclass(frozen=True, slots=True)
class Synced:
    """How one resource of an account went; of an account that could not even be asked, with the only resource that was wanted, or none.

    `absent`, `keyless` and `refused` are what was left out: parts of what the vendor no longer has, records without a key, and records that
    the destination refuses, with its reason.
    """

    account: str
    vendor: str
    resource: str | None
    table: str | None
    rows: int
    seconds: float
    problem: IngestError | None = None
    absent: tuple[str, ...] = ()
    keyless: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def sync(
    settings: Settings, name: str | None, resources: Sequence[str], follow: Follow, ids: Sequence[str] = ()
) -> Iterator[Synced]:
    """All accounts that have what REST needs, or one; its usual resources, or those named. Raises ConfigurationError for unknown names.

    `ids` are of the objects wanted of a resource that has no list.
    """
    only = resources[0] if len(resources) == 1 else None
    for account in _accounts(settings, name):
        try:
            rest = load_rest(account.vendor)(account, Path(settings.reconcile.state_dir))
            _name_ids(rest, resources, ids)
            pipeline = SyncPipeline(settings, rest)
        except IngestError as problem:
            if isinstance(problem, ConfigurationError) and name is not None:
                raise
            yield Synced(account.name, account.vendor, only, None, 0, 0.0, problem)
            continue
        with closing(pipeline):
            yield from _account(pipeline, account, resources, follow)


def _name_ids(rest: AnyRest, resources: Sequence[str], ids: Sequence[str]) -> None:
    """Raises ConfigurationError where ids are named for nothing, or needed and not named."""
    wanted = [resource for resource in resources if resource in rest.by_id]
    if ids and not wanted:
        known = " or ".join(rest.by_id)
        raise ConfigurationError(
            f"--id is for resources without a list; name one of them: {known}"
            if known
            else f"--id: {rest.account.vendor} has no resource for it"
        )
    if wanted and not ids:
        raise ConfigurationError(
            f"{rest.account.vendor} has no list of {wanted[0]}: name those you want with --id, once for each"
        )
    rest.ids = tuple(dict.fromkeys(ids))


def _account(
    pipeline: SyncPipeline, account: AnyAccount, resources: Sequence[str], follow: Follow
) -> Iterator[Synced]:
    if unknown := sorted(set(resources) - set(pipeline.resources)):
        raise ConfigurationError(
            f"{account.vendor} has no resource {', '.join(unknown)}: known are {', '.join(pipeline.resources)}"
        )
    busy: VendorBusy | None = None
    for resource in resources or pipeline.usual:
        if busy:  # it would answer the others no sooner
            yield Synced(account.name, account.vendor, resource, pipeline.table(resource), 0, 0.0, busy)
            continue
        synced = _resource(pipeline, account, resource, follow)
        yield synced
        busy = synced.problem if isinstance(synced.problem, VendorBusy) else None


def _resource(pipeline: SyncPipeline, account: AnyAccount, resource: str, follow: Follow) -> Synced:
    name, started, read = account.name, time.monotonic(), 0
    problem: IngestError | None = None

    def count(more: int) -> None:
        nonlocal read
        read += more
        follow(name, resource, read)

    loaded = Loaded(0, (), ())
    follow(name, resource, 0)
    try:
        loaded = pipeline.load(resource, count)
    except IngestError as error:
        problem = error
    except Exception as error:  # ours, or of a library: the other resources are loaded all the same
        log.exception("sync.crashed", account=name, resource=resource)
        problem = LoadRefused(
            f"{account.vendor} account {name}: {resource} fails with {type(error).__name__}; the log has its place in the code"
        )
    seconds = time.monotonic() - started
    return Synced(
        name,
        account.vendor,
        resource,
        pipeline.table(resource),
        loaded.rows,
        seconds,
        problem,
        loaded.absent,
        loaded.keyless,
        loaded.refused,
    )


def _accounts(settings: Settings, name: str | None) -> list[AnyAccount]:
    if name is not None:
        return settings.choose_accounts([name])
    able = [account for account in settings.choose_accounts([]) if account.settings.can_read()]
    if not able:
        raise ConfigurationError(NO_CREDENTIALS)
    return able
