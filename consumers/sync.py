"""Syncs accounts' REST resources one after the other. An error in one does not stop the others."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from consumers.warehouse.sync_pipeline import SyncCounts, SyncPipeline
from ingest.errors import ConfigurationError, IngestError, LoadRefused, VendorBusy
from ingest.settings import NO_CREDENTIALS, Settings
from ingest.vendors import AnyAccount
from ingest.vendors.rest import AnyRest

log = structlog.get_logger()

Follow = Callable[[str, str, int], None]
"""Called with account, resource and the number of records read so far, which is 0 at the beginning."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of one resource of an account, or of an account that could not be asked for its resources.

    The latter names the resource only where exactly one was wanted. `absent`, `keyless` and `refused` are
    what was left out, as in SyncCounts.
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
) -> Iterator[SyncResult]:
    """Sync one account, or all with credentials for REST: their usual resources, or those named.

    `ids` are the objects wanted of a resource that has no list. Raises ConfigurationError for unknown names.
    """
    only_resource = resources[0] if len(resources) == 1 else None
    for account in _choose_accounts(settings, name):
        try:
            rest = account.rest(Path(settings.reconcile.state_dir))
            _set_ids(rest, resources, ids)
            pipeline = SyncPipeline(settings, rest)
        except IngestError as problem:
            if isinstance(problem, ConfigurationError) and name is not None:
                raise
            yield SyncResult(account.name, account.vendor, only_resource, None, 0, 0.0, problem)
            continue
        with closing(pipeline):
            yield from _sync_account(pipeline, account, resources, follow)


def _choose_accounts(settings: Settings, name: str | None) -> list[AnyAccount]:
    if name is not None:
        return settings.choose_accounts([name])
    accounts = [account for account in settings.choose_accounts([]) if account.settings.can_read()]
    if not accounts:
        raise ConfigurationError(NO_CREDENTIALS)
    return accounts


def _set_ids(rest: AnyRest, resources: Sequence[str], ids: Sequence[str]) -> None:
    """Set the ids to read.

    Raises ConfigurationError where no resource needs them, or one needs them and has none.
    """
    without_list = [resource for resource in resources if resource in rest.resources_by_id]
    if ids and not without_list:
        known = " or ".join(rest.resources_by_id)
        raise ConfigurationError(
            f"--id is for resources without a list; name one of them: {known}"
            if known
            else f"--id: {rest.account.vendor} has no resource for it"
        )
    if without_list and not ids:
        raise ConfigurationError(
            f"{rest.account.vendor} has no list of {without_list[0]}: name those you want with --id, once"
            " for each"
        )
    rest.requested_ids = tuple(dict.fromkeys(ids))


def _sync_account(
    pipeline: SyncPipeline, account: AnyAccount, resources: Sequence[str], follow: Follow
) -> Iterator[SyncResult]:
    if unknown := sorted(set(resources) - set(pipeline.resources)):
        raise ConfigurationError(
            f"{account.vendor} has no resource {', '.join(unknown)}: known are"
            f" {', '.join(pipeline.resources)}"
        )
    busy: VendorBusy | None = None
    for resource in resources or pipeline.usual:
        if busy:  # it would answer the others no sooner
            yield SyncResult(account.name, account.vendor, resource, pipeline.table(resource), 0, 0.0, busy)
            continue
        result = _sync_resource(pipeline, account, resource, follow)
        yield result
        busy = result.problem if isinstance(result.problem, VendorBusy) else None


def _sync_resource(pipeline: SyncPipeline, account: AnyAccount, resource: str, follow: Follow) -> SyncResult:
    started = time.monotonic()
    records = 0
    counts = SyncCounts(0, (), ())
    problem: IngestError | None = None

    def count(number: int) -> None:
        nonlocal records
        records += number
        follow(account.name, resource, records)

    follow(account.name, resource, 0)
    try:
        counts = pipeline.load(resource, count)
    except IngestError as error:
        problem = error
    except Exception as error:  # ours, or of a library: the other resources are loaded all the same
        log.exception("sync.crashed", account=account.name, resource=resource)
        problem = LoadRefused(
            f"{account.vendor} account {account.name}: {resource} failed with {type(error).__name__}; the "
            "log has the place in the code"
        )
    return SyncResult(
        account.name,
        account.vendor,
        resource,
        pipeline.table(resource),
        counts.rows,
        time.monotonic() - started,
        problem,
        counts.absent,
        counts.keyless,
        counts.refused,
    )
