"""Pipelines that load vendors' REST resources by dlt's `rest_api`.

There is one pipeline per account, and one load per resource. A load is all or nothing, except for single
records that the destination refuses. So is the state from which the next load starts: it is in the warehouse,
and what an attempt left in the working folder is dropped. Each resource has a schema of its own, because dlt
stores how far a resource was read by schema and name: a list that is read once for itself and once for the
parts of its entries must not move the other's mark.
"""

import itertools
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import dlt
import structlog
from dlt.extract import DltResource, DltSource
from dlt.sources.rest_api import rest_api_resources

from consumers.warehouse.fields import Fields
from consumers.warehouse.locks import loading_turn, lock_folder
from consumers.warehouse.sync_store import SyncStore
from ingest.destinations import FILESYSTEM
from ingest.errors import IngestError, LoadRefused, VendorUnavailable
from ingest.settings import Settings, WarehouseSettings
from ingest.vendors.rest import AnyRest
from ingest.warehouse.destination import destination, staging_bucket, sync_pipeline
from ingest.warehouse.errors import causes_of, translated

log = structlog.get_logger()

_TURN_SECONDS = 60.0
_MOST_REFUSED = 20  # records of a resource; more mean that something is wrong with the table

Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SyncCounts:
    """The number of `rows` of a resource's table, and what was left out.

    `absent` are requests for parts of what the vendor no longer has, `keyless` records without a key, and
    `refused` the keys of records that the destination refuses, each with its reason.
    """

    rows: int
    absent: tuple[str, ...]
    keyless: tuple[str, ...]
    refused: tuple[str, ...] = ()


class _RowFile:
    """The rows of a resource in a temporary file, so that they need not be read from the vendor again.

    `key` are the columns that distinguish a row from the account's others; without them no row is stored.
    `owners` are those of `Fields`.
    """

    def __init__(self, file: IO[bytes], key: Sequence[str]) -> None:
        self.key = key
        self.owners: dict[str, str] = {}
        self._file = file

    def add(self, row: dict[str, Any]) -> None:
        """Store a row."""
        if self.key:
            pickle.dump(row, self._file)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows."""
        self._file.seek(0)
        rows = []
        with suppress(EOFError):
            while True:
                rows.append(pickle.load(self._file))  # noqa: S301 - written by `add`, and nobody else can open the file
        return rows

    def key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the key of a row."""
        return tuple(row.get(name) for name in self.key)


class SyncPipeline:
    """The pipeline of an account, which one process uses at a time.

    `usual` are those of its `resources` that are loaded when none is named.
    """

    def __init__(self, settings: Settings, rest: AnyRest) -> None:
        """Lock the pipeline, and ask the vendor for its lists where they depend on the account.

        Raises VendorUnavailable, VendorRefused, ConfigurationError, WarehouseUnavailable.
        """
        self._settings = settings
        self._account = rest.account.name
        self._vendor = rest.account.vendor
        self._label = rest.label
        self._name = f"ingest_sync_{self._account}"
        self._folder = Path(settings.warehouse.work_dir) / self._name
        self._pipeline: dlt.Pipeline | None = None
        self._store = _store(settings.warehouse)
        self._folder_lock = lock_folder(
            self._folder, f"another sync of account {self._account} is running: wait for its end"
        )
        try:
            with self._reading("its resources"):
                self._config = rest.config()
                self._absent = rest.child_session.absent
                declared = self._declared_resources()
                self.resources = list(declared)
                self.usual = [name for name, resource in declared.items() if resource.selected]
        except BaseException:
            self._folder_lock.release()
            raise

    def table(self, resource: str) -> str:
        """Return the name of a resource's table."""
        return f"{self._vendor}__{resource}"

    def load(self, name: str, count: Count) -> SyncCounts:
        """Load a resource, and call `count` with the number of records as they are read.

        Raises VendorUnavailable, VendorRefused, WarehouseUnavailable, LoadRefused; its tables are then as
        they were.
        """
        self._absent.clear()
        keyless: list[str] = []
        refused: dict[tuple[Any, ...], str] = {}
        with TemporaryFile() as file:
            row_file = _RowFile(file, _primary_key(self._declared_resources()[name]))
            # The pipeline is used again only if all goes well.
            pipeline, self._pipeline = self._pipeline or self._restore_pipeline(), None
            try:
                resource = self._resource_to_read(name, count, keyless, row_file)
                self._pipeline, rows = self._load(pipeline, resource)
            except LoadRefused as refusal:
                if not row_file.key:  # a part of it would replace the others
                    raise
                rows = self._load_apart(name, row_file, refusal, refused)
        for key, why in refused.items():
            log.warning("sync.record_refused", account=self._label, resource=name, key=key, why=why)
        reasons = (f"{', '.join(map(str, key))} ({why})" for key, why in refused.items())
        return SyncCounts(rows, tuple(self._absent), tuple(keyless), tuple(reasons))

    def _load_apart(
        self, name: str, row_file: _RowFile, refusal: LoadRefused, refused: dict[tuple[Any, ...], str]
    ) -> int:
        """Load rows in parts, halved until the records to blame are alone; return how many rows were loaded.

        How far the vendor's list was read is not stored, so that the next sync reads the refused records
        again. Raises the refusal where too many are refused; what was loaded by then is right.
        """
        loaded = 0
        pipeline: dlt.Pipeline | None = None
        parts = _halves(row_file.rows())
        while parts:
            part = parts.pop()
            pipeline = pipeline or self._restore_pipeline()
            try:
                pipeline, rows = self._load(pipeline, self._resource_of_rows(name, part, row_file.owners))
                loaded += rows
            except LoadRefused as why:
                pipeline = None
                if len(part) > 1:
                    parts += _halves(part)
                    continue
                refused[row_file.key_of(part[0])] = str(why)
                if len(refused) > _MOST_REFUSED:
                    raise refusal from None
        return loaded

    def close(self) -> None:
        """Release the pipeline, and remove its folder."""
        if self._pipeline and self._pipeline.is_active:
            self._pipeline.deactivate()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder_lock.release()

    def _load(self, pipeline: dlt.Pipeline, resource: DltResource) -> tuple[dlt.Pipeline | None, int]:
        """Load a resource; return the pipeline for the next one, if it can be used again, and the rows."""
        source = DltSource(self._schema(pipeline, resource.name), self._vendor, [resource])
        with self._reading(resource.name):
            pipeline.extract(source)
            counts = pipeline.normalize().row_counts
        table, key = self.table(resource.name), _primary_key(self._declared_resources()[resource.name])
        with loading_turn(self._settings, _TURN_SECONDS), translated():
            next_pipeline = self._store.load(pipeline, table, key)
        return next_pipeline, counts.get(table, 0)

    def _restore_pipeline(self) -> dlt.Pipeline:
        """Make the pipeline anew, with the state of the last load that succeeded."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with loading_turn(self._settings, _TURN_SECONDS), translated():
            pipeline = dlt.pipeline(
                self._name,
                pipelines_dir=self._settings.warehouse.work_dir,
                destination=destination(self._settings, sync_pipeline(self._account)),
                staging=staging_bucket(self._settings, sync_pipeline(self._account)),
                dataset_name=self._settings.warehouse.dataset,
            )
            self._store.restore(pipeline)
        return pipeline

    def _schema(self, pipeline: dlt.Pipeline, resource: str) -> dlt.Schema:
        """Return the warehouse's newest schema of a resource, with which the types must agree."""
        with loading_turn(self._settings, _TURN_SECONDS), translated():
            return self._store.schema(pipeline, f"{self._vendor}_{resource}")

    def _declared_resources(self) -> dict[str, DltResource]:
        return {resource.name: resource for resource in rest_api_resources(self._config)}

    def _resource_to_read(
        self, name: str, count: Count, keyless: list[str], row_file: _RowFile
    ) -> DltResource:
        """Return the declared resource, with rows made of its records."""
        resource = self._declared_resources()[name]
        key = _primary_key(resource)
        resource.selected = True
        resource.add_filter(_has_key(key, keyless))
        resource.add_map(self._row_maker(name, count, row_file))
        return self._with_hints(resource, name, key)

    def _resource_of_rows(self, name: str, rows: list[dict[str, Any]], owners: dict[str, str]) -> DltResource:
        """Return a resource of rows that were read already, with the owners of its columns."""

        def store_owners(row: dict[str, Any]) -> dict[str, Any]:
            dlt.current.resource_state(name)["columns"] = owners
            return row

        declared = self._declared_resources()[name]
        columns = declared.compute_table_schema().get("columns", {})
        resource: DltResource = dlt.resource(rows, name=name, columns=columns)
        resource.add_map(store_owners)
        return self._with_hints(resource, name, _primary_key(declared))

    def _with_hints(self, resource: DltResource, name: str, key: Sequence[str]) -> DltResource:
        """Add the account to the key. Rows without a key of their own replace all rows of the account."""
        keys: dict[str, Any] = {"primary_key": ["account", *key]} if key else {"merge_key": "account"}
        resource.apply_hints(table_name=self.table(name), write_disposition="merge", **keys)
        return self._store.prepare(resource)

    def _row_maker(
        self, name: str, count: Count, row_file: _RowFile
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return the function that makes a row of a record.

        Which field owns which column is stored in dlt's state, with the marks of how far the account was
        read.
        """
        fields: Fields | None = None

        def report_renamed(field: str, column: str) -> None:
            log.warning("sync.field_renamed", account=self._label, resource=name, field=field, column=column)

        def make_row(record: dict[str, Any]) -> dict[str, Any]:
            nonlocal fields
            if fields is None:
                row_file.owners = dlt.current.resource_state(name).setdefault("columns", {})
                fields = Fields(row_file.owners, report_renamed)
            count(1)
            row = fields.rename(record) | {"account": self._account}
            row_file.add(row)
            return row

        return make_row

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Raise VendorUnavailable for errors other than ours: they mean answers that cannot be read."""
        try:
            yield
        except Exception as error:
            causes = list(causes_of(error))
            for cause in causes:
                if isinstance(cause, IngestError):
                    raise cause from None
            fault = type(causes[-1]).__name__
            raise VendorUnavailable(
                f"{self._label}: {what} cannot be read as the vendor describes it ({fault})"
            ) from error


def _store(settings: WarehouseSettings) -> SyncStore:
    if settings.kind is not FILESYSTEM:
        return SyncStore()
    from consumers.warehouse.lake_sync import LakeSyncStore

    return LakeSyncStore(settings)


def _primary_key(resource: DltResource) -> list[str]:
    columns = resource.compute_table_schema().get("columns", {})
    return [column for column, hints in columns.items() if hints.get("primary_key")]


def _halves(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    middle = len(rows) // 2
    return [part for part in (rows[middle:], rows[:middle]) if part]


def _has_key(key: Sequence[str], keyless: list[str]) -> Callable[[dict[str, Any]], bool]:
    """Return a filter that drops records without their key, and notes them in `keyless`.

    It is a plain function, because dlt copies the steps of a resource.
    """
    numbers = itertools.count(1)

    def has_key(record: dict[str, Any]) -> bool:
        number = next(numbers)
        missing = [name for name in key if not isinstance(record.get(name), str | int | float)]
        if missing:
            keyless.append(f"record {number} has no {' and no '.join(missing)}")
        return not missing

    return has_key
